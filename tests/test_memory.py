"""What is done with freed memory."""

import sys

import pytest

from jaxalign import memory


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
    listener(memory.COMPILED, 0.5)
    listener("/jax/core/compile/jaxpr_trace_duration", 9.0)
    assert returned == []
    listener(memory.COMPILED, 9.0, fun_name="step")
    assert returned == [("malloc_trim", 0)]


def test_a_compilation_is_announced_by_that_name():
    import jax
    from jax import monitoring

    events = []

    def listener(event, seconds, **_):
        events.append(event)

    monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x * 3.25 + 1.5)(2.5)
    finally:
        monitoring.unregister_event_duration_listener(listener)
    assert memory.COMPILED in events


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_glibc_has_both_functions():
    assert memory._glibc("mallopt") and memory._glibc("malloc_trim")


def test_nothing_is_asked_of_another_system(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._glibc("mallopt") is None
    memory.keep_freed_memory()
