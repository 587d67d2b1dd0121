"""What a program on a CPU does with memory that was freed. Elsewhere than on glibc: nothing."""

import contextlib
import ctypes
import functools
import os
import sys

from jax import monitoring

# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, see mallopt(3)
MALLOC = {-4: 0, -1: 2**31 - 1, -2: 2**26}
TUNABLES, RESTARTED = "GLIBC_TUNABLES", "JAXALIGN_RESTARTED"
COMPILED = "/jax/core/compile/backend_compile_duration"
LONG = 1.0  # seconds; shorter compilations leave little behind


def with_huge_pages() -> None:
    """Start the same process again with memory in pages of 2 MiB, unless the user tells glibc
    otherwise (`GLIBC_TUNABLES`): a step is an eighth quicker, and glibc asks only at the start.

    A program inside another one (a notebook, a debugger) is left alone.
    """
    given = sys.argv[1:]
    is_whole = sys.orig_argv[len(sys.orig_argv) - len(given) :] == given and not sys.gettrace()
    if sys.platform == "linux" and is_whole and not {TUNABLES, RESTARTED} & os.environ.keys():
        environment = os.environ | {TUNABLES: "glibc.malloc.hugetlb=1", RESTARTED: "1"}
        with contextlib.suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


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

        def compiled(event: str, duration_secs: float, **_) -> None:
            if event == COMPILED and duration_secs > LONG:
                trim(0)

        monitoring.register_event_duration_secs_listener(compiled)


def _glibc(function: str):
    return getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
