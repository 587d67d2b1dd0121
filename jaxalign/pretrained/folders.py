"""Hugging Face folders: parameters in and out, one tensor at a time, and never a pickle."""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.hugging_face.config import read_config
from jaxalign.pretrained.hugging_face.names import (
    HEAD,
    VALUE_HEAD,
    embedding_of,
    from_theirs,
    renamed,
)
from jaxalign.pretrained.pickles import refuse_pickles
from jaxalign.pretrained.safetensors_file import header, metadata, open_safetensors
from jaxalign.pretrained.weights import Put, Stored, Weights, parameter_shapes, parameters, placed
from jaxalign.system.files import exists, json_of, read_json, regular_file, shown, shown_path, typed

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# What a head of ours has and the model's class there does not.
SIDE_FILES = (VALUE_FILE := "value_head.safetensors", SCORE_FILE := "score_bias.safetensors")
NGRAM_FIELD = "ngrams"  # of a `config.json` of ours
SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")


def load_folder(folder: Path, *, put: Put = np.asarray) -> tuple[TransformerConfig, dict[str, Any]]:
    """Configuration and parameters of a model that Hugging Face's `transformers` can load.

    The files are memory-mapped, and each parameter goes through `put` before the next one is read:
    at most one tensor is on the host besides what `put` keeps there.

    Where `tie_word_embeddings` is true and the files hold another head, that head is used, as in
    transformers, and a line says so.

    Args:
      folder: with `config.json` and one or many `.safetensors`.
      put: where a parameter goes, for example onto the devices of a mesh.

    Raises:
      UserError: no such model, or one that would not be computed as the files mean it.
    """
    fields = read_json(folder / "config.json")
    config, family = read_config(fields, shown_path(folder / "config.json")), fields["model_type"]
    with open_tensors(folder) as found:
        weights = found.renamed(renamed)
        if VALUE_HEAD in weights.shapes:
            config = dataclasses.replace(config, heads_out=(*config.heads_out, "value"))
        if config.tie_embeddings and "logits" in config.heads_out and _own_head(weights, family):
            config = dataclasses.replace(config, tie_embeddings=False)
            print(
                f"jaxalign: {shown_path(folder)}: {HEAD} differs from the embedding, so it is used "
                "although config.json says tie_word_embeddings",
                file=sys.stderr,
            )
        return config, placed(from_theirs(config, family, weights), put)


def _own_head(weights: Weights, family: str) -> bool:
    """Whether there is a head that is not the embedding."""
    embedding = embedding_of(family)
    both = {HEAD, embedding} <= set(weights.shapes)
    return both and not weights.same(HEAD, embedding)


def load_own(folder: Path, *, put: Put = np.asarray) -> tuple[Transformer, dict[str, Any]]:
    """A model that `save_model` wrote, and its parameters.

    Raises:
      UserError: the files are missing, are pickles, belong to different models, or do not hold what
        the configuration says.
    """
    file, beside = folder / SINGLE, folder / "config.json"
    if not exists(file):
        refuse_pickles(folder)
    for needed in (file, beside):
        if not exists(needed):
            raise UserError(
                f"{shown_path(needed)} does not exist; give a directory that holds a trained model"
            )
    fields, said = read_json(beside), metadata(file).get("config")
    if "heads_out" not in fields:
        raise UserError(f"{beside} has no model_type and is of no model trained here")
    with open_safetensors([file], shown_path(file)) as weights:
        if said is not None and json_of(said, dict, f"{shown_path(file)}: config") != fields:
            raise UserError(f"{folder}: config.json is not the config of model.safetensors")
        model = model_of(fields, shown_path(beside))
        shapes = parameter_shapes(model.config, model.ngrams)
        rules = {path: Stored(name=path) for path in shapes}
        return model, placed(parameters(weights, rules, shapes), put)


def model_of(fields: Mapping[str, Any], where: str) -> Transformer:
    """The model that a `config.json` of ours describes; `where` is that file, for messages."""
    rest = {name: value for name, value in fields.items() if name != NGRAM_FIELD}
    config = TransformerConfig.from_json(rest, where)
    if NGRAM_FIELD not in fields:
        return Transformer(config)
    place = f"{where}: {NGRAM_FIELD}"
    read = NgramConfig.from_json(typed(fields[NGRAM_FIELD], dict[str, Any], place), place)
    if "score" not in config.heads_out:
        raise UserError(f"{place} are what a score reads, and heads_out names no score")
    return Transformer(config, ngrams=read)


def is_hugging_face(folder: Path) -> bool:
    """Whether `config.json` there, if any, names a kind of model as `transformers` does."""
    file = folder / "config.json"
    return exists(file) and "model_type" in read_json(file)


@contextlib.contextmanager
def open_tensors(folder: Path) -> Iterator[Weights]:
    """The tensors of a folder's `.safetensors` files.

    Raises:
      UserError: there are none, or only pickles; an index and its files do not say the same.
    """
    beside = [folder / name for name in SIDE_FILES if exists(folder / name)]
    with open_safetensors([*shard_files(folder), *beside], shown_path(folder)) as weights:
        yield weights


def shard_files(folder: Path) -> list[Path]:
    """The `.safetensors` files of a model's folder: those that an index names, or the only one.

    An index whose files are gone was left behind by an older model, as transformers leaves it.

    Raises:
      UserError: there is none, or a folder with two models.
    """
    single, index = folder / SINGLE, folder / INDEX
    if not exists(index):
        if exists(single):
            return [regular_file(single)]
        refuse_pickles(folder)
        raise UserError(f"{shown_path(folder)}: no {SINGLE} and no {INDEX}")
    said = read_json(index).get("weight_map")
    named = _named(said, index)
    if exists(single) and set(named) != {SINGLE}:
        there = sorted(name for name in named if name != SINGLE and exists(folder / name))
        if not there:
            return [regular_file(single)]
        raise UserError(
            f"{shown_path(folder)}: {SINGLE} and {INDEX}, which names {there[0]}, may be two "
            "models; take one of the two out"
        )
    for name, tensors in named.items():
        _check_index(folder, name, tensors)
    return [folder / name for name in named]


def _named(said: Any, index: Path) -> dict[str, set[str]]:
    """The tensors that an index finds in each file."""
    weight_map = typed(said, dict[str, str], f"{shown_path(index)}: weight_map")
    named: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        if not SHARD.fullmatch(file):
            raise UserError(f"{shown_path(index)} names {shown(file)}, which is no file beside it")
        named.setdefault(file, set()).add(tensor)
    if not named:
        raise UserError(f"{shown_path(index)} names no tensors")
    return {file: named[file] for file in sorted(named)}


def _check_index(folder: Path, file: str, tensors: set[str]) -> None:
    """A file holds the tensors that the index finds in it, and no others."""
    if not exists(folder / file):
        raise UserError(f"{shown_path(folder / INDEX)} names {file!r}, which is no file beside it")
    held = set(header(folder / file)) - {"__metadata__"}
    where = shown_path(folder / INDEX)
    if lacking := sorted(tensors - held):
        raise UserError(f"{where}: tensor {shown_path(lacking[0])} is not in {file}, as it says")
    if more := sorted(held - tensors):
        raise UserError(f"{where} does not find {shown_path(more[0])} in {file}, which holds it")
