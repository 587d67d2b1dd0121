"""Start of the program before its slow imports, which take seconds: memory, and its first line."""

import contextlib
import os
import sys
import time

from jaxalign.system.restart import with_huge_pages

TRAINING = ("rlhf", "sft", "reward", "ppo", "grpo", "dpo", "kto", "online", "distill")
PRINTING = ("evaluate", "generate", "explain", "export")  # their output is for other programs
HELP = {"-h", "--help"}


def opening(arguments: list[str]) -> str:
    """First line of a command with these arguments; empty where it has none.

    >>> opening(["dpo", "--data.path", "pairs.jsonl"]), opening(["dpo", "--help"])
    ('jaxalign dpo: starting', '')
    """
    is_told = is_long(arguments) and "--quiet" not in arguments
    return f"jaxalign {arguments[0]}: starting" if is_told else ""


def is_long(arguments: list[str]) -> bool:
    """Whether a command line computes something, and does not only print its help."""
    return bool({*arguments[:1]} & {*TRAINING, *PRINTING}) and not HELP & {*arguments}


def _open_program() -> float | None:
    """The time at which the program began, restarted if need be and its first line told; None: this
    is another program.
    """
    as_module = sys.argv[:1] == ["-m"] and "jaxalign" in sys.orig_argv
    if not as_module and os.path.basename(sys.argv[0] if sys.argv else "") != "jaxalign":
        return None
    if is_long(sys.argv[1:]):
        with_huge_pages()
    if line := opening(sys.argv[1:]):
        stream = sys.stderr if sys.argv[1] in PRINTING else sys.stdout
        with contextlib.suppress(OSError, ValueError):
            print(line, file=stream, flush=True)
    return time.monotonic()


BEGAN = _open_program()  # in seconds of a monotonic clock
