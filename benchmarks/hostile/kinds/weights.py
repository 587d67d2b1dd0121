"""Weights: broken headers, other names, shapes, dtypes and numbers, in native and published
folders; indices that lie; two names for one tensor.
"""

import functools
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from benchmarks.hostile.base import Base
from benchmarks.hostile.judge import Fault, either, refused
from benchmarks.hostile.probes import copied, in_place_of, measured, numbers_of, same
from benchmarks.hostile.trial import Room, Trial

KIND = "weights"
SOURCES = ("policy", "llama", "gpt2", "gemma3")
Tensors = dict[str, np.ndarray]
HEADERS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x01\x02",
    "endless": struct.pack("<Q", 2**63 - 1) + b"{}",
    "minus": struct.pack("<q", -1) + b"{}",
    "hundred_gigabytes": struct.pack("<Q", 10**11) + b"{}",
    "no_json": struct.pack("<Q", 8) + b"notjson!",
    "list": struct.pack("<Q", 2) + b"[]",
    "nothing": struct.pack("<Q", 2) + b"{}",
    "deep": struct.pack("<Q", 60_000) + b'{"a":' * 12_000,
    "zip": b"PK\x03\x04" + bytes(200),
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00" + bytes(200),
    "zeros": bytes(4096),
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 500\n",
}


def first(tensors: Tensors) -> str:
    """A matrix of the model, always the same."""
    return sorted(name for name in tensors if tensors[name].ndim == 2)[0]


def changed(function: Callable[[np.ndarray], Any]) -> Callable[[Tensors], Tensors]:
    """The tensors with another value of `first`."""
    return lambda tensors: tensors | {first(tensors): np.ascontiguousarray(function(
        tensors[first(tensors)]))}  # fmt: skip


def with_entry(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """One number of an array replaced."""

    def replace(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.flat[array.size // 2] = value
        return array

    return replace


CHANGES: dict[str, Callable[[Tensors], Tensors]] = {
    "missing": lambda t: {name: x for name, x in t.items() if name != first(t)},
    "surplus": lambda t: t | {f"{first(t)}_of_nothing": np.ones(3, np.float32)},
    "surplus_layer": lambda t: t | {name.replace("layers_1", "layers_7").replace(".1.", ".7."): x
                                    for name, x in t.items()},
    "empty": lambda t: {},
    "transposed": changed(lambda x: x.T),
    "one_row_more": changed(lambda x: np.concatenate([x, x[:1]])),
    "one_row_less": changed(lambda x: x[1:]),
    "flat": changed(np.ravel),
    "scalar": changed(lambda x: x[0, 0]),
    "no_rows": changed(lambda x: x[:0]),
    "int64": changed(lambda x: (100 * x).astype(np.int64)),
    "int8": changed(lambda x: (100 * x).astype(np.int8)),
    "bool": changed(lambda x: x > 0),
    "uint16": changed(lambda x: x.astype(np.uint16)),
    "nan": changed(with_entry(float("nan"))),
    "infinity": changed(with_entry(float("inf"))),
    "all_nan": changed(lambda x: np.full_like(x, np.nan)),
    "float64_beyond_float32": changed(lambda x: with_entry(1e300)(x.astype(np.float64))),
}  # fmt: skip
INDICES: dict[str, Any] = {
    "list": [],
    "no_map": {},
    "map_list": {"weight_map": ["model.safetensors"]},
    "map_null": {"weight_map": None},
    "empty_map": {"weight_map": {}},
    "number": {"weight_map": {"a": 3}},
    "parent": {"weight_map": {"a": "../model.safetensors"}},
    "absolute": {"weight_map": {"a": "/etc/passwd.safetensors"}},
    "missing_file": {"weight_map": {"a": "model-00002-of-00002.safetensors"}},
    "zero_character": {"weight_map": {"a": "a\0.safetensors"}},
    "long_name": {"weight_map": {"a": "x" * 5000 + ".safetensors"}},
    "pickle": {"weight_map": {"a": "pytorch_model.bin"}},
    "broken": '{"weight_map": {',
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Headers, changes, indices, flipped and truncated bytes; and files that say two things."""
    chance = random.Random(f"{KIND} {seed}")
    for source in ("policy", "llama"):
        for name, content in HEADERS.items():
            yield _trial(f"{source}_header_{name}", replaced, source=source, content=content)
        for what in ("directory", "fifo", "loop", "endless", "missing"):
            yield _trial(f"{source}_file_{what}", other_file, source=source, what=what)
        for number in range(10):
            place = chance.random()
            yield _trial(f"{source}_truncated_{number}", truncated, source=source, place=place)
            yield _trial(f"{source}_header_flip_{number}", flipped, source=source, place=place)
    for source in SOURCES:
        for name, change in CHANGES.items():
            yield _trial(f"{source}_{name}", changed_tensors, source=source, change=change)
    for name, index in INDICES.items():
        yield _trial(f"index_{name}", indexed, index=index)
    yield _trial("index_other_file", index_lies)
    yield _trial("index_two_files_one_name", doubled)
    yield _trial("tied_head_differs", tied_head)
    yield _trial("tied_head_same", tied_head_same)
    yield _trial("two_names_of_the_embedding", two_names)
    for name in ("pytorch_model.bin", "model.pt", "weights.pkl", "model.h5"):
        yield _trial(f"only_{name.partition('.')[2]}", only_pickle, name=name)


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def folder_of(room: Room, source: str) -> str:
    """Where the model is that is to be harmed."""
    if source == "policy":
        return f"{room.base.policy}/model"
    return room.base.published(source)


def unharmed(room: Room, source: str) -> dict[str, Any]:
    """Its measures."""
    folder = folder_of(room, source)
    return room.unharmed(f"weights_{source}", lambda: numbers_of(room, folder, "unharmed.json"))


def replaced(room: Room, *, source: str, content: bytes) -> str:
    """Other bytes instead of the weights."""
    folder = copied(room, folder_of(room, source))
    room.write("model/model.safetensors", content)
    return refused(measured(room, folder), "safetensors", "tensor")


def other_file(room: Room, *, source: str, what: str) -> str:
    """Something else than a file instead of the weights."""
    folder = copied(room, folder_of(room, source))
    file = Path(folder) / "model.safetensors"
    file.unlink()
    in_place_of(file, what)
    return refused(measured(room, folder), "safetensors", "model")


def truncated(room: Room, *, source: str, place: float) -> str:
    """The first part of the weights."""
    folder = copied(room, folder_of(room, source))
    file = Path(folder) / "model.safetensors"
    os.truncate(file, int(place * file.stat().st_size))
    return refused(measured(room, folder), "safetensors")


def flipped(room: Room, *, source: str, place: float) -> str:
    """A bit of the header turned over: refused, or without effect."""
    folder = copied(room, folder_of(room, source))
    file = Path(folder) / "model.safetensors"
    content = bytearray(file.read_bytes())
    size = struct.unpack("<Q", content[:8])[0]
    content[8 + int(place * (size - 1))] ^= 4
    file.write_bytes(content)
    ending = measured(room, folder)
    expected = unharmed(room, source)
    return either(ending, lambda: same(room, expected), "safetensors", "config.json", "model")


def tensors_of(folder: str) -> tuple[Tensors, dict[str, str]]:
    """All tensors of a folder's single file, and its metadata."""
    with safe_open(Path(folder) / "model.safetensors", framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def changed_tensors(room: Room, *, source: str, change: Callable[[Tensors], Tensors]) -> str:
    """Tensors that do not fit, or hold no numbers that a model could have."""
    folder = copied(room, folder_of(room, source))
    tensors, metadata = tensors_of(folder)
    save_file(change(tensors), Path(folder) / "model.safetensors", metadata=metadata)
    names = ("safetensors", first(tensors), first(tensors).replace("/", "."), "model")
    return refused(measured(room, folder), *names)


def indexed(room: Room, *, index: Any) -> str:
    """An index that is none, or names what it should not."""
    folder = copied(room, room.base.published("llama"))
    (Path(folder) / "model.safetensors").rename(Path(folder) / "model-00001-of-00002.safetensors")
    content = index if isinstance(index, str) else json.dumps(index)
    room.write("model/model.safetensors.index.json", content)
    return refused(measured(room, folder), "index.json")


def index_lies(room: Room) -> str:
    """An index that says another file than the one that holds a tensor."""
    folder = copied(room, room.base.published("llama"))
    tensors, metadata = tensors_of(folder)
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    files = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for half, file in zip(halves, files, strict=True):
        save_file({name: tensors[name] for name in half}, Path(folder) / file, metadata=metadata)
    (Path(folder) / "model.safetensors").unlink()
    mapped = {name: files[i] for i, half in enumerate(halves) for name in half}
    mapped[names[0]] = files[1]
    room.write("model/model.safetensors.index.json", {"weight_map": mapped})
    ending = measured(room, folder)
    expected = unharmed(room, "llama")
    return either(ending, lambda: same(room, expected), "index", names[0], files[1])


def doubled(room: Room) -> str:
    """Two files that hold one name, with other numbers; the index says which counts."""
    folder = copied(room, room.base.published("llama"))
    tensors, metadata = tensors_of(folder)
    name = first(tensors)
    files = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    save_file(tensors, Path(folder) / files[0], metadata=metadata)
    save_file({name: 0 * tensors[name]}, Path(folder) / files[1], metadata=metadata)
    (Path(folder) / "model.safetensors").unlink()
    mapped = dict.fromkeys(tensors, files[0]) | {"unused": files[1]}
    room.write("model/model.safetensors.index.json", {"weight_map": mapped})
    ending = measured(room, folder)
    expected = unharmed(room, "llama")
    return either(ending, lambda: same(room, expected), "index", name, "safetensors")


def tied(room: Room, head: Callable[[np.ndarray], np.ndarray]) -> tuple[str, str]:
    """A folder that says it ties and stores a head, and one that stores it and does not tie."""
    folders = [copied(room, room.base.published("llama"), name) for name in ("tied", "untied")]
    fields = json.loads((Path(folders[0]) / "config.json").read_text())
    for folder, ties in zip(folders, (True, False), strict=True):
        tensors, metadata = tensors_of(folder)
        tensors["lm_head.weight"] = head(tensors["model.embed_tokens.weight"])
        save_file(tensors, Path(folder) / "model.safetensors", metadata=metadata)
        room.write(f"{Path(folder).name}/config.json", fields | {"tie_word_embeddings": ties})
    return folders[0], folders[1]


def tied_head(room: Room) -> str:
    """Tied by the configuration, with a head of its own: the head counts, as in transformers."""
    folder, untied = tied(room, lambda x: x[::-1].copy())
    ending = measured(room, folder)
    expected = numbers_of(room, untied, "unharmed.json")
    return either(ending, lambda: same(room, expected), "tie_word_embeddings", "lm_head.weight")


def tied_head_same(room: Room) -> str:
    """Tied, and the head is stored though it is the embedding: nothing is wrong."""
    folder, untied = tied(room, lambda x: x.copy())
    ending = measured(room, folder)
    expected = numbers_of(room, untied, "unharmed.json")
    if ending.status:
        raise Fault("refused", ending.err[-300:])
    return either(ending, lambda: same(room, expected))


def two_names(room: Room) -> str:
    """One parameter under two names, with other numbers."""
    folder = copied(room, room.base.published("llama"))
    tensors, metadata = tensors_of(folder)
    other = tensors["model.embed_tokens.weight"][::-1].copy()
    tensors["model.language_model.embed_tokens.weight"] = other
    save_file(tensors, Path(folder) / "model.safetensors", metadata=metadata)
    return refused(measured(room, folder), "embed_tokens")


def only_pickle(room: Room, *, name: str) -> str:
    """A folder with a pickle, which is never opened."""
    folder = copied(room, room.base.published("llama"))
    (Path(folder) / "model.safetensors").unlink()
    room.write(f"model/{name}", b"cos\nsystem\n(S'touch marker'\ntR.")
    done = refused(measured(room, folder), name)
    if (room.path / "marker").exists():
        raise Fault("silent", "code was run")
    return done
