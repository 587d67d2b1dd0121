"""Loading of model folders: configuration and parameters, one tensor at a time, no pickles."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.hugging_face.config import read_config
from jaxalign.pretrained.hugging_face.llama_names import HEAD, VALUE_HEAD
from jaxalign.pretrained.hugging_face.names import (
    embedding_name,
    parameters_of_tensors,
    plain_name,
)
from jaxalign.pretrained.pickles import refuse_pickles
from jaxalign.pretrained.safetensors_file import header, metadata, open_safetensors
from jaxalign.pretrained.weights import (
    Put,
    StorageRule,
    Weights,
    nested_parameters,
    parameter_shapes,
    parameters,
)
from jaxalign.system.console import warn
from jaxalign.system.files import (
    as_type,
    exists,
    json_of,
    quote,
    read_json,
    regular_file,
    short_path,
)

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# What a head of ours has and the model's class there does not.
SIDE_FILES = (VALUE_FILE := "value_head.safetensors", SCORE_FILE := "score_bias.safetensors")
NGRAM_FIELD = "ngrams"  # of a `config.json` of ours
SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")


def load_folder(folder: Path, *, put: Put = np.asarray) -> tuple[TransformerConfig, dict[str, Any]]:
    """Configuration and parameters of a model folder in the format of Hugging Face.

    The files are memory-mapped, and each parameter goes through `put` before the next one is read:
    at most one tensor is on the host besides what `put` keeps there.

    Where `tie_word_embeddings` is true and the files hold another head, that head is used, as in
    transformers, and a line says so.

    Args:
      folder: with `config.json` and one or many `.safetensors`.
      put: puts an array where the parameter belongs, for example onto the devices of a mesh.

    Raises:
      UserError: no such model, or one that would not be computed as the files mean it.
    """
    fields = read_json(folder / "config.json")
    config, family = read_config(fields, short_path(folder / "config.json")), fields["model_type"]
    with open_tensors(folder) as tensors:
        weights = tensors.with_names(plain_name)
        if VALUE_HEAD in weights.shapes:
            config = dataclasses.replace(config, heads_out=(*config.heads_out, "value"))
        if (
            config.tie_embeddings
            and "logits" in config.heads_out
            and _has_own_head(weights, family)
        ):
            config = dataclasses.replace(config, tie_embeddings=False)
            warn(
                f"jaxalign: {short_path(folder)}: {HEAD} differs from the embedding, so it is used "
                "although config.json says tie_word_embeddings"
            )
        return config, nested_parameters(parameters_of_tensors(config, family, weights), put)


def _has_own_head(weights: Weights, family: str) -> bool:
    """Whether the files hold an output head that differs from the embedding."""
    embedding = embedding_name(family)
    both = {HEAD, embedding} <= set(weights.shapes)
    return both and not weights.same(HEAD, embedding)


def load_own(folder: Path, *, put: Put = np.asarray) -> tuple[Transformer, dict[str, Any]]:
    """A model that `save_model` wrote, and its parameters.

    Raises:
      UserError: the files are missing, are pickles, belong to different models, or do not hold what
        the configuration says.
    """
    file, config_file = folder / SINGLE, folder / "config.json"
    if not exists(file):
        refuse_pickles(folder)
    for needed in (file, config_file):
        if not exists(needed):
            raise UserError(
                f"{short_path(needed)} does not exist; give a directory that holds a trained model"
            )
    fields, stored_config = read_json(config_file), metadata(file).get("config")
    if "heads_out" not in fields:
        raise UserError(f"{config_file} has no model_type and is of no model trained here")
    with open_safetensors([file], short_path(file)) as weights:
        if (
            stored_config is not None
            and json_of(stored_config, dict, f"{short_path(file)}: config") != fields
        ):
            raise UserError(f"{folder}: config.json is not the config of model.safetensors")
        model = model_of(fields, short_path(config_file))
        shapes = parameter_shapes(model.config, model.ngrams)
        rules = {path: StorageRule(name=path) for path in shapes}
        return model, nested_parameters(parameters(weights, rules, shapes), put)


def model_of(fields: Mapping[str, Any], where: str) -> Transformer:
    """Model that a `config.json` of a run directory describes; `where` names it in messages."""
    rest = {name: value for name, value in fields.items() if name != NGRAM_FIELD}
    config = TransformerConfig.from_json(rest, where)
    if NGRAM_FIELD not in fields:
        return Transformer(config)
    place = f"{where}: {NGRAM_FIELD}"
    read = NgramConfig.from_json(as_type(fields[NGRAM_FIELD], dict[str, Any], place), place)
    if "score" not in config.heads_out:
        raise UserError(f"{place} are what a score reads, and heads_out names no score")
    return Transformer(config, ngrams=read)


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder has a `config.json` with a `model_type`, as Hugging Face's do."""
    file = folder / "config.json"
    return exists(file) and "model_type" in read_json(file)


@contextlib.contextmanager
def open_tensors(folder: Path) -> Iterator[Weights]:
    """Tensors of all `.safetensors` files of a model folder.

    Raises:
      UserError: there are none, or only pickles, or an index disagrees with its files.
    """
    side_files = [folder / name for name in SIDE_FILES if exists(folder / name)]
    with open_safetensors([*shard_files(folder), *side_files], short_path(folder)) as weights:
        yield weights


def shard_files(folder: Path) -> list[Path]:
    """`.safetensors` files of a model folder: those that an index names, or the only one.

    An index whose files are gone was left behind by an older model, as transformers leaves it.

    Raises:
      UserError: there is none, or a folder with two models.
    """
    single, index = folder / SINGLE, folder / INDEX
    if not exists(index):
        if exists(single):
            return [regular_file(single)]
        refuse_pickles(folder)
        raise UserError(f"{short_path(folder)}: no {SINGLE} and no {INDEX}")
    weight_map = read_json(index).get("weight_map")
    tensors_by_file = _tensors_by_file(weight_map, index)
    if exists(single) and set(tensors_by_file) != {SINGLE}:
        present = sorted(
            name for name in tensors_by_file if name != SINGLE and exists(folder / name)
        )
        if not present:
            return [regular_file(single)]
        raise UserError(
            f"{short_path(folder)}: {SINGLE} and {INDEX}, which names {present[0]}, may be two "
            "models; take one of the two out"
        )
    for name, tensors in tensors_by_file.items():
        _check_index(folder, name, tensors)
    return [folder / name for name in tensors_by_file]


def _tensors_by_file(field: Any, index: Path) -> dict[str, set[str]]:
    """Names of the tensors in each file, by an index."""
    weight_map = as_type(field, dict[str, str], f"{short_path(index)}: weight_map")
    tensors_by_file: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        if not SHARD.fullmatch(file):
            raise UserError(f"{short_path(index)} names {quote(file)}, which is no file beside it")
        tensors_by_file.setdefault(file, set()).add(tensor)
    if not tensors_by_file:
        raise UserError(f"{short_path(index)} names no tensors")
    return {file: tensors_by_file[file] for file in sorted(tensors_by_file)}


def _check_index(folder: Path, file: str, tensors: set[str]) -> None:
    """Refuse a file that lacks a tensor of its index, or holds another one."""
    if not exists(folder / file):
        raise UserError(f"{short_path(folder / INDEX)} names {file!r}, which is no file beside it")
    names = set(header(folder / file)) - {"__metadata__"}
    where = short_path(folder / INDEX)
    if lacking := sorted(tensors - names):
        raise UserError(f"{where}: tensor {short_path(lacking[0])} is not in {file}, as it says")
    if surplus := sorted(names - tensors):
        raise UserError(f"{where} does not find {short_path(surplus[0])} in {file}, which holds it")
