"""Policies with LoRA adapters: added before training, merged and written after it."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from jaxalign.config.lora import LoraConfig
from jaxalign.errors import UserError
from jaxalign.models.lora import (
    ADAPTERS,
    Adapted,
    adapted_layers,
    adapter_scale,
    merged,
    module_of,
    new_adapters,
    split,
    targets,
)
from jaxalign.models.quantised import quantised
from jaxalign.models.transformer import Transformer
from jaxalign.pretrained.peft import load_adapter, save_adapter
from jaxalign.recipes.text_models import TextModel, save_text_model
from jaxalign.system.files import make_directory, replaced_directory


def with_adapters(base: TextModel, folder: str, lora: LoraConfig, key: jax.Array) -> TextModel:
    """The model that training starts from, its adapters merged or added; it is the reference too.

    Args:
      base: without adapters.
      folder: of an adapter for it, or "". It is merged where all parameters are trained, and
        trained on where adapters are.
      lora: what is trained.
      key: for new adapters.
    """
    assert isinstance(base.model, Transformer), "the base has adapters already"
    config = base.model.config
    if not lora.rank:
        if not folder:
            return base
        loaded = load_adapter(folder, base.params, config, scale=1.0)
        adapted = Adapted(transformer=base.model, scale=1.0)
        params = merged(adapted, base.params | {ADAPTERS: loaded})[1]
        return dataclasses.replace(base, params=params)
    scale = adapter_scale(lora.rank, lora.alpha, rslora=lora.rslora)
    if folder:
        adapters = load_adapter(folder, base.params, config, scale=scale)
        check_continues(folder, adapters, base, lora)
    else:
        adapters = new_adapters(base.params, config, lora.targets, rank=lora.rank, key=key)
    model = Adapted(transformer=base.model, scale=scale, dropout=lora.dropout)
    heads, frozen = split(model, base.params)
    params = quantised(frozen or {}, lora.base) | heads | {ADAPTERS: adapters}
    return dataclasses.replace(base, model=model, params=params)


def check_continues(folder: str, adapters: dict, base: TextModel, lora: LoraConfig) -> None:
    """Check that an adapter to train on has the rank and the layers of the configuration.

    Raises:
      UserError: it has others.
    """
    params = {ADAPTERS: adapters}
    layers = adapted_layers(params)
    ranks = {np.shape(module_of(adapters, path)["b"])[-2] for path in layers}
    if ranks != {lora.rank}:
        raise UserError(
            f"--adapter {folder} has rank {', '.join(map(str, sorted(ranks)))}, lora.rank is "
            f"{lora.rank}; they must be equal to train it on"
        )
    chosen = targets(base.params, base.model.config, lora.targets)
    if differing := sorted(set(layers) ^ set(chosen)):
        raise UserError(
            f"--adapter {folder} and lora.targets do not choose the same layers: one of them has "
            f"no {differing[0]}; set --lora.targets to those of the adapter"
        )


def without_adapters(trained: TextModel) -> TextModel:
    """The model with its adapters merged; one without adapters is returned as it is."""
    if not isinstance(trained.model, Adapted):
        return trained
    model, params = merged(trained.model, trained.params)
    return dataclasses.replace(trained, model=model, params=params)


def save_trained(directory: Path, trained: TextModel) -> None:
    """Write the folder `model`, with adapters merged, and those of a policy as `adapter` too."""
    make_directory(directory)
    with replaced_directory(directory / "model") as aside:
        save_text_model(aside, without_adapters(trained))
    if isinstance(trained.model, Adapted) and "logits" in trained.model.config.heads_out:
        with replaced_directory(directory / "adapter") as aside:
            save_adapter(aside, trained.model, trained.params)
