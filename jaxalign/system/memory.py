"""Settings of glibc's memory allocator that make training on a CPU faster; elsewhere, nothing."""

import contextlib
import ctypes
import functools
import os
import sys
from typing import Any

from jax import monitoring

# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, see mallopt(3)
MALLOC = {-4: 0, -1: 2**31 - 1, -2: 2**26}
TUNABLES, RESTARTED = "GLIBC_TUNABLES", "JAXALIGN_RESTARTED"
COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
MIN_SECONDS = 1.0  # seconds; shorter compilations leave little behind


def with_huge_pages() -> None:
    """Restart the process with huge memory pages (2 MiB), unless the user sets `GLIBC_TUNABLES`.

    A training step is an eighth quicker then, and glibc reads the setting only at the start. A
    program inside another one (a notebook, a debugger) is left alone.
    """
    arguments = sys.argv[1:]
    is_whole = (
        sys.orig_argv[len(sys.orig_argv) - len(arguments) :] == arguments and not sys.gettrace()
    )
    if sys.platform == "linux" and is_whole and not {TUNABLES, RESTARTED} & os.environ.keys():
        environment = os.environ | {
            TUNABLES: "glibc.malloc.hugetlb=1",
            RESTARTED: "1",
        }
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


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
