"""Prompts and responses to token ids: one BOS in front, one EOS behind, whatever the text says.

A conversation is written by the tokenizer's chat template (`templated.py`). Where it has none, it
is plain text, a turn a paragraph:

    User: What is 2 + 2?
    Assistant: 4

A text that is no conversation is itself, with or without a template. Prompt and response are
tokenized apart and then joined, so the ids that are trained on are those that sampling after the
prompt can produce; no text is ever decoded and tokenized again. A response goes on from its prompt:
a tokenizer that puts a space before texts puts none before it.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.templated import NOTHING, Given, templated_prompt, templated_response
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError

TokenIds = Sequence[int] | np.ndarray  # of one text
Messages = Sequence[Mapping[str, Any]]
ROLES = {
    **{"system": "System", "developer": "Developer", "user": "User", "assistant": "Assistant"},
    "tool": "Tool",
}


@dataclasses.dataclass(frozen=True, eq=False)
class TokenRow:
    """One sequence: `tokens` `[L]` int32 and `is_response` `[L]` bool, true where it is trained
    on.
    """

    tokens: np.ndarray
    is_response: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenRow) and (
            np.array_equal(self.tokens, other.tokens)
            and np.array_equal(self.is_response, other.is_response)
        )


def token_row(*parts: tuple[TokenIds, bool]) -> TokenRow:
    """Joins `(ids, is_response)` parts."""
    tokens = np.array([i for ids, _ in parts for i in ids], np.int32)
    is_response = np.array([flag for ids, flag in parts for _ in ids], bool)
    return TokenRow(tokens, is_response)


def prompt_of(row: TokenRow) -> np.ndarray:
    """What stands before the response."""
    return row.tokens[: int(np.argmax(row.is_response))]


def first_responses(row: TokenRow, count: int) -> TokenRow:
    """The same tokens, of whose response only the first `count` are trained on."""
    return TokenRow(row.tokens, row.is_response & (np.cumsum(row.is_response) <= count))


def _plain(text: str, tokenizer: Tokenizer) -> str:
    """The text without a BOS or EOS that somebody already wrote into it."""
    bos = "" if tokenizer.bos_id is None else tokenizer.token(tokenizer.bos_id)
    return text.removeprefix(bos).removesuffix(tokenizer.token(tokenizer.eos_id))


def _plain_messages(messages: Messages, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return [{**m, "content": _plain(m["content"], tokenizer)} for m in messages]


def _joined(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """The ids of texts that follow each other, tokenized apart."""
    parts = []
    for text in texts:
        encode = tokenizer.encode_after if any(parts) else tokenizer.encode
        parts.append(encode(text))
    return parts


def _turns(messages: Messages, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """Text fragments of a conversation; true where the assistant speaks."""
    fragments = []
    for message in messages:
        role = message["role"]
        if role not in ROLES:
            raise UserError(f"no role {role!r}; there are {list(ROLES)}")
        _check_nothing_more(message.keys() - {"role", "content"})
        said = _plain(message["content"], tokenizer)
        fragments += [(f"{ROLES[role]}:", False), (f" {said}\n", role == "assistant")]
    return fragments


def _check_nothing_more(names: Iterable[str], field: str = "") -> None:
    if more := sorted(names):
        place = f" ({field})" if field and more[0] != "tools" else ""
        raise UserError(
            f"{more[0]!r}{place} is for a chat template, and the tokenizer has none; take it out"
        )


def prompt_ids(
    prompt: str | Messages, tokenizer: Tokenizer, *, given: Given = NOTHING
) -> list[int]:
    """BOS and the prompt; after a conversation, the cue that it is the assistant's turn.

    A chat template writes BOS and the cue itself.

    The ids are the prompt part of what `response_row` makes, so a policy is sampled from what it
    was trained after.

    Args:
      prompt: a text, or a list of `{"role", "content"}`.
      tokenizer: with a chat template or without.
      given: what the row gives the template beside the messages: `tools`, `enable_thinking`.
    """
    if tokenizer.chat_template is not None and not isinstance(prompt, str):
        return templated_prompt(_plain_messages(prompt, tokenizer), tokenizer, given=given)
    _check_nothing_more(given, "chat_template_kwargs")
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if isinstance(prompt, str):
        return bos + tokenizer.encode(_plain(prompt, tokenizer))
    fragments = [*_turns(prompt, tokenizer), (f"{ROLES['assistant']}:", False)]
    return bos + [i for ids in _joined([text for text, _ in fragments], tokenizer) for i in ids]


def answer_text(prompt: str | Messages, response: str, tokenizer: Tokenizer) -> str:
    """What a sampled response says: after a conversation that we write ourselves, without the space
    that stands behind the cue. A chat template's header holds all that stands before an answer.
    """
    ours = tokenizer.chat_template is None and not isinstance(prompt, str)
    return response.removeprefix(" ") if ours else response


def response_row(
    prompt: str | Messages,
    response: str | Messages,
    tokenizer: Tokenizer,
    *,
    given: Given = NOTHING,
) -> TokenRow:
    """BOS, prompt, response, EOS. In a response of several turns only the assistant's are trained
    on.

    Args:
      prompt, response: both text, or both lists of `{"role", "content"}`; a response's first and
        last messages are the assistant's.
      tokenizer, given: as in `prompt_ids`.
    """
    (row,) = response_rows(prompt, [response], tokenizer, given=given)
    return row


def response_rows(
    prompt: str | Messages,
    responses: Sequence[Any],
    tokenizer: Tokenizer,
    *,
    given: Given = NOTHING,
) -> tuple[TokenRow, ...]:
    """`response_row` of several responses to one prompt, which is tokenised once; but a chat
    template writes prompt and response together, for every response.
    """
    for response in responses:
        _check_response(prompt, response)
    if isinstance(prompt, str) or tokenizer.chat_template is None:
        if not isinstance(prompt, str):
            _check_nothing_more(given, "chat_template_kwargs")
        start = prompt_ids(prompt, tokenizer)
        return tuple(_continued(start, response, tokenizer) for response in responses)
    said = [_plain_messages(part, tokenizer) for part in (prompt, *responses)]
    parts = (templated_response(said[0], answer, tokenizer, given=given) for answer in said[1:])
    return tuple(token_row(*part) for part in parts)


def _check_response(prompt: str | Messages, response: str | Messages) -> None:
    if isinstance(response, str) != isinstance(prompt, str):
        raise UserError("one of prompt and response is text, the other a conversation")
    if isinstance(response, str):
        return
    if [response[0]["role"], response[-1]["role"]] != ["assistant", "assistant"]:
        raise UserError("a response begins and ends with the assistant")


def _continued(start: list[int], response: str | Messages, tokenizer: Tokenizer) -> TokenRow:
    """The ids of a prompt, a response that goes on from them, and EOS."""
    end = ([tokenizer.eos_id], True)
    if isinstance(response, str):
        begun = len(start) > (tokenizer.bos_id is not None)
        encode = tokenizer.encode_after if begun else tokenizer.encode
        row = token_row((start, False), (encode(_plain(response, tokenizer)), True), end)
        row.is_response[:1] = False  # without a BOS and a prompt nothing predicts the first token
        return row
    turns = _turns(response, tokenizer)[1:]  # the first cue ends the prompt
    turns[-1] = (turns[-1][0].removesuffix("\n"), turns[-1][1])
    said = [(tokenizer.encode_after(text), flag) for text, flag in turns]
    return token_row((start, False), *said, end)


def step_row(prompt: str, steps: Sequence[str], tokenizer: Tokenizer) -> TokenRow:
    """BOS, prompt, and every step with a line end behind it; trained on is the last token of each.

    The line end is tokenized apart, so every step ends with the same token.
    """
    end = tokenizer.encode_after("\n")
    start = prompt_ids(prompt, tokenizer)
    row, begun = [(start, False)], len(start) > (tokenizer.bos_id is not None)
    for step in steps:
        encode = tokenizer.encode_after if begun else tokenizer.encode
        ids = encode(_plain(step, tokenizer))
        row += [(ids + end[:-1], False), (end[-1:], True)]
        begun = begun or bool(ids)
    return token_row(*row)


def text_row(text: str, tokenizer: Tokenizer) -> TokenRow:
    """A plain text that is all response: BOS is the prompt, or else its first token."""
    return response_row("", text, tokenizer)
