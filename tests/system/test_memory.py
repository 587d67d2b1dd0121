"""What is done with freed memory."""

import os
import subprocess
import sys

import pytest

from jaxalign.system import memory


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_memory_of_long_compilations_alone_is_returned(monkeypatch):
    from jax import monitoring

    returned, listeners = [], []
    monkeypatch.setattr(memory, "_glibc", lambda name: lambda keep: returned.append((name, keep)))
    monkeypatch.setattr(
        monitoring, "register_event_duration_secs_listener", lambda fn: listeners.append(fn)
    )
    memory.return_compiler_memory.cache_clear()
    memory.return_compiler_memory()
    memory.return_compiler_memory()
    memory.return_compiler_memory.cache_clear()
    (listener,) = listeners
    listener(memory.COMPILE_EVENT, 0.5)
    listener("/jax/core/compile/jaxpr_trace_duration", 9.0)
    assert returned == []
    listener(memory.COMPILE_EVENT, 9.0, fun_name="step")
    assert returned == [("malloc_trim", 0)]


def test_a_compilation_is_announced_by_that_name():
    import jax
    from jax import monitoring

    events = []

    def listener(event, duration_secs, **_):
        events.append(event)

    monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x * 3.25 + 1.5)(2.5)
    finally:
        monitoring.unregister_event_duration_listener(listener)
    assert memory.COMPILE_EVENT in events


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_glibc_has_both_functions():
    assert memory._glibc("mallopt") and memory._glibc("malloc_trim")


def test_nothing_is_asked_of_another_system(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._glibc("mallopt") is None
    memory.keep_freed_memory()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_the_program_starts_itself_again_once_and_keeps_its_arguments(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import os, sys\n"
        "from jaxalign.system.restart import with_huge_pages\n"
        "print('started', flush=True)\n"
        "with_huge_pages()\n"
        "print(os.environ['GLIBC_TUNABLES'], sys.argv[1:])\n"
    )
    environment = {name: x for name, x in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-W", "error", str(script), "a b", "--c"]
    huge = "glibc.malloc.hugetlb=1"
    expected = ["started", "started", f"{huge} ['a b', '--c']"]
    assert lines_of(command, environment) == expected
    theirs = environment | {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
    assert lines_of(command, theirs) == ["started", "glibc.malloc.check=0 ['a b', '--c']"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_a_program_inside_another_one_does_not_start_that_again(tmp_path):
    script = tmp_path / "host.py"
    script.write_text(
        "import os, sys\n"
        "from jaxalign.system.restart import with_huge_pages\n"
        "print('host', flush=True)\n"
        "sys.argv = ['jaxalign', 'dpo']\n"  # as runpy and notebooks do
        "with_huge_pages()\n"
        "print('GLIBC_TUNABLES' in os.environ)\n"
    )
    environment = {name: x for name, x in os.environ.items() if name != "GLIBC_TUNABLES"}
    assert lines_of([sys.executable, str(script), "--kernel"], environment) == ["host", "False"]


def lines_of(command, environment) -> list[str]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
