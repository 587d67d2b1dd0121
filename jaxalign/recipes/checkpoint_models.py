"""Checkpoints as models: `RUN@STEP` wherever a run directory is taken, of a running run too.

A checkpoint holds the trained parameters. What else a model is lies beside the checkpoints of its
stage from the start of training: architecture, tokenizer, and frozen parameters, but for those of a
base under adapters, which is read from where the run read it.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.errors import UserError
from jaxalign.models.lora import BASE, Adapted, merged
from jaxalign.models.quantised import quantised, weights_of
from jaxalign.models.transformer import Transformer
from jaxalign.numerics.types import Params
from jaxalign.pretrained.folders import model_of
from jaxalign.pretrained.safetensors_file import open_safetensors
from jaxalign.pretrained.sources import local_copy
from jaxalign.pretrained.weights import Put, nested_parameters, parameter_shapes
from jaxalign.system.files import (
    as_type,
    exists,
    quote,
    read_json,
    replaced_directory,
    short_path,
    write_atomically,
)
from jaxalign.train.checkpoints import Checkpoints, checksum, read_trained

NAME = re.compile(r"(?P<run>.+)@(?:(?P<stage>[\w-]+)/)?(?P<step>0|[1-9][0-9]{0,17})", re.DOTALL)
FOLDER, PARTS, FROZEN = "model", "parts.json", "frozen.safetensors"
ORIGINS = ("policy", "init")  # options of a run that name the base
LoadBase = Callable[[Path, int], Params]  # `(path, layers) -> parameters` of the first layers
Loaded = tuple[Transformer, dict[str, Any], Tokenizer]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What the checkpoints of a stage lack of a model: the content of `parts.json`.

    scale: of the adapters; None: there are none.
    of_base: trees of parameters that are those of the base.
    compared: trees that the checksum of the frozen parameters is of; empty: it is of others.
    """

    scale: float | None
    of_base: list[str]
    compared: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointName:
    """A checkpoint by its name: `RUN@STEP`, or `RUN@STAGE/STEP` where a run has several stages."""

    run: Path
    stage: str | None
    step: int


def checkpoint_name(source: str | Path) -> CheckpointName | None:
    """The checkpoint that a source of a model names; None: it is a path or names something else.

    >>> checkpoint_name("runs/dpo@200")
    CheckpointName(run=PosixPath('runs/dpo'), stage=None, step=200)
    """
    match = NAME.fullmatch(str(source))
    if match is None or exists(Path(source)) or "://" in match["run"]:
        return None
    return CheckpointName(run=Path(match["run"]), stage=match["stage"], step=int(match["step"]))


def steps_of(run: Path) -> dict[str, list[int]]:
    """Steps of the checkpoints of a run directory by stage, for stages that have some."""
    stages = run / "checkpoints"
    folders = sorted(path for path in stages.iterdir() if path.is_dir()) if stages.is_dir() else []
    steps = {folder.name: Checkpoints(folder).steps() for folder in folders}
    return {stage: found for stage, found in steps.items() if found}


def names_of(run: Path) -> str:
    """Names of all checkpoints of a run directory, for messages; empty: there are none."""
    stages = steps_of(run)
    prefix = {stage: "" if len(stages) == 1 else f"{stage}/" for stage in stages}
    names = [f"{prefix[stage]}{step}" for stage, steps in stages.items() for step in steps]
    return ", ".join(f"{short_path(run)}@{name}" for name in names)


def write_parts(
    folder: Path,
    model: Transformer | Adapted,
    params: Params,
    *,
    fields: Mapping[str, Any],
    tokenizer: Tokenizer,
    trained: Params,
    frozen: Params | None,
    has_base: bool,
) -> None:
    """Write what the checkpoints of a stage lack of a model beside them.

    Args:
      folder: of the checkpoints of the stage.
      model, params: as training starts from them.
      fields: architecture of the model, as JSON types.
      tokenizer: of the model.
      trained: parameters that the checkpoints hold.
      frozen: those that the loss reads beside them.
      has_base: whether the run names a model that the frozen parameters under adapters come from.
    """
    from safetensors.numpy import save_file

    adapted = isinstance(model, Adapted)
    rest = {name: tree for name, tree in params.items() if name not in trained}
    of_base = [name for name in rest if name in BASE] if adapted and has_base else []
    own = {name: tree for name, tree in rest.items() if name not in of_base}
    parts = Parts(
        scale=model.scale if isinstance(model, Adapted) else None,
        of_base=of_base,
        compared=list(rest) if of_base and rest.keys() == (frozen or {}).keys() else [],
    )
    with replaced_directory(folder / FOLDER) as aside:
        tokenizer.save(aside)
        write_json(aside / "config.json", fields)
        write_json(aside / PARTS, dataclasses.asdict(parts))
        if own:
            arrays: dict[str, Any] = flatten_dict(weights_of(own), sep="/")
            arrays = {path: np.array(leaf, order="C") for path, leaf in arrays.items()}
            save_file(arrays, aside / FROZEN)


def write_json(file: Path, content: Any) -> None:
    """Write an indented JSON file."""
    write_atomically(file, json.dumps(content, indent=1).encode())


def load_checkpoint(name: CheckpointName, *, load_base: LoadBase, put: Put) -> Loaded:
    """Model of a checkpoint with its adapters merged, its parameters and its tokenizer.

    Args:
      name: of the checkpoint.
      load_base: reads the base of adapters.
      put: puts an array where the parameter belongs.

    Raises:
      UserError: there is no such checkpoint, or its base is not there any longer.
    """
    folder = folder_of(name)
    where = short_path(folder / FOLDER)
    if not exists(folder / FOLDER / PARTS):
        raise UserError(f"{where}/{PARTS} does not exist: these checkpoints are of no text model")
    parts = read_json(folder / FOLDER / PARTS, Parts)
    model = model_of(read_json(folder / FOLDER / "config.json"), f"{where}/config.json")
    trained, frozen_sum = read_trained(folder, name.step)
    flat = trained | own_arrays(folder / FOLDER / FROZEN)
    params = nested_parameters(iter(flat.items()), np.asarray)
    if parts.of_base:
        params |= base_of(name.run, parts, model, load_base)
        compared = {tree: params[tree] for tree in parts.compared}
        if compared and checksum(compared) != frozen_sum:
            raise UserError(
                f"{short_path(name.run)} has adapters of another base than its config.json names "
                "now; bring back the model that it began with"
            )
    if parts.scale is not None:
        model, params = merged(Adapted(transformer=model, scale=parts.scale), params)
    check_shapes(params, model, where)
    return model, jax.tree.map(put, params), load_tokenizer(folder / FOLDER)


def folder_of(name: CheckpointName) -> Path:
    """Folder of the checkpoints of a stage, which has the one that is named.

    Raises:
      UserError: it is not there; the message names those that are.
    """
    run = short_path(name.run)
    if not (names := names_of(name.run)):
        raise UserError(f"{run} has no checkpoints; give the directory of a run")
    stages = [
        stage
        for stage, steps in steps_of(name.run).items()
        if name.step in steps and name.stage in (None, stage)
    ]
    if len(stages) != 1:
        several = "several checkpoints" if stages else "no checkpoint"
        stage = f" of {name.stage}" if name.stage else ""
        raise UserError(f"{run} has {several} of step {name.step}{stage}; there are {names}")
    return name.run / "checkpoints" / stages[0]


def own_arrays(file: Path) -> dict[str, np.ndarray]:
    """Arrays of a file of frozen parameters by path; none where there is no file."""
    if not exists(file):
        return {}
    with open_safetensors([file], short_path(file)) as weights:
        return {name: weights.read(name) for name in weights.shapes}


def base_of(run: Path, parts: Parts, model: Transformer, load_base: LoadBase) -> Params:
    """Frozen parameters of the base that a run names, in the precision that it trained beside."""
    fields = read_json(run / "config.json")
    source = next((fields[option] for option in ORIGINS if fields.get(option)), "")
    lora = fields.get("lora")
    if not isinstance(source, str) or not source or not isinstance(lora, dict):
        raise UserError(f"{short_path(run / 'config.json')} names no base of the adapters")
    try:
        params = load_base(local_copy(source), model.config.layers)
    except UserError as error:
        raise UserError(f"{short_path(run)} trained adapters of {quote(source)}: {error}") from None
    if lacking := [name for name in parts.of_base if name not in params]:
        raise UserError(f"{quote(source)}, the base of {short_path(run)}, has no {lacking[0]}")
    precision = as_type(lora.get("base"), str, f"{short_path(run / 'config.json')}: lora.base")
    return quantised({name: params[name] for name in parts.of_base}, precision)


def check_shapes(params: Params, model: Transformer, where: str) -> None:
    """Raise a one-line `UserError` that names the first parameter that is missing or misshapen."""
    wanted = parameter_shapes(model.config, model.ngrams)
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    shapes = {path: np.shape(leaf) for path, leaf in flat.items()}
    for path in [*wanted, *shapes]:
        if shapes.get(path) != wanted.get(path):
            have, need = (str(each.get(path, "no")) for each in (shapes, wanted))
            raise UserError(f"{where}: the checkpoint has {have} {path}, the model {need}")
