"""The user's cache folder: prepared data, downloaded models, compiled programs."""

import contextlib
import os
from pathlib import Path

import filelock
import jax

MAX_CACHE_BYTES = 2**31  # beyond, jax drops the compiled programs that were not used for longest
MIN_SECONDS = 0.1  # of compiling a program that is kept; a command has dozens that take less than 1


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/jaxalign`, or `~/.cache/jaxalign`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxalign"


def use_compilation_cache() -> None:
    """Turn on jax's persistent compilation cache, in the user's cache folder.

    Nothing changes where the user told jax of another folder (`JAX_COMPILATION_CACHE_DIR`), or this
    one cannot be written to, or somebody else can; `JAX_ENABLE_COMPILATION_CACHE=0` turns it off.
    """
    folder = cache_directory() / "programs"
    is_ours = _is_private(folder)
    if jax.config.values["jax_compilation_cache_dir"] is None and is_ours:
        _drop_unfinished(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", MAX_CACHE_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)


def _is_private(folder: Path) -> bool:
    """Whether the user alone can write to a folder, whose compiled programs will be run.

    The cache folder is made where it is missing, for its owner only.
    """
    try:
        cache_directory().mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        statuses = [path.stat() for path in (cache_directory(), folder)]
    except OSError:
        return False
    others_may_write = any(stat.st_uid != os.getuid() or stat.st_mode & 0o002 for stat in statuses)
    return not others_may_write and os.access(folder, os.W_OK)


def _drop_unfinished(folder: Path) -> None:
    """Remove compiled programs that were not written to their end (a kill, a full disk).

    jax would read them as whole, and keep no other program beside them: it writes the program
    (`-cache`) and then, within the same lock, when that was used (`-atime`), and looks for all
    `-atime` files before it writes the next.
    """
    with contextlib.suppress(OSError), filelock.FileLock(folder / ".lockfile", timeout=1):
        for program in folder.glob("*-cache"):
            if not program.with_name(f"{program.name.removesuffix('-cache')}-atime").exists():
                program.unlink()
