"""Adapters in PEFT's format: fields of `adapter_config.json`, tensors, patterns that never end."""

import functools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.hostile.base import DATA, Base, loop
from benchmarks.hostile.judge import Ending, Fault, either, refused, worked
from benchmarks.hostile.probes import in_place_of
from benchmarks.hostile.trial import Room, Trial
from benchmarks.hostile.values import CHOICES, LISTS, NUMBERS, OBJECTS, SIZES, SWITCHES

KIND = "adapters"
FIELDS: dict[str, dict[str, Any]] = {
    "r": SIZES,
    "lora_alpha": NUMBERS,
    "lora_dropout": NUMBERS | {"minus": -1.0},
    "use_rslora": SWITCHES,
    "use_dora": SWITCHES | {"true": True},
    "fan_in_fan_out": SWITCHES,
    "bias": CHOICES,
    "peft_type": CHOICES,
    "init_lora_weights": CHOICES,
    "target_modules": LISTS,
    "modules_to_save": LISTS,
    "layers_to_transform": LISTS,
    "rank_pattern": OBJECTS,
    "alpha_pattern": OBJECTS,
    "no_such_field": OBJECTS,
}
PATTERNS: dict[str, Any] = {
    "nested": {"(([a-z_.0-9])+)+!": 4},
    "doubled": {"(a+|[a-z._0-9]+)*$!": 4},
    "backtracking": {"([a-z._0-9]*)*([a-z._0-9]*)*([a-z._0-9]*)*!": 4},
    "unbalanced": {"(": 4},
    "huge_repeat": {"a{99999999999}": 4},
    "lookbehind": {"(?<=a+)b": 4},
    "text_value": {".*": "4"},
    "nan_value": {".*": float("nan")},
    "list_value": {".*": [4]},
    "null_value": {".*": None},
    "long_value": {".*": 10**400},
}
BROKEN: dict[str, Any] = {
    "empty": "",
    "list": "[]",
    "null": "null",
    "half": '{"r": 2',
    "twice": '{"r": 2, "r": 3, "peft_type": "LORA"}',
    "zeros": bytes(100),
}
Tensors = dict[str, np.ndarray]


def first(tensors: Tensors) -> str:
    """One of the matrices, always the same."""
    return sorted(tensors)[0]


def changed(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], Tensors]:
    """The tensors with another value of `first`."""
    return lambda t: t | {first(t): np.ascontiguousarray(function(t[first(t)]))}


CHANGES: dict[str, Callable[[Tensors], Tensors]] = {
    "empty": lambda t: {},
    "one_missing": lambda t: {name: x for name, x in t.items() if name != first(t)},
    "surplus": lambda t: t | {"base_model.model.no.such.lora_A.weight": np.ones((2, 2), "f4")},
    "whole_weight": lambda t: t | {"base_model.model.lm_head.weight": np.ones((2, 2), "f4")},
    "transposed": changed(lambda x: x.T),
    "rank_zero": changed(lambda x: x[:0]),
    "flat": changed(np.ravel),
    "three_axes": changed(lambda x: x[None]),
    "nan": changed(lambda x: np.full_like(x, np.nan)),
    "infinity": changed(lambda x: np.full_like(x, np.inf)),
    "int64": changed(lambda x: (100 * x).astype(np.int64)),
    "bool": changed(lambda x: x > 0),
    "other_rank": changed(lambda x: np.concatenate([x, x])),
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """A sample of values for every field; patterns, tensors and files."""
    chance = random.Random(f"{KIND} {seed}")
    for field, values in FIELDS.items():
        for name in sorted(chance.sample(sorted(values), 4)):
            act = functools.partial(changed_fields, change={field: values[name]})
            yield Trial(kind=KIND, name=f"{field}_{name}", act=act)
    for field in ("alpha_pattern", "rank_pattern"):
        for name, patterns in PATTERNS.items():
            act = functools.partial(changed_fields, change={field: patterns})
            yield Trial(kind=KIND, name=f"{field}_{name}", act=act)
    for name, change in CHANGES.items():
        act = functools.partial(changed_tensors, change=change)
        yield Trial(kind=KIND, name=f"tensors_{name}", act=act)
    for name, content in BROKEN.items():
        yield Trial(kind=KIND, name=f"file_{name}", act=functools.partial(broken, content=content))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        for what in ("directory", "fifo", "endless", "missing"):
            act = functools.partial(no_file, file=file, what=what)
            yield Trial(kind=KIND, name=f"{file.partition('.')[0]}_{what}", act=act)
    yield Trial(kind=KIND, name="pickle", act=pickle)
    yield Trial(kind=KIND, name="of_another_model", act=of_another_model)


def folder(room: Room, source: str = "") -> Path:
    """A copy of an adapter."""
    shutil.copytree(source or room.base.adapter, room.path / "adapter")
    return room.path / "adapter"


def merged(room: Room, adapter: Path, run_dir: str = "run") -> Ending:
    """Train on from the model with that adapter, not at all: what is saved is the two together."""
    return room.call(
        *(
            "sft",
            "--output",
            run_dir,
            "--init",
            room.base.published("llama"),
            "--adapter",
            str(adapter),
        ),
        *("--data.path", room.base.short, *loop(steps=1, learning_rate="0.0")),
    )


def weights(room: Room, run_dir: str = "run") -> Tensors:
    """The parameters of a run."""
    return load_file(room.path / run_dir / "model" / "model.safetensors")


def judged(room: Room, *names: str) -> str:
    """A line, or the model that the unharmed adapter gives."""

    def unharmed() -> Tensors:
        worked(merged(room, Path(room.base.adapter), "unharmed"))
        return weights(room, "unharmed")

    def same() -> None:
        found = weights(room)
        for name, array in expected.items():
            if not np.allclose(found[name], array, rtol=1e-6, atol=1e-7):
                raise Fault("silent", f"accepted, and {name} is another")

    ending = merged(room, room.path / "adapter")
    if ending.status or ending.error:
        return refused(ending, "adapter", *names)
    expected = room.unharmed("adapter", unharmed)
    return either(ending, same)


def changed_fields(room: Room, *, change: dict[str, Any]) -> str:
    """Other fields in `adapter_config.json`."""
    file = folder(room) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return judged(room, *change)


def changed_tensors(room: Room, *, change: Callable[[Tensors], Tensors]) -> str:
    """Other tensors: always an error."""
    file = folder(room) / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    return refused(merged(room, file.parent), "adapter")


def broken(room: Room, *, content: str | bytes) -> str:
    """An `adapter_config.json` that is none."""
    folder(room)
    room.write("adapter/adapter_config.json", content)
    return refused(merged(room, room.path / "adapter"), "adapter_config.json")


def no_file(room: Room, *, file: str, what: str) -> str:
    """Something else than a file in its place."""
    path = folder(room) / file
    path.unlink()
    in_place_of(path, what)
    return refused(merged(room, path.parent), file, "adapter")


def pickle(room: Room) -> str:
    """Only a pickle."""
    path = folder(room)
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    return refused(merged(room, path), "adapter_model.bin")


def of_another_model(room: Room) -> str:
    """An adapter of GPT-2 on a llama."""
    return refused(merged(room, folder(room, str(DATA / "peft" / "gpt2_joint"))), "adapter")
