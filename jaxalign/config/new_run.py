"""The command that begins a new run with what an old one does not go on with."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxalign.config.field_types import hints_of
from jaxalign.config.flags import flags_of
from jaxalign.config.options import OLD_SPELLINGS, Flag

NEW_MODEL = {"model", "tokenizer"}  # sections of a model that is yet to be made
# Settings that a model which is trained already has no use for, or that ask for another start.
OF_THE_START = ("model", "tokenizer", "init", "policy", "teacher", "adapter", "lora", "seed")


def new_run(
    command: str, config: Any, flags: Sequence[Flag], *, directory: Path, field: str
) -> str:
    """Sentence with the command of a new run in a directory beside that of the old one.

    It starts from the old run's model where there is one and the setting goes with it, and as the
    old one did otherwise.

    Args:
      command: `dpo`, `sft`, ...
      config: of the command line that was given.
      flags: of that command line.
      directory: of the old run.
      field: the setting, or the input, that the old run does not go on with.
    """
    start = _start(command, config) if (directory / "model").is_dir() else None
    if field.partition(".")[0].partition(" ")[0] in OF_THE_START:
        start = None
    dropped, words = {"output", *OLD_SPELLINGS, "overwrite"}, ["jaxalign", command]
    if start is not None:
        words += [f"--{start}", str(directory)]
        dropped |= {start, "adapter"}
    for name, values in flags:
        fields = [field for field in flags_of(type(config)) if f".{field}".endswith(f".{name}")]
        sections = {field.partition(".")[0] for field in fields}
        is_of_new_model = start is not None and bool(sections) and sections <= NEW_MODEL
        if name not in dropped and not is_of_new_model:
            words += [f"--{name}", *values]
    words += ["--output", str(_free(directory))]
    what = "to train on from its model with this" if start else "for a new run with this"
    return f"{what}: {shlex.join(words)}"


def _start(command: str, config: Any) -> str | None:
    """Field that names the model that a run starts from; None: the run's own model is no start."""
    if command == "sft":
        return "init"
    return "policy" if "policy" in hints_of(type(config)) else None


def _free(directory: Path) -> Path:
    """Name of a directory that there is not yet: that of the run with a number."""
    names = (directory.with_name(f"{directory.name}-{number}") for number in range(2, 10**6))
    return next(path for path in names if not path.exists())
