"""What a run tells: few plain lines, one live line on a terminal, silence when asked for."""

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxalign.system import console, opening
from jaxalign.system.console import counted, output, phase, show, tell, telling, warn


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


class Stream(io.StringIO):
    """A stream of some encoding that may be a terminal."""

    def __init__(self, *, terminal: bool = False, encoding: str = "utf-8"):
        super().__init__()
        self.terminal, self.codec = terminal, encoding

    def isatty(self):
        return self.terminal

    @property
    def encoding(self):
        return self.codec

    def write(self, text):
        text.encode(self.codec)  # as a terminal does
        return super().write(text)


def test_plain_lines_are_seconds_apart(clock, capsys):
    with counted("sft", 1000, unit="step", tokens_per_step=50) as advance:
        for done in range(1, 1001):
            clock[0] += 30 if done == 1 else 0.5  # the first step compiles
            advance(done, lambda done=done: f"loss {done}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sft: 0/1000"
    # 99 steps in 49.5 s, 900 to go
    assert lines[1] == "sft: 100/1000 2 steps/s, 100 tokens/s, 0:07:30 left, loss 100"
    assert lines[-2:] == ["sft: 1000/1000 2 steps/s, 100 tokens/s, 0:00:00 left, loss 1000",
                          "sft: 0:08:50"]  # fmt: skip
    assert len(lines) == 12


def test_slow_parts_are_told_of_at_least_every_minute(clock, capsys):
    with counted("ppo", 1000, start=7, unit="step") as advance:
        for done in (8, 9, 10):
            advance(done)
            clock[0] += 90
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["ppo: 7/1000", "ppo: 9/1000 90 s a step, 24:46:30 left",
                     "ppo: 10/1000 90 s a step, 24:45:00 left", "ppo: 0:04:30"]  # fmt: skip


def test_remarks_are_not_computed_unless_they_are_shown(clock):
    with counted("sft", 100) as advance:
        for done in range(1, 100):
            advance(done, lambda: 1 / 0)


def test_a_count_goes_on_under_the_name_of_the_phase_around_it(clock, capsys):
    with phase("scoring the reference"), counted("scoring", 10) as advance:
        for done in range(1, 11):
            advance(done)
            clock[0] += 6
    assert capsys.readouterr().out.splitlines() == [
        "scoring the reference",
        *(f"scoring the reference: {n}/10 0:00:{6 * (10 - n):02} left" for n in range(2, 11)),
        "scoring the reference: 0:01:00",
    ]  # fmt: skip


def test_one_live_line_on_a_terminal(clock, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream(terminal=True))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = sys.stdout
    with counted("sft", 4, start=1, unit="step") as advance:
        for done in (2, 3, 4):
            advance(done, lambda: "loss 1.5")
            clock[0] += 0.5
        time.sleep(0.6)  # two pictures
        with phase("sft: evaluating"):
            tell("sft: step 4: [bold] 0.25")
            warn("careful")
    shown = stream.getvalue()
    assert "4/4 2 steps/s, 0:00:00 left, loss 1.5" in shown
    assert "sft: step 4: [bold] 0.25\n" in shown
    assert "careful\n" in shown
    assert shown.endswith("sft: 1.5 s\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_letters_that_a_stream_lacks_are_codes(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stdout", Stream(terminal=terminal, encoding="ascii"))
    stream = sys.stdout
    with phase("reading Grüße.jsonl"), counted("ä", 3) as advance:
        tell("ö\ud800")
        advance(3, lambda: "ü")
    output("ß")
    assert "\\xf6\\ud800" in stream.getvalue()
    assert stream.getvalue().endswith("\\xdf\n")


def test_a_quiet_run_warns_and_says_what_no_file_holds(capsys):
    with telling(quiet=True), telling(stderr=True):
        tell("a line")
        show(["a table"])
        with phase("a phase"), counted("a count", 2) as advance:
            advance(2, lambda: 1 / 0)
        output("also in a file", needed=False)
        warn("a warning")
        output("a result")
    assert tuple(capsys.readouterr()) == ("a result\n", "a warning\n")
    tell("a line")
    assert capsys.readouterr().out == "a line\n"


def test_progress_goes_to_standard_error_where_the_output_is_a_result(capsys):
    with telling(stderr=True), phase("loading"):
        output("1.5")
    assert tuple(capsys.readouterr()) == ("1.5\n", "loading\n")


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_a_run_goes_on_when_nobody_reads(monkeypatch, stream):
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    tell("a line")
    with telling():
        tell("a line")


def test_a_run_goes_on_when_its_terminal_is_gone():
    code = """
import os, sys, time
from jaxalign.system.console import counted, tell
with counted("sft", 3) as advance:
    os.close(int(sys.argv[1]))
    for done in (1, 2, 3):
        advance(done)
        tell("a line")
        time.sleep(0.3)
os.write(2, b"at the end")
"""
    reader, terminal = pty.openpty()
    command = ["setsid", sys.executable, "-c", code, str(reader)]
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, pass_fds=[reader],
                          env=os.environ | {"TERM": "xterm"}) as process:  # fmt: skip
        os.close(reader)
        os.close(terminal)
        assert process.communicate(timeout=60)[1].decode().endswith("at the end")
    assert process.returncode == 0


def test_the_first_line_is_told_before_the_slow_imports(tmp_path):
    """By the program alone, and not where its output or its silence is asked for."""
    line = "jaxalign dpo: starting"
    assert opening.opening(["dpo", "--beta", "1"]) == line
    others = (["dpo", "--quiet"], ["--quiet", "dpo"], [], ["dop"], ["dpo", "-h"])
    assert [opening.opening(words) for words in others] == [""] * 5
    code = "import sys; sys.argv = ['bin/jaxalign', 'dpo']; import jaxalign.system.opening"
    environment = os.environ | {"JAXALIGN_RESTARTED": "1"}
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], env=environment,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == f"{line}\n"
    init = (Path(opening.__file__).parents[1] / "__init__.py").read_text()
    imports = [row for row in init.splitlines() if row.startswith(("import", "from"))]
    assert "system" in imports[0] and "system import opening" in imports[1]
