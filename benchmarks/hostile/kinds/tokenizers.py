"""Tokenizers of published models: broken files, fields of `tokenizer_config.json` and
`generation_config.json`, several ids that end a response, ids beyond the vocabulary.
"""

import functools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.hostile.base import Base, loop
from benchmarks.hostile.judge import Ending, Fault, either, refused, worked
from benchmarks.hostile.probes import copied, in_place_of, measured, numbers_of, same
from benchmarks.hostile.trial import Room, Trial
from benchmarks.hostile.values import CHOICES, LISTS, OBJECTS

KIND = "tokenizers"
Json = dict[str, Any]
PARTS = ("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
         "post_processor", "decoder", "model")  # fmt: skip
PART_VALUES: Json = {
    "number": 3,
    "text": "x",
    "list": [1],
    "object": {"type": "NoSuch"},
    "true": True,
}
MODEL: dict[str, Json] = {
    "type": {"other": "NoSuch", "number": 3, "null": None},
    "vocab": {"list": ["a"], "number": 3, "empty": {}, "texts": {"a": "b"}, "minus": {"a": -1},
              "beyond": {"a": 2**40}, "same_id": {"a": 5, "b": 5}},
    "merges": {"no_pair": ["abc"], "number": 3, "numbers": [1], "unknown": [["zz", "yy"]]},
    "unk_token": {"number": 3, "absent": "no_such_token", "list": ["a"]},
}  # fmt: skip
NAMES: Json = {
    "number": 3,
    "list": ["<eos>"],
    "object": {"no": 1},
    "object_number": {"content": 3},
    "absent": "<no_such_token>",
    "nothing": "",
    "true": True,
    "long_text": "x" * 5000,
}
CONFIG: dict[str, Json] = {
    **dict.fromkeys(("eos_token", "bos_token", "pad_token"), NAMES),
    "chat_template": {"number": 3, "object": {"a": 1}, "numbers": [1, 2], "no_default": [
        {"name": "tool_use", "template": "x"}], "no_name": [{"template": "x"}], "nulls": [None]},
    "added_tokens_decoder": OBJECTS | {"number_entry": {"0": 3}, "no_content": {"0": {}}},
    "additional_special_tokens": LISTS,
    "extra_special_tokens": LISTS,
    "model_max_length": {"text": "x", "minus": -1, "nan": float("nan"), "huge": 10**30},
    "add_prefix_space": {"text": "x", "number": 3},
    "tokenizer_class": CHOICES,
}  # fmt: skip
GENERATION: dict[str, Json] = {
    "eos_token_id": {"text": "2", "half": 2.5, "minus": -1, "beyond": 10**6, "empty_list": [],
                     "texts": ["2"], "nested": [[2]], "true": True, "object": {"a": 2},
                     "nan": float("nan"), "400_digits": 10**400, "beyond_list": [2, 10**6]},
    "temperature": {"text": "x", "minus": -1.0, "nan": float("nan"), "list": [1.0]},
    "top_k": {"text": "x", "minus": -5, "half": 1.5, "list": [1]},
    "top_p": {"text": "x", "minus": -1.0, "two": 2.0, "list": [1.0]},
}  # fmt: skip
BROKEN: Json = {
    "empty": "",
    "list": "[]",
    "null": "null",
    "number": "3",
    "half": '{"model": {"type": "BPE"',
    "zeros": bytes(4096),
    "latin1": b'{"version": "\xe4"}',
    "deep": "[" * 200_000,
    "twice": '{"eos_token": "<eos>", "eos_token": "<bos>"}',
}
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
)


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Every field with a sample of values, files, and what ends a response."""
    chance = random.Random(f"{KIND} {seed}")
    for part in PARTS:
        for name in sorted(chance.sample(sorted(PART_VALUES), 3)):
            change = functools.partial(_set, name=part, value=PART_VALUES[name])
            yield _trial(f"{part}_{name}", changed, file="tokenizer.json", change=change)
    for field, values in MODEL.items():
        for name, value in values.items():
            change = functools.partial(_set_model, name=field, value=value)
            yield _trial(f"model_{field}_{name}", changed, file="tokenizer.json", change=change)
    for file, fields in (("tokenizer_config.json", CONFIG), ("generation_config.json", GENERATION)):
        for field, values in fields.items():
            for name in sorted(chance.sample(sorted(values), min(6, len(values)))):
                change = functools.partial(_set, name=field, value=values[name])
                yield _trial(f"{field}_{name}", changed, file=file, change=change)
    for file in FILES:
        for name, content in BROKEN.items():
            yield _trial(f"{file}_{name}", broken, file=file, content=content)
        for what in ("directory", "fifo", "endless", "loop"):
            yield _trial(f"{file}_{what}", no_file, file=file, what=what)
    for name, change in HARMLESS.items():
        yield _trial(f"harmless_{name}", harmless, change=change)
    yield _trial("several_ends_stop", several_ends_stop)
    yield _trial("several_ends_in_a_run_stop", several_ends_in_a_run_stop)
    yield _trial("several_ends_are_exported", several_ends_are_exported)
    yield _trial("sampling_defaults_are_exported", sampling_defaults_are_exported)
    yield _trial("ids_beyond_are_never_sampled", ids_beyond)
    yield _trial("missing", no_file, file="tokenizer.json", what="missing")


def _trial(name: str, act: Callable[..., str], /, **settings: Any) -> Trial:
    return Trial(kind=KIND, name=name, act=functools.partial(act, **settings))


def _set(fields: Json, *, name: str, value: Any) -> Json:
    return fields | {name: value}


def _set_model(fields: Json, *, name: str, value: Any) -> Json:
    return fields | {"model": fields["model"] | {name: value}}


HARMLESS: dict[str, Callable[[Json], Json]] = {
    "truncation": lambda t: t | {"truncation": {"direction": "Right", "max_length": 2,
                                                "strategy": "LongestFirst", "stride": 0}},
    "padding": lambda t: t | {"padding": {"strategy": {"Fixed": 100}, "direction": "Left",
                                          "pad_to_multiple_of": None, "pad_id": 0,
                                          "pad_type_id": 0, "pad_token": "<pad>"}},
    "post_processor": lambda t: t | {"post_processor": {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}},
                                                 {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}}}},
}  # fmt: skip


def files_of(room: Room) -> str:
    """A copy of a published model whose special tokens are named beside it."""
    return copied(room, room.base.published("llama"))


def unharmed(room: Room) -> Json:
    """Its measures."""
    source = room.base.published("llama")
    return room.unharmed("tokenizer", lambda: numbers_of(room, source, "unharmed.json"))


def read(folder: str, file: str) -> Json:
    """A JSON file of the folder; an empty object where there is none."""
    path = Path(folder) / file
    return json.loads(path.read_text()) if path.exists() else {}


def changed(room: Room, *, file: str, change: Callable[[Json], Json]) -> str:
    """A field with a hostile value: refused by name, or without effect."""
    folder = files_of(room)
    room.write(f"model/{file}", change(read(folder, file)))
    ending = measured(room, folder)
    if file == "generation_config.json" and ending.status == 0:
        ending = sampled(room, folder)
    expected = unharmed(room)
    return either(ending, lambda: same(room, expected), file, "token", "model")


def harmless(room: Room, *, change: Callable[[Json], Json]) -> str:
    """What a tokenizer would add or cut off by itself has no say here."""
    folder = files_of(room)
    room.write("model/tokenizer.json", change(read(folder, "tokenizer.json")))
    expected = unharmed(room)
    return worked(measured(room, folder), lambda: same(room, expected))


def broken(room: Room, *, file: str, content: Any) -> str:
    """A file that is none: refused by name, or (where it need not be read) without effect."""
    folder = files_of(room)
    room.write(f"model/{file}", content)
    ending = sampled(room, folder) if file == "generation_config.json" else measured(room, folder)
    return refused(ending, file)


def no_file(room: Room, *, file: str, what: str) -> str:
    """Something else than a file in its place."""
    folder = files_of(room)
    path = Path(folder) / file
    path.unlink(missing_ok=True)
    in_place_of(path, what)
    if file == "tokenizer.json":
        return refused(measured(room, folder), file, "tokenizer")
    expected = unharmed(room)
    worked_or_line = either(measured(room, folder), lambda: same(room, expected), file)
    return either(sampled(room, folder), lambda: None, file) and worked_or_line


def sampled(room: Room, model: str) -> Ending:
    """What `generate` does with the model."""
    return room.call("generate", "--model", model, "--prompt", "a", "--samples", "6")


def generated(room: Room, model: str) -> list[str]:
    """What follows the prompt in each sample."""
    done = sampled(room, model)
    worked(done)
    return [text.removeprefix("a") for text in done.out.rstrip("\n").split("\n\n")]


def with_ends(room: Room) -> str:
    """A model whose every printable token ends a response."""
    folder = files_of(room)
    room.write("model/generation_config.json", {"eos_token_id": [2, *range(3, 98)]})
    return folder


def check_short(texts: list[str]) -> str:
    """No sample goes on after its first token.

    Raises:
      Fault: one does.
    """
    if (longest := max(map(len, texts))) > 1:
        raise Fault("silent", f"sampled on behind a token that ends a response: {longest}")
    return "right"


def several_ends_stop(room: Room) -> str:
    """All ids of `eos_token_id` end a response, as in transformers."""
    return check_short(generated(room, with_ends(room)))


def trained(room: Room, model: str) -> None:
    """A run directory `run` that started from the model."""
    data = ["--data.path", room.base.short]
    worked(room.call("sft", "--output", "run", "--init", model, *data, *loop(steps=1)))


def several_ends_in_a_run_stop(room: Room) -> str:
    """The same in a run that was trained from such a model."""
    trained(room, with_ends(room))
    return check_short(generated(room, "run"))


def several_ends_are_exported(room: Room) -> str:
    """The list survives a run and its export."""
    trained(room, with_ends(room))
    worked(room.call("export", "--model", "run", "--output", "out"))
    found = read("out", "generation_config.json").get("eos_token_id")
    if not isinstance(found, list) or sorted(found) != list(range(2, 98)):
        raise Fault("silent", f"exported eos_token_id {found}")
    return "right"


def sampling_defaults_are_exported(room: Room) -> str:
    """Temperature, top_k and top_p of the model that training began with."""
    folder = files_of(room)
    given = {"eos_token_id": 2, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "do_sample": True}
    room.write("model/generation_config.json", given)
    trained(room, folder)
    worked(room.call("export", "--model", "run", "--output", "out"))
    found = read("out", "generation_config.json")
    if lost := {name: value for name, value in given.items() if found.get(name) != value}:
        raise Fault("silent", f"export drops {lost}")
    return "right"


def ids_beyond(room: Room) -> str:
    """Of 199 ids the tokenizer has 98, one character each: 32 tokens are 32 characters."""
    texts = generated(room, room.base.published("llama"))
    if max(map(len, texts)) < 32:
        raise Fault("silent", f"lengths {[len(text) for text in texts]}: ids beyond were sampled")
    return "right"
