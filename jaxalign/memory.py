"""What a program on a CPU does with memory that was freed. Elsewhere than on glibc: nothing."""

import ctypes
import functools
import sys

# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, see mallopt(3)
MALLOC = {-4: 0, -1: 2**31 - 1, -2: 2**26}
COMPILED = "/jax/core/compile/backend_compile_duration"
LONG = 1.0  # seconds; shorter compilations leave little behind


def keep_freed_memory() -> None:
    """Ask glibc to hand freed memory to the next step instead of returning it to the system.

    A step allocates the same large arrays again and again; getting them from the system means a
    page fault for every 4 KiB.
    """
    if mallopt := _glibc("mallopt"):
        for parameter, value in MALLOC.items():
            mallopt(parameter, value)


@functools.cache  # one listener, however often it is asked for
def return_compiler_memory() -> None:
    """Return what a long compilation has freed: its threads keep it, and no step could use it."""
    if trim := _glibc("malloc_trim"):
        from jax import monitoring  # not at the top: `jaxalign --help` is quicker without jax

        def compiled(event: str, seconds: float, **_) -> None:
            if event == COMPILED and seconds > LONG:
                trim(0)

        monitoring.register_event_duration_secs_listener(compiled)


def _glibc(function: str):
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
