"""`jaxalign export`: a model written as a Hugging Face folder."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxalign.config.export import ExportConfig
from jaxalign.data.generation import FILE
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError
from jaxalign.models.transformer import unrolled
from jaxalign.pretrained.folders import INDEX, SCORE_FILE, VALUE_FILE
from jaxalign.pretrained.hugging_face.names import tensors_of_parameters
from jaxalign.pretrained.hugging_face.writer import config_of, shards_of
from jaxalign.recipes.model_card import model_card
from jaxalign.recipes.text_models import TextModel, load_text_model
from jaxalign.system import console
from jaxalign.system.files import (
    exists,
    make_directory,
    read_json,
    replace_file,
    short_path,
    whole_directory,
    write_atomically,
)

# trees of parameters that no class of transformers holds, and the file they are written to
ASIDE = {"value": VALUE_FILE, "score/readout/bias": SCORE_FILE}


def run(config: ExportConfig) -> Path:
    """Write the folder, print its path, and return it."""
    if not config.output:
        raise UserError("--output is empty; give the folder to write")
    output = Path(config.output)
    if exists(output) and not (os.path.isdir(output) and not os.listdir(output)):
        raise UserError(
            f"--output {short_path(output)} exists; give a folder that does not, or an empty one"
        )
    source = config.model if config.step is None else f"{config.model}@{config.step}"
    model = load_text_model(source, "model")
    check_heads(model, source)
    card = model_card(source, model)
    make_directory(output.parent)
    with whole_directory(output) as aside:
        write_folder(aside, model, shard_bytes=round(config.shard_gigabytes * 1e9))
        write_atomically(aside / "README.md", card)
    console.output(str(output), needed=False)
    return output


def check_heads(model: TextModel, source: str) -> None:
    """Raise a one-line `UserError` for heads that have no equivalent in transformers."""
    config = model.model.config
    if "step_score" in config.heads_out:
        raise UserError(f"--model {source} scores steps, for which Hugging Face has no class")
    if config.value_trunk == "separate" and "value" in config.heads_out:
        raise UserError(f"--model {source} has values with a trunk of their own: no equivalent")
    if {"logits", "score"} <= set(config.heads_out):
        raise UserError(f"--model {source} has logits and scores: no class there has both")
    read = model.model.ngrams
    if "score" in config.heads_out and (read is not None or config.score_pooling != "last"):
        kind = f"pooling {config.score_pooling}" if read is None else "a bag of tokens"
        raise UserError(
            f"--model {source} has a score with {kind}, for which Hugging Face has no class; train "
            "it with --reward.bag False --reward.pooling last"
        )


def write_folder(folder: Path, text_model: TextModel, *, shard_bytes: int) -> None:
    """Write weights, configuration and tokenizer; without a model card."""
    model, params = unrolled(text_model.model, text_model.params)
    ids = special_ids(text_model.tokenizer)
    fields: dict[str, Any] = config_of(model.config) | ids
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    for tree, name in ASIDE.items():
        own = {path: flat.pop(path) for path in list(flat) if f"{path}/".startswith(f"{tree}/")}
        if own:
            save(folder / name, tensors_of_parameters(iter(own.items()), fields["model_type"]))
    write_weights(folder, flat, fields, shard_bytes)
    write_json(folder / "config.json", fields)
    text_model.tokenizer.save(folder)
    write_json(folder / FILE, text_model.tokenizer.generation | ids)
    named = read_json(folder / "tokenizer_config.json")
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        | named,
    )


def special_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """Ids of the tokenizer's special tokens by field; a list for EOS where several end a text."""
    ids = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(tokenizer.stop_ids),
        "pad_token_id": tokenizer.pad_id,
    }
    if len(tokenizer.stop_ids) == 1:
        ids["eos_token_id"] = tokenizer.eos_id
    return {name: token for name, token in ids.items() if token is not None}


def write_weights(folder: Path, flat: dict, fields: dict[str, Any], shard_bytes: int) -> None:
    """Write `model.safetensors`, or several files and the index that transformers reads them by."""
    shards = []  # names of tensors; each file is written before the next one's arrays are made
    for tensors in shards_of(flat, fields, shard_bytes=shard_bytes):
        save(folder / f".{len(shards)}", tensors)
        shards.append(list(tensors))
    if len(shards) == 1:
        (folder / ".0").rename(folder / "model.safetensors")
        return
    weight_map = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f".{number}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    size = sum(4 * array.size for array in flat.values())
    write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def save(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write a file of tensors with the metadata that transformers expects."""
    from safetensors.numpy import save_file

    replace_file(file, lambda aside: save_file(tensors, aside, metadata={"format": "pt"}))


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write an indented JSON file."""
    write_atomically(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
