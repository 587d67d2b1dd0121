"""Signals: one line and the right status, wherever the program stands; saved where it can be."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import jaxalign.system.signals

MODULE = Path(jaxalign.system.signals.__file__)
LINE = "jaxalign: {}: stopped; run the same command again to go on\n"
# The module alone, without the package: a process of 50 ms. It says when it is ready.
PROGRAM = """
import hashlib, importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("signals", sys.argv[1])
signals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signals)
"""
SLEEPS = "with signals.ending():\n    os.write(1, b'!')\n    time.sleep(30)\n"
SWALLOWS = """
with signals.ending():
    os.write(1, b'!')
    while True:
        try:
            time.sleep(30)
        except BaseException:
            pass
"""
COMPUTES = """
with signals.ending():
    os.write(1, b'!')
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
"""
PRINTS = "with signals.ending():\n    print('kept')\n    os.write(1, b'!')\n    time.sleep(30)\n"
SAVES = """
with signals.ending(), signals.deferred() as received:
    os.write(1, b'!')
    while not received:
        time.sleep(0.01)
    print("saved", received)
"""
STUCK = """
with signals.ending(), signals.deferred() as received:
    os.write(1, b'!')
    while not received:
        time.sleep(0.01)
    os.write(1, b'?')
    time.sleep(30)
"""
COMPUTES_DEFERRED = """
with signals.ending(), signals.deferred():
    os.write(1, b'!')
    os.write(1, b'?')
    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
"""
ENDED = """
with signals.ending():
    pass
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
assert signal.set_wakeup_fd(-1) == -1
"""


def stopped(program: str, *numbers: int, before: Sequence[str] = ()) -> tuple[int, str, str]:
    """Status, output and errors of a program that gets each signal when it says that it waits, and
    has acknowledged the one before.
    """
    command = [*before, sys.executable, "-c", PROGRAM + program, str(MODULE)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    buffered = {name: v for name, v in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, **pipes, env=buffered) as process:
        first = b""
        for number in numbers:
            first += process.stderr.readline() if number != numbers[0] else b""
            assert process.stdout.read(1)
            process.send_signal(number)
        try:
            output, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    return process.returncode, output.decode(), (first + errors).decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_line_and_the_status_at_once(number):
    assert stopped(SLEEPS, number) == (128 + number, "", LINE.format(number.name))


@pytest.mark.parametrize("program", [SWALLOWS, COMPUTES], ids=["swallows", "computes"])
def test_nothing_swallows_it(program):
    assert stopped(program, signal.SIGINT) == (130, "", LINE.format("SIGINT"))


def test_what_was_printed_is_written_out():
    assert stopped(PRINTS, signal.SIGTERM)[:2] == (143, "kept\n")


def test_the_first_waits_for_what_is_saved_and_the_second_does_not():
    """It is acknowledged at once: also before the program has reacted, or while it cannot."""
    line = "{}: finishing this step and saving (again to stop at once)\n".format
    assert stopped(SAVES, signal.SIGTERM) == (0, f"saved [{signal.SIGTERM:d}]\n", line("SIGTERM"))
    assert stopped(STUCK, signal.SIGINT, signal.SIGTERM) == (130, "", line("SIGINT"))
    assert stopped(COMPUTES_DEFERRED, signal.SIGINT, signal.SIGTERM) == (130, "", line("SIGINT"))


def test_what_was_ignored_stays_ignored():
    """As `nohup` does; the program then ends by another signal."""
    ignored = ["sh", "-c", 'trap "" HUP; exec "$0" "$@"']
    program = SLEEPS.replace("time.sleep(30)", "os.kill(os.getpid(), 1); print('here')")
    assert stopped(program, before=ignored) == (0, "!here\n", "")


def test_everything_is_as_before_behind_it():
    assert stopped(ENDED) == (0, "", "")


def test_a_program_stopped_while_it_imports_says_so_in_a_line():
    """In the second before `ending` begins, on the way to the package's own command."""
    code = f"import sys; sys.argv[0] = '/bin/jaxalign'\n{PROGRAM}\nos.kill(os.getpid(), 2)"
    command = [sys.executable, "-c", code, str(MODULE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (130, LINE.format("SIGINT"))
    init = (MODULE.parents[1] / "__init__.py").read_text()
    first = re.search(r"^(?:from|import) .*$", init, re.MULTILINE)
    assert first is not None and first[0].startswith("from jaxalign.system import signals")


def test_nested_and_in_other_threads_it_changes_nothing():
    handler = signal.getsignal(signal.SIGTERM)
    with jaxalign.system.signals.ending(), jaxalign.system.signals.ending():
        assert signal.getsignal(signal.SIGTERM) is not handler
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
@pytest.mark.parametrize("deferred", [True, False], ids=["in a step", "before any"])
def test_a_compilation_does_not_delay_the_answer(deferred):
    """A step that compiles is acknowledged and ended by a second signal; scoring ends at once."""
    body = """
import contextlib, os, jax, jax.numpy as jnp
from jaxalign.system import signals
jax.config.update("jax_enable_compilation_cache", False)
def slow(x):
    for _ in range(6000):
        x = jnp.sin(x) @ x
    return x
lowered = jax.jit(slow).lower(jnp.ones((2, 2)))
with signals.ending(), signals.deferred() if %s else contextlib.nullcontext():
    os.write(1, b"!")
    lowered.compile()
    os.write(1, b"compiled")
"""
    command = [sys.executable, "-c", body % deferred]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.read(1) == b"!"
        process.send_signal(signal.SIGINT)
        answer = process.stderr.readline()
        assert process.poll() is None or not deferred
        process.send_signal(signal.SIGTERM)
        assert (process.wait(timeout=60), process.stdout.read()) == (130, b"")
    wanted = "SIGINT: finishing this step" if deferred else LINE.format("SIGINT")
    assert answer.decode().startswith(wanted)
