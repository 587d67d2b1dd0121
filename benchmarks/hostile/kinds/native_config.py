"""Fields of the `config.json` of a model trained here, with the copy in its weights changed too."""

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save_file

from benchmarks.hostile.base import Base
from benchmarks.hostile.judge import either, refused
from benchmarks.hostile.probes import copied, measured, numbers_of, same
from benchmarks.hostile.trial import Room, Trial
from benchmarks.hostile.values import CHOICES, LISTS, NUMBERS, OBJECTS, SIZES, SWITCHES

KIND = "native_config"
FIELDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("vocab_size", "max_length", "width", "layers", "heads", "kv_heads", "mlp_width"), SIZES
    ),
    **dict.fromkeys(("head_size",), SIZES),
    **dict.fromkeys(
        ("norm_epsilon", "rope_theta", "dropout", "embedding_scale", "attention_scale",
         "attention_softcap", "logit_softcap", "window_rope_theta"),
        NUMBERS | {"minus": -5.0},
    ),
    **dict.fromkeys(
        ("tie_embeddings", "qkv_biases", "mlp_biases", "qk_norm", "post_norms", "remat",
         "scan_layers"),
        SWITCHES,
    ),
    **dict.fromkeys(
        ("norm", "positions", "activation", "compute_dtype", "value_trunk", "score_pooling"),
        CHOICES,
    ),
    **dict.fromkeys(("windows", "heads_out"), LISTS),
    **dict.fromkeys(("rope_scaling", "window_rope_scaling", "ngrams", "no_such_field"), OBJECTS),
}  # fmt: skip
SAMPLED = 4


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """A sample of values for every field, fields left out, one file changed without the other."""
    chance = random.Random(f"{KIND} {seed}")
    for field, values in FIELDS.items():
        for name in sorted(chance.sample(sorted(values), min(SAMPLED, len(values)))):
            act = functools.partial(changed_field, field=field, value=values[name])
            yield Trial(kind=KIND, name=f"{field}_{name}", act=act)
    for field in ("width", "layers", "norm", "heads_out", "windows", "rope_scaling", "rope_theta"):
        yield Trial(kind=KIND, name=f"{field}_missing", act=functools.partial(missing, field=field))
    for field, value in (("layers", 1), ("heads", 1), ("rope_theta", 500.0), ("norm", "layer")):
        act = functools.partial(half_changed, field=field, value=value)
        yield Trial(kind=KIND, name=f"{field}_in_one_file", act=act)


def with_fields(room: Room, fields: dict[str, Any]) -> str:
    """A copy of the policy's model with that configuration, in both of its files."""
    folder = copied(room, f"{room.base.policy}/model")
    text = json.dumps(fields, indent=2, sort_keys=True)
    room.write("model/config.json", text)
    weights = str(Path(folder) / "model.safetensors")
    with safe_open(weights, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, weights, metadata={"config": text})
    return folder


def given(room: Room) -> dict[str, Any]:
    """The fields of the policy's model."""
    return json.loads(Path(room.base.policy, "model", "config.json").read_text())


def unharmed(room: Room) -> dict[str, Any]:
    """The measures of the policy."""
    source = room.base.policy
    return room.unharmed("policy", lambda: numbers_of(room, source, "unharmed.json"))


def changed_field(room: Room, *, field: str, value: Any) -> str:
    """The field with that value, in both files."""
    ending = measured(room, with_fields(room, given(room) | {field: value}))
    expected = unharmed(room)
    return either(ending, lambda: same(room, expected), field, "config.json")


def missing(room: Room, *, field: str) -> str:
    """A field that a model trained here always has."""
    fields = {name: value for name, value in given(room).items() if name != field}
    ending = measured(room, with_fields(room, fields))
    expected = unharmed(room)
    return either(ending, lambda: same(room, expected), field, "config.json", "configuration")


def half_changed(room: Room, *, field: str, value: Any) -> str:
    """Another number in `config.json` than in the weights."""
    folder = copied(room, f"{room.base.policy}/model")
    room.write("model/config.json", given(room) | {field: value})
    return refused(measured(room, folder), "config.json", field)
