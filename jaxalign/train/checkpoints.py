"""Checkpoints for exact resumption (orbax), and models as safetensors.

A checkpoint appears under its final name only when it is whole, so a process may be killed at any
moment. Its manifest holds the SHA-256 of every file and of itself: one that was damaged later, or
is of another run, is named, and the one before it is used. It holds one logical shape per array
whatever the layout, so it is read under any other.
"""

import asyncio
import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey

from jaxalign.errors import UserError
from jaxalign.models.layer_stack import stacked, unstacked, within
from jaxalign.numerics.types import Params, Tree
from jaxalign.system.files import (
    as_type,
    exists,
    make_directory,
    read_bytes,
    read_json,
    reason,
    regular_file,
    replace_file,
    short_path,
    write_atomically,
    writing,
)
from jaxalign.system.signals import say

MANIFEST, STATE = "manifest.json", "state"
PARAMS = "params/"  # before the paths of trained parameters in a manifest
STEP = re.compile(r"0|[1-9][0-9]{0,17}")
ASIDE = ".damaged"  # added to the name of a checkpoint that cannot be used
TEMPORARY = re.compile(r"\.[0-9]+\.[0-9a-f]+\.tmp")
STRANGE = re.compile(r"[^A-Za-z0-9_/.,=+@ -]")  # in paths: orbax may take it for a pattern
SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")  # in messages of tensorstore


class _Unusable(Exception):
    """Reason why a checkpoint is not used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Manifest of a checkpoint: what it holds, with checksums.

    step: updates that the state has had.
    run: identity of the run that it belongs to; empty: of none.
    leaves: name, shape and dtype of every array that is stored, in order.
    frozen: a checksum of those that are not stored.
    files: SHA-256 of every other file, in hexadecimal, by its path in the checkpoint.
    """

    step: int
    run: str
    leaves: list[tuple[str, list[int], str]]
    frozen: int
    files: dict[str, str] = dataclasses.field(default_factory=dict)

    def sealed(self) -> bytes:
        """Content of the manifest file, with its own SHA-256."""
        content = dataclasses.asdict(self)
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps({"sha256": digest, "manifest": content}, indent=1).encode()


class Checkpoints:
    """Checkpoints of the last few states of a run, in a directory of their own.

    Writing goes on in the background while training continues; `wait` or `close` ends it. Typed
    random keys are stored as their bits and restored as keys. Parameters in a field `frozen` are
    not stored: a resumed run reads them from its model, and a checksum tells whether they are the
    same.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 2,
        run: str = "",
        layers: int | None = None,
    ):
        """Nothing is read or written yet.

        Args:
          directory: made when the first state is saved.
          keep: number of newest checkpoints that are kept.
          run: identity of the run; checkpoints of another one are not used. Empty: of any.
          layers: number of layers that are stacked in the states of this run, and stored one by
            one, as those of a run that does not stack them; None: states are stored as they are.
        """
        self.directory, self.keep, self.run = Path(directory).absolute(), keep, run
        self._layers = layers
        self._unused: list[Path] = []
        self._thread: threading.Thread | None = None
        self._error: UserError | None = None
        self._is_clean = False
        self._frozen: int | None = None

    def steps(self) -> list[int]:
        """Steps of the checkpoints in the directory, in order, whole or not."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(
                f"{short_path(self.directory)} cannot be read: {reason(error)}"
            ) from None
        return sorted(int(name) for name in names if STEP.fullmatch(name))

    def is_whole(self, step: int) -> bool:
        """Whether the checkpoint of a step has all that was written, and is of this run."""
        try:
            checked(self.directory / str(step), step, self.run)
        except _Unusable:
            return False
        return True

    def save(self, step: int, state: Tree, *, beside: Collection[int] = ()) -> None:
        """Write `state` as that of `step`; returns once the arrays are copied, not yet written.

        Args:
          step: updates that the state has had.
          state: a pytree of arrays.
          beside: steps whose checkpoints stay beside the newest ones.

        Raises:
          UserError: the save before could not be written.
        """
        self.wait()
        _orbax()  # imported here: two threads that import the same at once may fail
        self._clean()
        if step in self.steps():
            return
        if self._layers is not None:
            state = self._kept(jax.tree.map(_on_host, state))
        if self._frozen is None:
            self._frozen = _frozen_sum(state)
        manifest = Manifest(step=step, run=self.run, leaves=_leaves_of(state), frozen=self._frozen)
        arrays = {name: np.array(leaf) for name, leaf in _numbered(_stored(state)).items()}
        self._thread = threading.Thread(target=self._write, args=(manifest, arrays, set(beside)))
        self._thread.start()

    def restore(self, template: Tree) -> tuple[int, Tree] | None:
        """Step and state of the newest whole checkpoint, or None where there is no checkpoint.

        The state has the shardings of `template`. Checkpoints that are not whole are named on
        standard error.

        Args:
          template: a state of the same structure, shapes and dtypes; its numbers are not used.

        Raises:
          UserError: no checkpoint is whole; or the newest that is holds other arrays than the
            template, or was made beside other frozen ones.
        """
        self.wait()
        self._unused, reasons = [], []
        for step in reversed(self.steps()):
            where = self.directory / str(step)
            try:
                manifest = checked(where, step, self.run)
            except _Unusable as error:
                self._unused.append(where)
                reasons.append(f"checkpoint {short_path(where)} {error}")
                continue
            for why in reasons:
                say(f"{why}: going on from step {step}")
            return step, self._read(where, manifest, template)
        if reasons:
            raise UserError(
                f"{reasons[0]}, and there is no other; remove {short_path(self.directory)} and run "
                "the same command again to begin this stage at its first step"
            )
        return None

    def read(self, step: int, template: Tree) -> Tree:
        """State of the checkpoint of one step.

        Args:
          step: one of `steps`.
          template: as in `restore`.

        Raises:
          UserError: the checkpoint is not whole, or does not fit the template.
        """
        self.wait()
        where = self.directory / str(step)
        try:
            manifest = checked(where, step, self.run)
        except _Unusable as error:
            raise UserError(f"checkpoint {short_path(where)} {error}") from None
        return self._read(where, manifest, template)

    def check(self) -> None:
        """Raise the error of a save in the background, if there was one."""
        if self._thread is None or not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Return when every save is on disk.

        Raises:
          UserError: the last one could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Finish writing."""
        self.wait()

    def _write(self, manifest: Manifest, arrays: dict[str, np.ndarray], beside: set[int]) -> None:
        final = self.directory / str(manifest.step)
        temporary = self.directory / f".{manifest.step}.{secrets.token_hex(8)}.tmp"
        try:
            with _saving(final):
                temporary.mkdir()
                with plain(temporary) as folder:
                    _save(folder / STATE, arrays)
                _sync(temporary)
                sealed = dataclasses.replace(manifest, files=_digests(temporary)).sealed()
                write_atomically(temporary / MANIFEST, sealed)
                temporary.rename(final)
                for step in set(self.steps()[: -self.keep]) - beside:
                    gone = self.directory / f".{step}.{secrets.token_hex(8)}.tmp"
                    (self.directory / str(step)).rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)
        except UserError as error:
            self._error = error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _clean(self) -> None:
        """Make the directory, remove unfinished checkpoints, rename those that cannot be used."""
        if self._is_clean and not self._unused:
            return
        make_directory(self.directory)
        with writing(self.directory):
            for name in os.listdir(self.directory):
                if TEMPORARY.fullmatch(name):
                    shutil.rmtree(self.directory / name, ignore_errors=True)
            for path in self._unused:
                names = (f"{path.name}{ASIDE}{n or ''}" for n in range(10**6))
                path.rename(next(p for p in map(path.with_name, names) if not exists(p)))
        self._unused, self._is_clean = [], True

    def _read(self, where: Path, manifest: Manifest, template: Tree) -> Tree:
        """State of a checkpoint whose files are whole; raises `UserError` if it does not fit."""
        template = self._kept(template)
        _check_leaves(manifest.leaves, _leaves_of(template), where)
        frozen = _frozen_sum(template)
        if manifest.frozen != frozen:
            raise UserError(
                f"checkpoint {where} was made beside other frozen parameters; "
                "start from the model that the run began with, or use another run directory"
            )
        self._frozen = frozen
        wanted = _stored(template)
        try:
            with plain(where) as folder:
                bits = _restore(folder / STATE, _numbered(wanted))
        except UserError:
            raise
        except Exception as error:  # its files are those that were written
            why = reason(_system_error(error))
            raise UserError(f"checkpoint {where} is whole, but cannot be read: {why}") from None
        arrays = {
            path: _from_bits(bits[str(i)], leaf) for i, (path, leaf) in enumerate(wanted.items())
        }
        state = jax.tree_util.tree_map_with_path(
            lambda path, leaf: arrays.get(path, leaf), template
        )
        return state if self._layers is None else within(stacked, state, self._layers)

    def _kept(self, state: Tree) -> Tree:
        """A state as it is stored."""
        return state if self._layers is None else within(unstacked, state, self._layers)


def checked(where: Path, step: int, run: str = "") -> Manifest:
    """Manifest of a checkpoint, whose files are all checked against it.

    Args:
      where: the checkpoint.
      step: by its name.
      run: identity of the run that it must belong to; empty: of any.
    """
    if not where.is_dir():
        raise _Unusable("is no directory")
    if not (where / MANIFEST).is_file():
        raise _Unusable(f"is not whole: it has no {MANIFEST}")
    try:
        content = read_bytes(where / MANIFEST)
        fields = read_json(where / MANIFEST, dict[str, Any]).get("manifest")
        manifest = as_type(fields, Manifest, MANIFEST)
        files = _digests(where)
    except (UserError, OSError) as error:
        raise _Unusable(f"is damaged: {error}") from None
    if content != manifest.sealed():
        raise _Unusable(f"is damaged: {MANIFEST} is not as it was written")
    for name in sorted(files.keys() | manifest.files.keys()):
        if name not in manifest.files:
            raise _Unusable(f"is damaged: {name} was not written with it")
        if files.get(name) != manifest.files[name]:
            there = "is not as it was written" if name in files else "is missing"
            raise _Unusable(f"is damaged: {name} {there}")
    if manifest.step != step:
        raise _Unusable(f"is named {step}, but is that of step {manifest.step}")
    if run and manifest.run != run:
        raise _Unusable("is of another run")
    return manifest


def read_trained(directory: Path, step: int) -> tuple[dict[str, np.ndarray], int]:
    """Trained parameters of a checkpoint by path, such as `trunk/embedding`, on the host; and the
    checksum of the frozen ones.

    Nothing else of the state is read. The run may still be going on.

    Args:
      directory: of the checkpoints of a stage.
      step: one of theirs.

    Raises:
      UserError: that checkpoint is not whole.
    """
    where = Path(directory).absolute() / str(step)
    try:
        manifest = checked(where, step)
        names = {str(i): leaf[0] for i, leaf in enumerate(manifest.leaves)}
        wanted = {i: name for i, name in names.items() if name.startswith(PARAMS)}
        with plain(where) as folder:
            arrays = _read_arrays(folder / STATE, list(wanted))
    except _Unusable as error:
        raise UserError(f"checkpoint {short_path(where)} {error}") from None
    except OSError as error:
        raise UserError(f"checkpoint {short_path(where)} is gone: {reason(error)}") from None
    return {wanted[i].removeprefix(PARAMS): array for i, array in arrays.items()}, manifest.frozen


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest, by path, without files of hidden names."""
    digests: dict[str, str] = {}
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path != folder / MANIFEST:
                with regular_file(path).open("rb") as file:
                    name = path.relative_to(folder).as_posix()
                    digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _raise(error: OSError) -> NoReturn:
    raise error


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Context in which every error of writing a checkpoint becomes a one-line `UserError`."""
    with writing(path):
        try:
            yield
        except (OSError, UserError):
            raise
        except Exception as error:
            if not path.parent.exists():  # orbax says all that it misses
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            raise _system_error(error) from None


def _system_error(error: Exception) -> OSError:
    """The system error behind a library's exception; else one with the library's message."""
    if code := SYSTEM_ERROR.search(str(error)):
        return OSError(int(code[1]), os.strerror(int(code[1])))
    return OSError(" ".join(str(error).split())[:200] or type(error).__name__)


@functools.cache
def _orbax() -> tuple[Any, Any]:
    """Orbax and its checkpointer of trees of arrays, with logging off."""
    import absl.logging
    import orbax.checkpoint as ocp

    absl.logging.set_verbosity(absl.logging.FATAL)  # orbax narrates every save otherwise
    kinds = ocp.type_handlers

    class Whole(kinds.NumpyHandler):
        """Array handler that finishes all arrays before it raises the first failure.

        Orbax returns at the first failure, and every later one then prints a traceback.
        """

        async def _background_serialize(self, values: Any, infos: Any, args: Any = None) -> None:
            one = super()._background_serialize
            arrays = zip(values, infos, args or [kinds.SaveArgs()] * len(values), strict=True)
            ends = (one([value], [info], [arg]) for value, info, arg in arrays)
            for end in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(end, BaseException):
                    raise end

    handlers = kinds.create_type_handler_registry(
        (np.ndarray, Whole(deepcopy_host_arrays=False)), (jax.Array, kinds.ArrayHandler())
    )
    handler = ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=handlers)
    return ocp, ocp.Checkpointer(handler)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    library, checkpointer = _orbax()
    checkpointer.save(path, args=library.args.PyTreeSave(arrays))


def _restore(path: Path, wanted: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Stored arrays of those names, with the shapes, dtypes and shardings of `wanted`."""
    library, checkpointer = _orbax()
    arguments = library.checkpoint_utils.construct_restore_args(wanted)
    read = checkpointer.restore(
        path, args=library.args.PyTreeRestore(wanted, restore_args=arguments)
    )
    # a step will overwrite them, so they must not share memory: devices do that hold the same
    return {n: jax.device_put(read.pop(n), wanted[n].sharding, may_alias=False) for n in wanted}


def _read_arrays(path: Path, numbers: list[str]) -> dict[str, np.ndarray]:
    """Stored arrays of those names alone, on the host."""
    library, checkpointer = _orbax()
    wanted = dict.fromkeys(numbers, 0)
    arguments = dict.fromkeys(numbers, library.RestoreArgs(restore_type=np.ndarray))
    return checkpointer.restore(
        path,
        args=library.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True),
    )


@contextlib.contextmanager
def plain(directory: Path) -> Iterator[Path]:
    """Path to the directory without characters that orbax takes for a pattern, such as `[`.

    It is the directory's own, or that of a temporary link to it.

    Args:
      directory: absolute.

    Raises:
      UserError: there is no place for such a link.
    """
    strange = STRANGE.search(str(directory))
    if strange is None:
        yield directory
        return
    with contextlib.ExitStack() as behind:
        yield _link_to(directory, strange[0], behind)


def _link_to(directory: Path, strange: str, behind: contextlib.ExitStack) -> Path:
    """Link to the directory in a private temporary one, which `behind` removes."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="jaxalign-", ignore_cleanup_errors=True)
        link = Path(behind.enter_context(folder)).absolute() / "checkpoint"
        if not STRANGE.search(str(link)):
            link.symlink_to(directory, target_is_directory=True)
            return link
        why = f"{short_path(link.parent.parent)} has one as well"
    except OSError as error:
        why = reason(error)
    raise UserError(
        f"{short_path(directory)} has the character {strange!r}, which checkpoints need a link "
        f"without, and no temporary directory takes one ({why}); give an --output without that "
        "character, or set TMPDIR to a directory that you may write to"
    )


def _sync(folder: Path) -> None:
    """Return when all files are on the disk, not only in the system's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def save_model(directory: str | os.PathLike[str], params: Params, config: dict[str, Any]) -> None:
    """Write `model.safetensors` and `config.json`; each file appears whole or not at all.

    Args:
      directory: created if needed.
      params: nested dicts of arrays; names are joined by "/".
      config: configuration of the model, as JSON types. A copy goes into the header of
        `model.safetensors`, so that the two files cannot be of different models unnoticed.
    """
    from safetensors.numpy import save_file

    directory = make_directory(directory)
    text = json.dumps(config, indent=2, sort_keys=True)
    # safetensors writes the memory of an array as it lies, so that must be in C order
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in _flatten(params).items()}
    write_atomically(directory / "config.json", text.encode())
    replace_file(
        directory / "model.safetensors",
        lambda file: save_file(arrays, file, metadata={"config": text}),
    )


def _on_host(leaf: Any) -> Any:
    """An array in NumPy, where a part of it is no copy; a random key as it is."""
    return leaf if _is_key(leaf) else np.asarray(leaf)


def _is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbered(stored: dict[Any, Any]) -> dict[str, jax.Array]:
    """Arrays to store, by position: the bits of a key, any other array as it is."""
    return {
        str(i): jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)
        for i, leaf in enumerate(stored.values())
    }


def _from_bits(bits: jax.Array, leaf: Any) -> jax.Array:
    """A key from its bits where `leaf` is one, otherwise the array as it is."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
    return bits


def _is_frozen(path: tuple[Any, ...]) -> bool:
    """Whether the path of a leaf contains a field `frozen`."""
    return _is_in(path, "frozen")


def _is_in(path: tuple[Any, ...], field: str) -> bool:
    return any(isinstance(key, GetAttrKey) and key.name == field for key in path)


def _stored(state: Tree) -> dict[Any, Any]:
    """Leaves to store, by path and in order: all but the frozen and the empty ones, and the numbers
    of the schedule, which are those of the run that goes on.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        path: leaf
        for path, leaf in leaves
        if np.size(leaf) and not _is_frozen(path) and not _is_in(path, "rates")
    }


def _frozen_sum(state: Tree) -> int:
    """Checksum of the frozen leaves, which are not stored; 0 where there are none."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return checksum([leaf for path, leaf in leaves if _is_frozen(path)])


def checksum(tree: Tree) -> int:
    """Checksum of all numbers of frozen parameters, in the order of their paths; 0 of none."""
    leaves = enumerate(jax.tree.leaves(tree))
    sums = [_checksum(leaf, np.uint32(number)) for number, leaf in leaves]
    return sum(map(int, jax.device_get(sums))) % 2**32


@jax.jit  # of one leaf: the layers of a model share what is compiled for one of them
def _checksum(leaf: jax.Array, number: jax.Array) -> jax.Array:
    """Checksum of an array: the sum modulo 2^32 of hashes of every number with its position."""
    width = 8 * min(leaf.dtype.itemsize, 4)
    bits = jax.lax.bitcast_convert_type(leaf, f"uint{width}").ravel().astype(jnp.uint32)
    places = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(2654435769)
    return jnp.sum(_scrambled(bits ^ _scrambled(places + number)), dtype=jnp.uint32)


def _scrambled(x: jax.Array) -> jax.Array:
    """Hash in which every bit depends on all bits of `x`: the finalizer of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


def _leaves_of(state: Tree) -> list[tuple[str, list[int], str]]:
    """Name, shape and dtype of every leaf that is stored, in order, as JSON types."""
    leaves = _stored(state).items()
    return [
        (
            jax.tree_util.keystr(path, simple=True, separator="/"),
            list(np.shape(leaf)),
            str(leaf.dtype if _is_key(leaf) else jnp.result_type(leaf)),
        )
        for path, leaf in leaves
    ]


def _check_leaves(stored: list[Any], wanted: list[Any], where: Path) -> None:
    """Raise a one-line `UserError` that names the first array that differs, if one does."""
    hint = "use the configuration that wrote it, or a new run directory"
    have = {name: (tuple(shape), dtype) for name, shape, dtype in stored}
    want = {name: (tuple(shape), dtype) for name, shape, dtype in wanted}
    for name in [*want, *have]:
        if have.get(name) != want.get(name):
            old, new = (f"{t[name][0]} {t[name][1]}" if name in t else "no" for t in (have, want))
            raise UserError(f"checkpoint {where} has {old} {name}, this run has {new}; {hint}")


def _flatten(params: Params, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with names joined by "/"."""
    if not isinstance(params, dict):
        return {prefix: params}
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if not isinstance(name, str) or "/" in name or not name:
            raise UserError(f"parameter name {name!r} under {prefix!r} must be a word without '/'")
        flat |= _flatten(value, f"{prefix}/{name}" if prefix else name)
    return flat
