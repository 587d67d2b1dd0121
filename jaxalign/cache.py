"""The user's cache folder: prepared data, downloaded models, compiled programs."""

import os
from pathlib import Path

PROGRAMS_BYTES = 2**31  # beyond, jax drops the compiled programs that were not used for longest


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/jaxalign`, or `~/.cache/jaxalign`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxalign"


def keep_programs() -> None:
    """Let jax, which must not be imported yet, keep what it compiles in the cache folder: a command
    compiles once for all its runs.

    Nothing changes where the user told jax of another folder (`JAX_COMPILATION_CACHE_DIR`), or this
    one cannot be written to; `JAX_ENABLE_COMPILATION_CACHE=0` turns it off.
    """
    folder = cache_directory() / "programs"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and _is_writable(folder):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(PROGRAMS_BYTES)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
