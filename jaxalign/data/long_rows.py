"""Rows of more tokens than the limit, cut so that they fit.

A prompt loses its beginning: the oldest turns of a conversation first, then the beginning of its
last message (a text loses its own); the system message and all that the chat template writes stay.
It keeps half of the limit where the answer needs the room, so that an answer is never without its
question; all answers to a prompt keep the same one. An answer loses its end, with the token that
ends it: nothing is learned about ending there. Of a solution in steps whole steps go, the last
first.
"""

import dataclasses
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxalign.data.chat import Messages, TokenRow, prompt_ids
from jaxalign.data.conversations import TextOrMessages
from jaxalign.data.records import Prompt, Record, Stepwise
from jaxalign.data.row_fields import BadRow
from jaxalign.data.tokenizer import Tokenizer

AnyRecord = TypeVar("AnyRecord", bound=Record)
ANSWERS = ("completion", "chosen", "rejected", "gold")
SYSTEM = ("system", "developer")


def cut_record(
    record: AnyRecord, tokenizer: Tokenizer, max_length: int
) -> tuple[AnyRecord, tuple[TokenRow, ...]]:
    """A record of too many tokens with a prompt (and steps) that fit, and its token rows.

    Answers are cut in the token rows alone.

    Args:
      record: of which a token row is longer than `max_length`.
      tokenizer: makes the tokens.
      max_length: tokens of a row, prompt and answer together; at least 2.

    Raises:
      BadRow: what may not be cut does not fit: a system message, a template, a first step.
    """
    rows = record.token_rows(tokenizer)
    asked = _prompt_length(record, rows)
    answers = max(len(row) for row in rows) - asked
    room = max(max_length - answers, max_length // 2)
    if asked > room:
        prompt = _cut_prompt(record, tokenizer, room)
        record = dataclasses.replace(record, prompt=prompt)
        rows = record.token_rows(tokenizer)
    if isinstance(record, Stepwise):
        return _cut_steps(record, rows[0], tokenizer, max_length)
    return record, tuple(_cut_answer(row, max_length, isinstance(record, Prompt)) for row in rows)


def without_far_ends(record: AnyRecord, allowed: int) -> AnyRecord:
    """The record without what no limit lets through, before anything is tokenised: the beginning
    of its prompt and the ends of its answers.

    Args:
      allowed: bytes of each field, more than `max_length` tokens can have.
    """
    fields: dict[str, Any] = {"prompt": _last_part(vars(record)["prompt"], allowed)}
    for name in ANSWERS:
        if name in vars(record):
            fields[name] = _first_part(vars(record)[name], allowed)
    if "responses" in vars(record):
        fields["responses"] = [_first_part(each, allowed) for each in vars(record)["responses"]]
    if isinstance(record, Stepwise):
        sizes = np.cumsum([len(step.encode()) for step in record.completions])
        kept = max(int(np.searchsorted(sizes, allowed, side="right")), 1)
        fields |= {"completions": record.completions[:kept], "labels": record.labels[:kept]}
    return dataclasses.replace(record, **fields)


def _prompt_length(record: Record, rows: Sequence[TokenRow]) -> int:
    """Number of tokens of the prompt that all rows begin with."""
    if isinstance(record, Prompt):
        return len(rows[0])
    return min(int(np.argmax(row.is_response)) for row in rows)


def _cut_answer(row: TokenRow, max_length: int, is_prompt: bool) -> TokenRow:
    """The first `max_length` tokens of a row."""
    cut = TokenRow(row.tokens[:max_length], row.is_response[:max_length])
    if len(cut) < len(row) and (is_prompt or not cut.is_response.any()):
        raise BadRow(f"no token of the answer stands within {max_length} tokens")
    return cut


def _cut_steps(
    record: Stepwise, row: TokenRow, tokenizer: Tokenizer, max_length: int
) -> tuple[Any, tuple[TokenRow, ...]]:
    """A solution with as many of its first steps as fit."""
    kept = int(row.is_response[:max_length].sum())
    if not kept:
        raise BadRow(f"the first step alone does not fit into {max_length} tokens")
    fewer = {"completions": record.completions[:kept], "labels": record.labels[:kept]}
    record = dataclasses.replace(record, **fewer)
    return record, record.token_rows(tokenizer)


def _cut_prompt(record: Record, tokenizer: Tokenizer, room: int) -> TextOrMessages:
    """The end of a record's prompt that makes at most `room` tokens."""
    fields = vars(record)
    variables = fields.get("variables", {})

    def fits(prompt: TextOrMessages) -> bool:
        return len(prompt_ids(prompt, tokenizer, variables=variables)) <= room

    if isinstance(fields["prompt"], str):
        return _longest_end(fields["prompt"], fits)
    messages = fields["prompt"]
    while not fits(messages):
        fewer = _without_oldest_turn(messages)
        if fewer is None:
            return _cut_last_message(messages, fits)
        messages = fewer
    return messages


def _without_oldest_turn(messages: Messages) -> list[dict[str, Any]] | None:
    """A conversation without its first message of the user and all up to the next; None where
    there is no next.
    """
    start = next((i for i, m in enumerate(messages) if m["role"] not in SYSTEM), len(messages))
    turns = [i for i in range(start + 1, len(messages)) if messages[i]["role"] == "user"]
    return [*map(dict, messages[:start]), *map(dict, messages[turns[0] :])] if turns else None


def _cut_last_message(messages: Messages, fits: Callable[[Any], bool]) -> list[dict[str, Any]]:
    """A conversation whose last message of the user has lost its beginning."""
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        raise BadRow("the messages before the answer are too long, and none is the user's")
    at = users[-1]

    def with_content(text: str) -> list[dict[str, Any]]:
        changed: list[Mapping[str, Any]] = list(messages)
        changed[at] = {**messages[at], "content": text}
        return [dict(message) for message in changed]

    return with_content(_longest_end(messages[at]["content"], lambda end: fits(with_content(end))))


def _longest_end(text: str, fits: Callable[[str], bool]) -> str:
    """The longest end of a text that fits, from the beginning of a word if one does."""
    for starts in ([word.start() for word in re.finditer(r"\S+", text)], range(len(text))):
        first = bisect_left(starts, True, key=lambda start: fits(text[start:]))
        if first < len(starts) and fits(text[starts[first] :]):
            return text[starts[first] :]
    raise BadRow("what stands around the question is too long by itself")


def _first_part(value: Any, allowed: int) -> Any:
    """Beginning of an answer of so many bytes: whole messages, or of the first one alone."""
    if isinstance(value, str):
        return value.encode()[:allowed].decode(errors="ignore")
    sizes = np.cumsum([len(message["content"].encode()) for message in value])
    kept = list(value[: int(np.searchsorted(sizes, allowed, side="right"))])
    while kept and kept[-1]["role"] != "assistant":
        kept.pop()
    return kept or [{**value[0], "content": _first_part(value[0]["content"], allowed)}]


def _last_part(value: Any, allowed: int) -> Any:
    """End of a prompt of so many bytes: without its oldest turns, or the end of its last."""
    if isinstance(value, str):
        return value.encode()[-allowed:].decode(errors="ignore")
    messages = list(value)
    while sum(len(message["content"].encode()) for message in messages) > allowed:
        fewer = _without_oldest_turn(messages)
        if fewer is None:
            break
        messages = fewer
    last = messages[-1]
    return [*messages[:-1], {**last, "content": _last_part(last["content"], allowed)}]
