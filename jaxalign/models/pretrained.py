"""Hugging Face folders: parameters in and out, one tensor at a time, and never a pickle."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.errors import UserError
from jaxalign.files import read_json
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.hugging_face import family_of, read_config
from jaxalign.models.hugging_face_names import VALUE_HEAD, from_theirs
from jaxalign.models.pickles import refuse_pickles
from jaxalign.models.transformer import Transformer

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# What a head of ours has and the model's class there does not.
SIDE_FILES = (VALUE_FILE := "value_head.safetensors", SCORE_FILE := "score_bias.safetensors")
SHARD = re.compile(r"[\w.-]+\.safetensors")
Put = Callable[[np.ndarray], Any]


def load_folder(folder: Path, *, put: Put = np.asarray) -> tuple[TransformerConfig, dict[str, Any]]:
    """Configuration and parameters of a model that Hugging Face's `transformers` can load.

    The files are memory-mapped, and each parameter goes through `put` before the next one is read:
    at most one tensor is on the host besides what `put` keeps there.

    Args:
      folder: with `config.json` and one or many `.safetensors`.
      put: where a parameter goes, for example onto the devices of a mesh.

    Raises:
      UserError: no such model, or one that would not be computed as the files mean it.
    """
    fields = read_json(folder / "config.json")
    config = read_config(fields, str(folder / "config.json"))
    with open_tensors(folder) as (names, tensor):
        if VALUE_HEAD in names:
            config = dataclasses.replace(config, heads_out=(*config.heads_out, "value"))
        parameters = from_theirs(
            config,
            family_of(fields, str(folder)),
            parameter_shapes(config),
            names,
            tensor,
            str(folder),
        )
        return config, placed(parameters, put)


def is_hugging_face(folder: Path) -> bool:
    """Whether `config.json` there, if any, names a kind of model as `transformers` does."""
    file = folder / "config.json"
    return file.is_file() and "model_type" in read_json(file)


def placed(parameters: Iterator[tuple[str, np.ndarray]], put: Put) -> dict[str, Any]:
    """Nested dicts of what `put` makes of each parameter, from paths such as `trunk/embedding`."""
    params: dict[str, Any] = {}
    for path, array in parameters:
        *parents, name = path.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = put(array)
        del array  # before the next one is read
    return params


def parameter_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Path and shape of every parameter of that model, nothing computed."""
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 2), jnp.bool_)
    init = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens, mask)
    leaves = jax.tree_util.tree_leaves_with_path(init["params"])
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }


@contextlib.contextmanager
def open_tensors(folder: Path) -> Iterator[tuple[list[str], Callable[[str], np.ndarray]]]:
    """The names of all tensors in a folder's `.safetensors` files, and a function that reads one.

    Raises:
      UserError: there are none, or only pickles; an index that names what is not there.
    """
    from safetensors import SafetensorError, safe_open

    with contextlib.ExitStack() as stack:
        where: dict[str, Any] = {}
        beside = [folder / name for name in SIDE_FILES if (folder / name).is_file()]
        for file in [*shard_files(folder), *beside]:
            try:
                opened = stack.enter_context(safe_open(file, framework="numpy"))
            except SafetensorError as error:
                raise UserError(f"{file} is no whole safetensors file ({error})") from None
            where |= dict.fromkeys(opened.keys(), opened)
        yield list(where), lambda name: where[name].get_tensor(name)


def shard_files(folder: Path) -> list[Path]:
    """The `.safetensors` files of a model's folder: one goes before many, as in transformers."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        for name in names:
            if not SHARD.fullmatch(name) or not (folder / name).is_file():
                raise UserError(f"{folder / INDEX} names {name!r}, which is no file beside it")
        return [folder / name for name in names]
    refuse_pickles(folder)
    raise UserError(f"{folder}: no {SINGLE} and no {INDEX}")
