"""Refusal of files that only `pickle` could read, which runs whatever code is in them."""

from collections.abc import Iterable
from pathlib import Path, PurePath

from jaxalign.errors import UserError
from jaxalign.system.files import reason, short_path

KINDS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5")


def refuse_pickles(files: Path | Iterable[PurePath]) -> None:
    """Refuse pickles among files, with how to convert them.

    Args:
      files: a folder, a file, or many files, on this machine or elsewhere.

    Raises:
      UserError: names the first of them.
    """
    if isinstance(files, Path):
        files = names_in(files) if files.is_dir() else [files]
    if pickles := sorted(file for file in files if file.suffix in KINDS):
        raise UserError(
            f"{pickles[0]}: reading such a file can run code that is in it; convert it once, where "
            "you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR) of "
            "transformers writes model.safetensors"
        )


def names_in(folder: Path) -> list[Path]:
    """Paths of the entries of a folder, sorted.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{short_path(folder)} cannot be read: {reason(error)}") from None
