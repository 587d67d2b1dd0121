"""Restart of the program with settings of memory that are read at its start alone."""

import contextlib
import os
import sys

TUNABLES, RESTARTED = "GLIBC_TUNABLES", "JAXALIGN_RESTARTED"


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
