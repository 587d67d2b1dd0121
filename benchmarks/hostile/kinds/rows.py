"""Rows of every command: a field missing, doubled, of another type, empty, too long, odd text."""

import functools
import json
from collections.abc import Iterator
from typing import Any

from benchmarks.hostile.base import Base, command, rows
from benchmarks.hostile.judge import Ending, Fault, refused, worked
from benchmarks.hostile.trial import Room, Trial

KIND = "rows"
# command and kind of rows: the flags beside the data, and the fields that a row must have
COMMANDS: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "sft_text": ("texts", [], ("text",)),
    "sft_completion": ("completions", [], ("prompt", "completion")),
    "sft_messages": ("conversations", [], ("messages",)),
    "dpo": ("pairs", [], ("prompt", "chosen", "rejected")),
    "dpo_tpo": ("golds", ["--loss", "tpo"], ("gold",)),
    "kto": ("labelled", [], ("prompt", "completion", "label")),
    "reward": ("pairs", [], ("chosen", "rejected", "margin")),
    "reward_rankings": ("rankings", ["--loss", "plackett_luce"], ("responses",)),
    "reward_steps": ("steps", ["--loss", "process"], ("completions", "labels")),
    "ppo": ("prompts", [], ("prompt",)),
    "grpo": ("prompts", [], ("prompt",)),
    "online": ("prompts", [], ("prompt",)),
}
TEXTS: dict[str, Any] = {
    "number": 3,
    "half": 0.5,
    "true": True,
    "numbers": [1, 2],
    "texts": ["a", "b"],
    "object": {"text": "a"},
    "nested": [[["a"]]],
    "surrogate": "a \ud800 b",
    "long": "a fine film " * 2000,
    "huge_number": 10**400,
    "infinity": float("inf"),
    "null": None,
    "empty_list": [],
    "role_only": [{"role": "user"}],
    "content_number": [{"role": "user", "content": 3}],
    "role_number": [{"role": 3, "content": "a"}],
    "role_unknown": [{"role": "emperor", "content": "a"}],
    "image": [{"role": "user", "content": [{"type": "image", "url": "x"}]}],
}
LABELS: dict[str, Any] = {
    "null": None,
    "text": "true",
    "two": 2,
    "minus": -1,
    "half": 0.5,
    "list": [True],
    "object": {"a": 1},
    "nan": float("nan"),
    "huge_number": 10**400,
}
NUMBERS: dict[str, Any] = {
    "text": "1",
    "list": [1],
    "nan": float("nan"),
    "infinity": float("inf"),
    "huge_number": 10**400,
    "beyond_float32": 1e39,
    "true": True,
    "object": {},
}
LISTS: dict[str, Any] = {
    "text": "abc",
    "number": 3,
    "object": {"0": "a"},
    "empty": [],
    "one": ["a"],
    "numbers": [1, 2, 3],
    "nulls": [None, None],
    "same": ["a", "a"],
    "nested": [["a"], ["b"]],
    "long": ["a " * 20_000, "b"],
    "empty_texts": ["", ""],
}
MESSAGES: dict[str, Any] = {
    "text": "abc",
    "empty": [],
    "numbers": [1],
    "texts": ["a"],
    "null": None,
    "user_only": [{"role": "user", "content": "a"}],
    "no_role": [{"content": "a"}, {"role": "assistant", "content": "b"}],
    "no_content": [{"role": "user"}, {"role": "assistant", "content": "b"}],
    "content_number": [{"role": "user", "content": 3}, {"role": "assistant", "content": "b"}],
    "role_unknown": [{"role": "emperor", "content": "a"}, {"role": "assistant", "content": "b"}],
    "role_list": [{"role": ["user"], "content": "a"}, {"role": "assistant", "content": "b"}],
    "image_part": [{"role": "user", "content": [{"type": "image"}]},
                   {"role": "assistant", "content": "b"}],
    "part_number": [{"role": "user", "content": [3]}, {"role": "assistant", "content": "b"}],
    "calls": [{"role": "user", "content": "a"},
              {"role": "assistant", "content": "b", "tool_calls": [{"name": "f"}]}],
    "weight": [{"role": "user", "content": "a"},
               {"role": "assistant", "content": "b", "weight": 0}],
    "object": {"role": "user", "content": "a"},
    "long": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b " * 9999}],
    "surrogate": [{"role": "user", "content": "\udfff"}, {"role": "assistant", "content": "b"}],
}  # fmt: skip
LABEL_LISTS: dict[str, Any] = {
    "text": "abc",
    "short": [True],
    "long": [True, True, True],
    "texts": ["a", "b"],
    "two": [2, 1],
    "minus": [-0.5, 1],
    "nulls": [None, None],
    "nan": [float("nan"), 1],
    "huge_number": [10**400, 1],
    "object": {"0": 1},
}
VALUES = {"label": LABELS, "margin": NUMBERS, "responses": LISTS, "completions": LISTS,
          "labels": LABEL_LISTS, "messages": MESSAGES}  # fmt: skip
HARMLESS_TEXTS = {
    "zero_character": "a\0b",
    "right_to_left": "a \u202e b",
    "combining": "a" + "\u0301" * 20,
    "emoji": "a \U0001f600 b",
    "private": "a \ue000 \U0010ffff b",
    "line_ends": "a\r\n\u2028\u2029\x85b",
    "special": "a <eos> <pad> <bos> b",
    "white_space": "a \t\u00a0\u3000 b",
    "markup": "[bold]a[/bold] %s {} \\ ' \"",
    "marks": "\ufdd0\ufdd1\ufffe\uffff",
}
LINES = {
    "no_json": "not json",
    "list": "[1, 2]",
    "number": "3",
    "text": '"a"',
    "null": "null",
    "half": '{"prompt": "a", ',
    "two_objects": '{"prompt": "a"} {"prompt": "b"}',
    "comment": '// {"prompt": "a"}',
    "single_quotes": "{'prompt': 'a'}",
    "deep": '{"prompt": ' + "[" * 100_000,
    "deep_closed": '{"prompt": "a", "x": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "digits": '{"prompt": ' + "9" * 6000 + "}",
    "digits_beside": '{"prompt": "a", "x": ' + "9" * 6000 + "}",
    "latin1": b'{"prompt": "\xe4"}',
    "cut_utf8": b'{"prompt": "\xe2\x82"}',
    "zeros": b"\0" * 50,
    "empty_object": "{}",
    "other_case": '{"Prompt": "a", "Text": "b"}',
    "bare_nan": "NaN",
}


def trials(base: Base, seed: int) -> Iterator[Trial]:
    """Every field of every command with hostile values; harmless texts; lines that are no rows."""
    for name, (_, _, fields) in COMMANDS.items():
        for field in fields:
            for value, hostile in VALUES.get(field, TEXTS).items():
                if (name, field, value) in ALLOWED:
                    continue
                act = functools.partial(bad, name=name, change={field: hostile})
                yield Trial(kind=KIND, name=f"{name}_{field}_{value}", act=act)
            if (name, field) not in OPTIONAL:
                act = functools.partial(missing, name=name, field=field)
                yield Trial(kind=KIND, name=f"{name}_{field}_missing", act=act)
            act = functools.partial(doubled, name=name, field=field)
            yield Trial(kind=KIND, name=f"{name}_{field}_doubled", act=act)
    for name, line in LINES.items():
        for what in ("sft_completion", "grpo"):
            act = functools.partial(bad_line, name=what, line=line)
            yield Trial(kind=KIND, name=f"{what}_line_{name}", act=act)
    for name, text in HARMLESS_TEXTS.items():
        yield Trial(kind=KIND, name=f"harmless_{name}", act=functools.partial(harmless, text=text))
    for name in ("sft_text", "dpo", "kto", "reward", "grpo"):
        yield Trial(kind=KIND, name=f"skipped_{name}", act=functools.partial(skipped, name=name))
    yield Trial(kind=KIND, name="null_columns", act=null_columns)
    yield Trial(kind=KIND, name="text_parts", act=text_parts)
    yield Trial(kind=KIND, name="no_calls", act=no_calls)
    yield Trial(kind=KIND, name="developer", act=developer)
    for field, value in (("tools", [{"name": "f"}]), ("chat_template_kwargs", {"a": True})):
        act = functools.partial(row_field, field=field, value=value)
        yield Trial(kind=KIND, name=f"row_{field}", act=act)
    for field in ("name", "tool_call_id", "prefix"):
        yield Trial(kind=KIND, name=f"message_{field}", act=functools.partial(said, field=field))


# What has a meaning: a list of texts is no text but [] may be a conversation of nobody; null margin
# and null prompt are absent ones; "" answers nothing but is a prompt.
ALLOWED = {
    ("reward", "margin", "null"),
    ("dpo", "prompt", "null"),
    ("sft_completion", "prompt", "null"),
    ("kto", "prompt", "null"),
    ("reward_steps", "labels", "half"),
    ("reward_steps", "completions", "same"),
    ("reward_steps", "completions", "one"),
    ("kto", "label", "half"),
}
OPTIONAL = {("reward", "margin"), ("dpo", "prompt"), ("sft_completion", "prompt")}


def made(room: Room, name: str, lines: list[str | bytes], *more: str) -> Ending:
    """What the command does with those lines of data."""
    given = b"".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    data = room.write("data.jsonl", given)
    flags = COMMANDS[name][1]
    arguments = command(name.partition("_")[0], room.base, data=data)
    if name == "reward_steps":
        cut = arguments.index("--reward.pooling")
        arguments = [*arguments[:cut], "--process.fit.steps", "1", "--process.fit.batch_size", "4",
                     "--process.fit.optimizer.warmup_steps", "0"]  # fmt: skip
    return room.call(*arguments, *flags, *more)


def lines_of(name: str) -> list[str]:
    """Four good rows of the command."""
    return [f"{json.dumps(row)}\n" for row in rows(COMMANDS[name][0])[:4]]


def bad(room: Room, *, name: str, change: dict[str, Any]) -> str:
    """A fifth row with that field: refused by its place or its field."""
    row = rows(COMMANDS[name][0])[4] | change
    return refused(made(room, name, [*lines_of(name), f"{json.dumps(row)}\n"]), "data.jsonl:5")


def missing(room: Room, *, name: str, field: str) -> str:
    """A fifth row without the field."""
    row = {key: value for key, value in rows(COMMANDS[name][0])[4].items() if key != field}
    return refused(made(room, name, [*lines_of(name), f"{json.dumps(row)}\n"]), "data.jsonl:5")


def doubled(room: Room, *, name: str, field: str) -> str:
    """A fifth row that says a field twice."""
    row = json.dumps(rows(COMMANDS[name][0])[4] | {field: 1.0 if field == "margin" else "a"})
    line = f'{row[:-1]}, "{field}": "b"}}\n'
    return refused(made(room, name, [*lines_of(name), line]), "data.jsonl:5")


def bad_line(room: Room, *, name: str, line: str | bytes) -> str:
    """A fifth line that is no row."""
    end = b"\n" if isinstance(line, bytes) else "\n"
    return refused(made(room, name, [*lines_of(name), line + end]), "data.jsonl:5")  # type: ignore


def harmless(room: Room, *, text: str) -> str:
    """Any text is a text."""
    row = {"prompt": text, "completion": f"{text} and so on"}
    return worked(made(room, "sft_completion", [*lines_of("sft_completion"), json.dumps(row)]))


def skipped(room: Room, *, name: str) -> str:
    """With `on_bad_row skip` the bad row is left out and named."""
    line = json.dumps(dict.fromkeys(COMMANDS[name][2], 3)) + "\n"
    ending = made(room, name, [*lines_of(name), line], "--data.on_bad_row", "skip")
    worked(ending)
    if "data.jsonl:5" not in ending.err:
        raise Fault("silent", f"skipped without saying which: {ending.err[-200:]}")
    return "right"


def null_columns(room: Room) -> str:
    """Arrow fills the fields that a row lacks with null."""
    row = {"prompt": "a ", "completion": "film", "text": None, "messages": None, "label": None}
    return worked(made(room, "sft_completion", [*lines_of("sft_completion"), json.dumps(row)]))


def chat(*messages: dict[str, Any], **fields: Any) -> str:
    """A row of a conversation."""
    return json.dumps({"messages": list(messages), **fields}) + "\n"


USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "film"}


def text_parts(room: Room) -> str:
    """Content as a list of parts that are texts."""
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    return worked(made(room, "sft_messages", [*lines_of("sft_messages"), chat(parts, ANSWER)]))


def no_calls(room: Room) -> str:
    """An empty list of tool calls is no call."""
    answer = ANSWER | {"tool_calls": []}
    return worked(made(room, "sft_messages", [*lines_of("sft_messages"), chat(USER, answer)]))


def developer(room: Room) -> str:
    """The role `developer`: read, or refused with what to do."""
    first = {"role": "developer", "content": "be kind"}
    ending = made(room, "sft_messages", [*lines_of("sft_messages"), chat(first, USER, ANSWER)])
    return worked(ending) if ending.status == 0 else refused(ending, "developer")


def row_field(room: Room, *, field: str, value: Any) -> str:
    """A field beside the messages that a template would read: there is none, so it is refused."""
    line = chat(USER, ANSWER, **{field: value})
    return refused(made(room, "sft_messages", [*lines_of("sft_messages"), line]), field)


def said(room: Room, *, field: str) -> str:
    """A field of a message that a template would read: there is none, so it is refused."""
    line = chat(USER, ANSWER | {field: True if field == "prefix" else "x"})
    return refused(made(room, "sft_messages", [*lines_of("sft_messages"), line]), field)
