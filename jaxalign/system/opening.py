"""First line of the program, told before its slow imports: a second passes until they are done."""

import contextlib
import os
import sys
import time

BEGAN = time.monotonic()
TRAINING = ("rlhf", "sft", "reward", "ppo", "grpo", "dpo", "kto", "online", "distill")
PRINTING = ("evaluate", "generate", "explain", "export")  # their output is for other programs
SILENT = {"-h", "--help", "--quiet"}


def opening(arguments: list[str]) -> str:
    """First line of a command with these arguments; empty where it has none.

    >>> opening(["dpo", "--data.path", "pairs.jsonl"]), opening(["dpo", "--help"])
    ('jaxalign dpo: starting', '')
    """
    is_known = arguments[:1] and arguments[0] in (*TRAINING, *PRINTING)
    return f"jaxalign {arguments[0]}: starting" if is_known and not SILENT & {*arguments} else ""


def _tell() -> None:
    """Print the first line if this process is the program."""
    as_module = sys.argv[:1] == ["-m"] and "jaxalign" in sys.orig_argv
    if as_module or os.path.basename(sys.argv[0] if sys.argv else "") == "jaxalign":
        line = opening(sys.argv[1:])
        stream = sys.stderr if sys.argv[1:2] and sys.argv[1] in PRINTING else sys.stdout
        if line:
            with contextlib.suppress(OSError, ValueError):
                print(line, file=stream, flush=True)


_tell()
