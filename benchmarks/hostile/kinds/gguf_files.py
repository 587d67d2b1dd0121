"""GGUF files: keys with hostile values, tensors that do not fit, flipped and missing bytes."""

import functools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hostile.base import Base
from benchmarks.hostile.judge import either, refused
from benchmarks.hostile.probes import in_place_of, measured, numbers_of, same
from benchmarks.hostile.trial import Room, Trial

KIND = "gguf"
# (key, value): a key that the unharmed file has is replaced
COUNTS: dict[str, Any] = {
    "zero": 0,
    "one": 1,
    "minus": -1,
    "billion": 2**31 - 1,
    "trillion": 10**12,
    "half": 1.5,
    "nan": float("nan"),
    "text": "2",
    "list": [2, 2],
    "long_list": [2] * 1000,
    "true": True,
}
NUMBERS: dict[str, Any] = {
    "minus": -1.0,
    "nan": float("nan"),
    "infinity": float("inf"),
    "text": "x",
    "list": [1.0],
    "true": True,
}
KEYS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
         "feed_forward_length", "context_length", "attention.key_length", "vocab_size",
         "rope.dimension_count"),
        COUNTS,
    ),
    **dict.fromkeys(
        ("attention.layer_norm_rms_epsilon", "rope.freq_base", "attention.scale",
         "rope.scaling.factor"),
        NUMBERS,
    ),
    "rope.scaling.type": {"other": "no_such", "number": 3, "list": ["linear"], "nothing": ""},
    "attention.causal": {"false": False, "text": "x", "list": [True]},
    "attention.sliding_window": COUNTS,
    "no_such_key": {"number": 3, "text": "x", "list": [1]},
}  # fmt: skip
GENERAL: dict[str, dict[str, Any]] = {
    "general.architecture": {"other": "bert", "nothing": "", "number": 3, "list": ["llama"]},
    "general.type": {"adapter": "adapter", "number": 3},
    "general.alignment": {"zero": 0, "three": 3, "text": "x"},
    "split.count": {"five": 5, "text": "x"},
}
TOKENIZER: dict[str, dict[str, Any]] = {
    "tokenizer.ggml.model": {"other": "no_such", "number": 3, "list": ["gpt2"]},
    "tokenizer.ggml.pre": {"other": "no_such", "number": 3},
    "tokenizer.ggml.bos_token_id": {"minus": -1, "beyond": 10**6, "text": "x", "list": [1]},
    "tokenizer.ggml.eos_token_id": {"minus": -1, "beyond": 10**6, "text": "x", "list": [1]},
    "tokenizer.ggml.tokens": {"short": ["a", "b"], "number": 3, "same": ["a"] * 199},
    "tokenizer.ggml.token_type": {"short": [1, 1], "number": 3, "unknown": [77] * 199},
    "tokenizer.ggml.merges": {"no_pair": ["abc"], "unknown": ["zz y"], "number": 3, "numbers": [1]},
    "tokenizer.chat_template": {"number": 3, "list": ["x"], "broken": "{% if"},
}  # fmt: skip
SAMPLED = 4


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """A sample of values for every key; bytes flipped, cut off and replaced."""
    chance = random.Random(f"{KIND} {seed}")
    for key, values in KEYS.items():
        for name in sorted(chance.sample(sorted(values), min(SAMPLED, len(values)))):
            act = functools.partial(changed_key, key=f"llama.{key}", value=values[name])
            yield Trial(kind=KIND, name=f"{key}_{name}", act=act)
    for key, values in (GENERAL | TOKENIZER).items():
        for name, value in values.items():
            act = functools.partial(changed_key, key=key, value=value)
            yield Trial(kind=KIND, name=f"{key}_{name}", act=act)
    for family in ("llama", "gpt2"):
        for number in range(15):
            flip = functools.partial(flipped, family=family, place=chance.random() ** 3)
            yield Trial(kind=KIND, name=f"{family}_flip_{number}", act=flip)
            cut = functools.partial(truncated, family=family, place=chance.random())
            yield Trial(kind=KIND, name=f"{family}_truncated_{number}", act=cut)
    for name, change in TENSORS.items():
        act = functools.partial(changed_tensors, change=change)
        yield Trial(kind=KIND, name=f"tensors_{name}", act=act)
    for name, content in CONTENTS.items():
        act = functools.partial(replaced, content=content)
        yield Trial(kind=KIND, name=f"file_{name}", act=act)
    for what in ("directory", "fifo", "loop", "endless", "missing"):
        yield Trial(kind=KIND, name=f"file_{what}", act=functools.partial(no_file, what=what))


CONTENTS = {
    "empty": b"",
    "magic": b"GGUF",
    "old_version": b"GGUF\x01\x00\x00\x00" + bytes(100),
    "future_version": b"GGUF\x63\x00\x00\x00" + bytes(100),
    "swapped": b"GGUF\x00\x00\x00\x03" + bytes(100),
    "many_tensors": b"GGUF\x03\x00\x00\x00" + b"\xff" * 7 + b"\x7f" + bytes(100),
    "many_keys": b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\xff" * 7 + b"\x7f" + bytes(100),
    "no_tensor": b"GGUF\x03\x00\x00\x00" + bytes(16),
    "zip": b"PK\x03\x04" + bytes(400),
    "zeros": bytes(4096),
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 500\n",
}
Tensors = dict[str, np.ndarray]
TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    "missing": lambda t: {k: v for k, v in t.items() if k != "blk.1.ffn_up.weight"},
    "surplus": lambda t: t | {"no.such.weight": np.ones((2, 2), np.float32)},
    "surplus_layer": lambda t: t | {"blk.7.ffn_up.weight": t["blk.1.ffn_up.weight"]},
    "transposed": lambda t: t | {"blk.1.ffn_up.weight": t["blk.1.ffn_up.weight"].T},
    "flat": lambda t: t | {"blk.1.ffn_up.weight": t["blk.1.ffn_up.weight"].ravel()},
    "nan": lambda t: t | {"blk.1.ffn_up.weight": np.nan * t["blk.1.ffn_up.weight"]},
    "infinity": lambda t: t | {"output_norm.weight": np.inf * t["output_norm.weight"]},
    "no_embedding": lambda t: {k: v for k, v in t.items() if k != "token_embd.weight"},
    "freqs_short": lambda t: t | {"rope_freqs.weight": np.full(5, 2, np.float32)},
    "freqs_zero": lambda t: t | {"rope_freqs.weight": np.zeros(6, np.float32)},
    "freqs_nan": lambda t: t | {"rope_freqs.weight": np.full(6, np.nan, np.float32)},
}


def rewritten(
    room: Room,
    *,
    key: str = "",
    value: Any = None,
    change: Callable[[Tensors], Tensors] = lambda t: t,
) -> str:
    """The unharmed file with another value of a key, or other tensors."""
    import gguf

    reader = gguf.GGUFReader(room.base.gguf("llama"))
    path = str(room.path / "model.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == key or name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    if key == "general.architecture":
        del writer.kv_data[0][key]
    if key:
        add(writer, key, value)
    tensors = {x.name: np.array(x.data).reshape(x.shape[::-1]) for x in reader.tensors}
    for name, array in change(tensors).items():
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: Any, key: str, value: Any) -> None:
    """A key of the type that the value has."""
    from gguf import GGUFValueType as Kind

    if isinstance(value, list):
        inner = {bool: Kind.BOOL, int: Kind.INT64, float: Kind.FLOAT32}
        kind = inner.get(type(value[0]), Kind.STRING)
        writer.add_key_value(key, value, Kind.ARRAY, sub_type=kind)
        return
    kinds = {bool: Kind.BOOL, int: Kind.INT64, float: Kind.FLOAT32, str: Kind.STRING}
    writer.add_key_value(key, value, kinds[type(value)])


def unharmed(room: Room, family: str = "llama") -> dict[str, Any]:
    """The measures of the unharmed file."""
    path = room.base.gguf(family)
    return room.unharmed(f"gguf_{family}", lambda: numbers_of(room, path, "unharmed.json"))


def changed_key(room: Room, *, key: str, value: Any) -> str:
    """A line that names the key or the file, or the numbers of the unharmed file."""
    ending = measured(room, rewritten(room, key=key, value=value))
    expected = unharmed(room)
    return either(ending, lambda: same(room, expected), key.partition(".")[2], "model.gguf")


def changed_tensors(room: Room, *, change: Callable[[Tensors], Tensors]) -> str:
    """Tensors that do not fit."""
    return refused(measured(room, rewritten(room, change=change)), "model.gguf")


def flipped(room: Room, *, family: str, place: float) -> str:
    """A bit turned over in what stands before the tensors.

    Refused, or read as another file that is whole: the format has no checksums.
    """
    import gguf

    path = room.path / "model.gguf"
    start = int(gguf.GGUFReader(room.base.gguf(family)).data_offset)
    content = bytearray(Path(room.base.gguf(family)).read_bytes())
    content[int(place * start)] ^= 8
    path.write_bytes(content)
    return either(measured(room, str(path)), lambda: None, "model.gguf")


def truncated(room: Room, *, family: str, place: float) -> str:
    """The first part of the file."""
    path = room.path / "model.gguf"
    shutil.copy(room.base.gguf(family), path)
    os.truncate(path, int(place * path.stat().st_size))
    return refused(measured(room, str(path)), "model.gguf")


def replaced(room: Room, *, content: bytes) -> str:
    """Other bytes."""
    return refused(measured(room, room.write("model.gguf", content)), "model.gguf")


def no_file(room: Room, *, what: str) -> str:
    """Something else than a file."""
    in_place_of(room.path / "model.gguf", what)
    return refused(measured(room, str(room.path / "model.gguf")), "model.gguf")
