"""What only `pickle` could read is refused: reading such a file runs whatever code is in it."""

from collections.abc import Iterable
from pathlib import Path, PurePath

from jaxalign.errors import UserError
from jaxalign.system.files import reason, shown_path

KINDS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5")


def refuse_pickles(files: Path | Iterable[PurePath]) -> None:
    """Raise a one-line `UserError` that names the first of them, with what to do.

    Args:
      files: a folder, a file, or many files, on this machine or elsewhere.
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
    """What lies in a folder.

    Raises:
      UserError: it may not be read.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{shown_path(folder)} cannot be read: {reason(error)}") from None
