"""Fields of a published model's `config.json`: wrong types, absurd numbers, broken files."""

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.base import DATA, Base
from benchmarks.hostile.judge import either, refused
from benchmarks.hostile.probes import copied, in_place_of, measured, numbers_of, same
from benchmarks.hostile.trial import Room, Trial
from benchmarks.hostile.values import CHOICES, LISTS, NUMBERS, OBJECTS, SIZES, SWITCHES

KIND = "hf_config"
FAMILIES = ("llama", "gpt2", "gemma3", "qwen3", "mistral", "gemma2")
FIELDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "intermediate_size", "max_position_embeddings", "head_dim",
         "n_embd", "n_layer", "n_head", "n_positions", "n_inner", "sliding_window",
         "max_window_layers"),
        SIZES,
    ),
    **dict.fromkeys(
        ("rms_norm_eps", "layer_norm_epsilon", "query_pre_attn_scalar", "attn_logit_softcapping",
         "final_logit_softcapping", "partial_rotary_factor", "rope_theta"),
        NUMBERS | {"minus": -1.0},
    ),
    **dict.fromkeys(
        ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_sliding_window",
         "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention",
         "is_causal", "use_bidirectional_attention"),
        SWITCHES,
    ),
    **dict.fromkeys(
        ("hidden_act", "hidden_activation", "activation_function", "model_type"), CHOICES
    ),
    **dict.fromkeys(("layer_types", "architectures", "eos_token_id", "bos_token_id"), LISTS),
    **dict.fromkeys(("rope_parameters", "rope_scaling", "id2label"), OBJECTS),
    "quantization_config": OBJECTS,
    "no_such_field": OBJECTS,
}  # fmt: skip
ROPES: dict[str, dict[str, Any]] = {
    "rope_type": CHOICES,
    "rope_theta": NUMBERS | {"minus": -5.0, "zero": 0.0},
    "factor": NUMBERS | {"minus": -2.0, "zero": 0.0},
    "original_max_position_embeddings": SIZES,
    "low_freq_factor": NUMBERS | {"minus": -1.0},
    "beta_fast": NUMBERS | {"minus": -1.0},
    "attention_factor": NUMBERS | {"minus": -1.0},
}
SAMPLED = 3  # values of a field that a family is tried with
BROKEN: dict[str, Any] = {
    "empty": "",
    "null": "null",
    "list": "[]",
    "number": "3",
    "text": '"llama"',
    "half": '{"model_type": "llama", "vocab',
    "comma": '{"model_type": "llama",}',
    "twice": '{"model_type": "llama", "model_type": "gpt2"}',
    "comment": '{"model_type": "llama"} // no',
    "latin1": b'{"model_type": "ll\xe4ma"}',
    "utf16": '{"model_type": "llama"}'.encode("utf-16"),
    "zeros": bytes(4096),
    "deep": '{"a":' * 100_000,
    "brackets": "[" * 1_000_000,
    "no_kind": "{}",
    "long_number": '{"model_type": "llama", "vocab_size": ' + "9" * 5000 + "}",
}
RULE = {
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e3},
    "yarn": {
        "rope_type": "yarn",
        "factor": 2.0,
        "rope_theta": 5e3,
        "original_max_position_embeddings": 32,
        "beta_fast": 32.0,
        "attention_factor": 1.0,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 2.0,
        "rope_theta": 5e3,
        "original_max_position_embeddings": 32,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """A sample of values for every field that a family has, and files that are no such file."""
    chance = random.Random(f"{KIND} {seed}")
    for family in FAMILIES:
        given = json.loads((DATA / "hf" / family / "config.json").read_text())
        for field, values in FIELDS.items():
            if field in given or field in ("no_such_field", "quantization_config", "rope_scaling"):
                for name in sorted(chance.sample(sorted(values), min(SAMPLED, len(values)))):
                    yield _trial(f"{family}_{field}_{name}", family, field, values[name])
    for rule, fields in RULE.items():
        for field, values in ROPES.items():
            if field in fields:
                for name in sorted(chance.sample(sorted(values), 4)):
                    changed = fields | {field: values[name]}
                    act = functools.partial(changed_rope, rule=rule, fields=changed)
                    yield Trial(kind=KIND, name=f"rope_{rule}_{field}_{name}", act=act)
    for name, content in BROKEN.items():
        act = functools.partial(broken, content=content)
        yield Trial(kind=KIND, name=f"file_{name}", act=act)
    for name in ("directory", "missing", "fifo", "loop", "endless", "huge"):
        yield Trial(kind=KIND, name=f"file_{name}", act=functools.partial(no_file, what=name))


def _trial(name: str, family: str, field: str, value: Any) -> Trial:
    act = functools.partial(changed_field, family=family, field=field, value=value)
    return Trial(kind=KIND, name=name, act=act)


def changed_field(room: Room, *, family: str, field: str, value: Any) -> str:
    """The field with that value: a line that names it, or the numbers of the unharmed model."""
    source = room.base.published(family)
    fields = json.loads((Path(source) / "config.json").read_text())
    folder = copied(room, source)
    room.write("model/config.json", fields | {field: value})
    ending = measured(room, folder)
    expected = room.unharmed(f"hf_{family}", lambda: numbers_of(room, source, "unharmed.json"))
    return either(ending, lambda: same(room, expected), field, "config.json")


def changed_rope(room: Room, *, rule: str, fields: dict[str, Any]) -> str:
    """A rule of rotary positions with a hostile number in it."""
    source = room.base.published("llama")
    given = json.loads((Path(source) / "config.json").read_text())

    def unharmed() -> dict[str, Any]:
        folder = copied(room, source, "ruled")
        room.write("ruled/config.json", given | {"rope_parameters": RULE[rule]})
        return numbers_of(room, folder, "unharmed.json")

    folder = copied(room, source)
    room.write("model/config.json", given | {"rope_parameters": fields})
    ending = measured(room, folder)
    expected = room.unharmed(f"rope_{rule}", unharmed)
    return either(ending, lambda: same(room, expected), "rope_parameters", "config.json")


def broken(room: Room, *, content: str | bytes) -> str:
    """A `config.json` that is none."""
    folder = copied(room, room.base.published("llama"))
    room.write("model/config.json", content)
    return refused(measured(room, folder), "config.json")


def no_file(room: Room, *, what: str) -> str:
    """Something else than a file in its place."""
    folder = copied(room, room.base.published("llama"))
    file = Path(folder) / "config.json"
    file.unlink()
    in_place_of(file, what)
    return refused(measured(room, folder), "config.json", "model")
