"""Settings of glibc's memory allocator that make training on a CPU faster; elsewhere, nothing."""

import ctypes
import functools
import sys
from typing import Any

from jax import monitoring

# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, see mallopt(3)
MALLOC = {-4: 0, -1: 2**31 - 1, -2: 2**26}
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
MIN_SECONDS = 1.0  # seconds; shorter compilations leave little behind


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of returning it to the system.

    A step allocates the same large arrays again and again; getting them from the system means a
    page fault for every 4 KiB.
    """
    if mallopt := _glibc("mallopt"):
        for parameter, value in MALLOC.items():
            mallopt(parameter, value)


@functools.cache  # one listener, however often it is asked for
def return_compiler_memory() -> None:
    """Return memory to the system after each long compilation, whose threads would keep it."""
    if trim := _glibc("malloc_trim"):

        def trim_after_compilation(event: str, duration_secs: float, **_: Any) -> None:
            if event == COMPILE_EVENT and duration_secs > MIN_SECONDS:
                trim(0)

        monitoring.register_event_duration_secs_listener(trim_after_compilation)


def _glibc(function: str) -> Any:
    """A function of glibc by its name; None: there is none on this system."""
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
