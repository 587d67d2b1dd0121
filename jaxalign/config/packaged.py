"""Files of configurations that come with the package, found by name."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "configs"


def packaged_names() -> list[str]:
    """Names of the configurations in the package.

    >>> "rlhf_smollm2" in packaged_names()
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def packaged(file: Path) -> Path:
    """A file as it is given, or the package's of that name where there is none here.

    >>> packaged(Path("rlhf_smollm2")).name, packaged(Path("mine.py")).name
    ('rlhf_smollm2.py', 'mine.py')
    """
    by_name = file.parent == Path() and file.name.removesuffix(".py") in packaged_names()
    return FOLDER / f"{file.name.removesuffix('.py')}.py" if by_name and not file.exists() else file
