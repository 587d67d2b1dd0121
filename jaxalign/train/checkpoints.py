"""Checkpoints for exact resumption (orbax), and the final parameters as safetensors.

A checkpoint appears under its final name only when it is whole, so a process may be killed at any
moment. It holds one logical shape per array whatever the layout, so it is read under any other.
"""

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey

from jaxalign.errors import UserError
from jaxalign.files import make_directory, replace_file, write_atomically


class Checkpoints:
    """The last few states of a run, in a directory of their own.

    Writing goes on in the background while training continues; `wait` or `close` ends it. Typed
    random keys are stored as their bits and come back as keys. What lies in a field `frozen` is not
    stored: the run that goes on brings it along, and a checksum says whether it is the same.
    """

    def __init__(self, directory: str | os.PathLike, *, keep: int = 2):
        """Open or create `directory`; the `keep` newest checkpoints stay in it."""
        import absl.logging
        import orbax.checkpoint as ocp

        absl.logging.set_verbosity(absl.logging.ERROR)  # orbax narrates every save otherwise
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, cleanup_tmp_directories=True
        )
        self._orbax = ocp
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state) -> None:
        """Write `state` as that of `step`; returns once the arrays are copied, not yet written."""
        args = self._orbax.args
        parts = args.Composite(
            state=args.StandardSave(_numbered(_stored(state).values())),
            manifest=args.JsonSave({"leaves": _manifest(state), "frozen": _frozen_sum(state)}),
        )
        if self._manager.latest_step() != step:
            self._manager.save(step, args=parts, force=True)

    def restore(self, template) -> tuple[int, Any] | None:
        """The newest state, with the shardings of `template`, or None where there is none.

        Args:
          template: a state of the same structure, shapes and dtypes; its numbers are not used.

        Raises:
          UserError: the checkpoint holds other arrays than the template, or was made beside other
            frozen ones.
        """
        self.wait()
        step = self._manager.latest_step()
        if step is None:
            return None
        args = self._orbax.args
        stored = self._manager.restore(step, args=args.Composite(manifest=args.JsonRestore()))
        where = self.directory / str(step)
        _check_manifest(stored["manifest"]["leaves"], _manifest(template), where)
        if stored["manifest"].get("frozen", 0) != _frozen_sum(template):
            raise UserError(
                f"checkpoint {where} was made beside other frozen parameters; "
                "start from the model that the run began with, or use a new run directory"
            )
        wanted = _stored(template)
        parts = args.Composite(state=args.StandardRestore(_numbered(wanted.values())))
        bits = self._manager.restore(step, args=parts)["state"]
        found = {
            path: _from_bits(bits[str(i)], leaf) for i, (path, leaf) in enumerate(wanted.items())
        }
        return step, jax.tree_util.tree_map_with_path(
            lambda path, leaf: found.get(path, leaf), template
        )

    def wait(self) -> None:
        """Return when every save is on disk; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and stop the background threads."""
        self._manager.close()


def save_model(directory: str | os.PathLike, params, config: dict) -> None:
    """Write `model.safetensors` and `config.json`; each file appears whole or not at all.

    Args:
      directory: created if needed.
      params: nested dicts of arrays; names are joined by "/".
      config: what is needed to build the model again, as JSON types. A copy goes into the header of
        `model.safetensors`, so that the two files cannot be of different models unnoticed.
    """
    from safetensors.numpy import save_file

    directory = make_directory(directory)
    text = json.dumps(config, indent=2, sort_keys=True)
    # safetensors writes the memory of an array as it lies, so that must be in C order
    arrays = {name: np.array(leaf, order="C") for name, leaf in _flatten(params).items()}
    write_atomically(directory / "config.json", text.encode())
    replace_file(
        directory / "model.safetensors",
        lambda file: save_file(arrays, file, metadata={"config": text}),
    )


def _is_key(leaf) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbered(leaves) -> dict:
    """What orbax stores: the bits of a key, any other array as it is, by position."""
    return {
        str(i): jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)
        for i, leaf in enumerate(leaves)
    }


def _from_bits(bits, leaf):
    """A key where `leaf` is one, otherwise the array as it is."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(bits, impl=jax.random.key_impl(leaf))
    return bits


def _is_frozen(path) -> bool:
    """Whether a leaf lies in a field of that name."""
    return any(isinstance(key, GetAttrKey) and key.name == "frozen" for key in path)


def _stored(state) -> dict:
    """The leaves that are stored, by path and in order."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {path: leaf for path, leaf in leaves if not _is_frozen(path)}


def _frozen_sum(state) -> int:
    """A checksum of the leaves that are not stored; 0 where there are none."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return int(_checksum([leaf for path, leaf in leaves if _is_frozen(path)]))


@jax.jit
def _checksum(leaves: list) -> jax.Array:
    """A sum modulo 2^32 of hashes of every number with its place."""
    total = jnp.uint32(0)
    for number, leaf in enumerate(leaves):
        width = 8 * min(leaf.dtype.itemsize, 4)
        bits = jax.lax.bitcast_convert_type(leaf, f"uint{width}").ravel().astype(jnp.uint32)
        places = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(2654435769)
        total += jnp.sum(_scrambled(bits ^ _scrambled(places + jnp.uint32(number))))
    return total


def _scrambled(x):
    """Every bit of the result depends on all bits of `x`: the end of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)


def _manifest(state) -> list:
    """Name, shape and dtype of every leaf that is stored, in order, as JSON types."""
    leaves = _stored(state).items()
    return [
        [
            jax.tree_util.keystr(path, simple=True, separator="/"),
            list(np.shape(leaf)),
            str(leaf.dtype if _is_key(leaf) else jnp.result_type(leaf)),
        ]
        for path, leaf in leaves
    ]


def _check_manifest(stored: list, wanted: list, where: Path):
    """The first array that differs, in one line."""
    hint = "use the configuration that wrote it, or a new run directory"
    have = {name: (tuple(shape), dtype) for name, shape, dtype in stored}
    want = {name: (tuple(shape), dtype) for name, shape, dtype in wanted}
    for name in [*want, *have]:
        if have.get(name) != want.get(name):
            old, new = (f"{t[name][0]} {t[name][1]}" if name in t else "no" for t in (have, want))
            raise UserError(f"checkpoint {where} has {old} {name}, this run has {new}; {hint}")


def _flatten(params, prefix: str = "") -> dict:
    """Nested dicts to one dict with names joined by "/"."""
    if not isinstance(params, dict):
        return {prefix: params}
    flat = {}
    for name, value in params.items():
        if not isinstance(name, str) or "/" in name or not name:
            raise UserError(f"parameter name {name!r} under {prefix!r} must be a word without '/'")
        flat |= _flatten(value, f"{prefix}/{name}" if prefix else name)
    return flat
