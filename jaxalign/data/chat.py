"""Token ids of prompts and responses, with one BOS in front and one EOS behind.

A conversation is written by the tokenizer's chat template (`template_ids.py`). Without a template
it is plain text, a turn a paragraph:

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

from jaxalign.data.template_ids import NO_VARIABLES, Variables, templated_prompt, templated_response
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
    """A token sequence and which of its tokens are trained on.

    tokens: `[L]` int32 ids.
    is_response: `[L]` bool, true where a token is trained on.
    """

    tokens: np.ndarray
    is_response: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def key(self) -> bytes:
        """What tells its text from others: the tokens."""
        return self.tokens.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenRow) and (
            np.array_equal(self.tokens, other.tokens)
            and np.array_equal(self.is_response, other.is_response)
        )


def token_row(*parts: tuple[TokenIds, bool]) -> TokenRow:
    """Token sequence of `(ids, is_response)` parts, one behind the other."""
    tokens = np.array([i for ids, _ in parts for i in ids], np.int32)
    is_response = np.array([flag for ids, flag in parts for _ in ids], bool)
    return TokenRow(tokens, is_response)


def prompt_of(row: TokenRow) -> np.ndarray:
    """Ids of the tokens before the response."""
    return row.tokens[: int(np.argmax(row.is_response))]


def first_responses(row: TokenRow, count: int) -> TokenRow:
    """The same tokens, of which only the first `count` of the response are trained on."""
    return TokenRow(row.tokens, row.is_response & (np.cumsum(row.is_response) <= count))


def _plain(text: str, tokenizer: Tokenizer) -> str:
    """The text without a BOS at its start and an EOS at its end, which are added here."""
    bos = "" if tokenizer.bos_id is None else tokenizer.token(tokenizer.bos_id)
    return text.removeprefix(bos).removesuffix(tokenizer.token(tokenizer.eos_id))


def _plain_messages(messages: Messages, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The messages with plain contents."""
    return [{**m, "content": _plain(m["content"], tokenizer)} for m in messages]


def _consecutive_ids(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[int]]:
    """Ids of each of several consecutive texts, tokenized apart."""
    parts = []
    for text in texts:
        encode = tokenizer.encode_after if any(parts) else tokenizer.encode
        parts.append(encode(text))
    return parts


def _turns(messages: Messages, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """Text fragments of a conversation without a chat template, and whether each is an answer."""
    fragments = []
    for message in messages:
        role = message["role"]
        if role not in ROLES:
            raise UserError(f"no role {role!r}; there are {list(ROLES)}")
        _refuse_template_fields(message.keys() - {"role", "content"})
        content = _plain(message["content"], tokenizer)
        fragments += [(f"{ROLES[role]}:", False), (f" {content}\n", role == "assistant")]
    return fragments


def _refuse_template_fields(names: Iterable[str], field: str = "") -> None:
    """Refuse fields that only a chat template could read, where the tokenizer has none."""
    if more := sorted(names):
        place = f" ({field})" if field and more[0] != "tools" else ""
        raise UserError(
            f"{more[0]!r}{place} is for a chat template, and the tokenizer has none; take it out"
        )


def prompt_ids(
    prompt: str | Messages, tokenizer: Tokenizer, *, variables: Variables = NO_VARIABLES
) -> list[int]:
    """Token ids of a prompt: BOS, the text, and after a conversation the assistant's header.

    A chat template writes BOS and the header itself.

    The ids are the prompt part of what `response_row` makes, so a policy is sampled from what it
    was trained after.

    Args:
      prompt: a text, or a list of `{"role", "content"}`.
      tokenizer: with a chat template or without.
      variables: of the template, beside the messages: `tools`, `enable_thinking`.
    """
    if tokenizer.chat_template is not None and not isinstance(prompt, str):
        return templated_prompt(_plain_messages(prompt, tokenizer), tokenizer, variables=variables)
    _refuse_template_fields(variables, "chat_template_kwargs")
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if isinstance(prompt, str):
        return bos + tokenizer.encode(_plain(prompt, tokenizer))
    fragments = [*_turns(prompt, tokenizer), (f"{ROLES['assistant']}:", False)]
    return bos + [
        i for ids in _consecutive_ids([text for text, _ in fragments], tokenizer) for i in ids
    ]


def answer_text(prompt: str | Messages, response: str, tokenizer: Tokenizer) -> str:
    """Text of a sampled response, without the space that stands behind our own "Assistant:".

    A chat template's header holds all that stands before an answer.
    """
    is_own_format = tokenizer.chat_template is None and not isinstance(prompt, str)
    return response.removeprefix(" ") if is_own_format else response


def response_row(
    prompt: str | Messages,
    response: str | Messages,
    tokenizer: Tokenizer,
    *,
    variables: Variables = NO_VARIABLES,
) -> TokenRow:
    """Token sequence of BOS, prompt, response and EOS, of which the response is trained on.

    In a response of several turns only the assistant's messages are trained on.

    Args:
      prompt, response: both text, or both lists of `{"role", "content"}`; a response's first and
        last messages are the assistant's.
      tokenizer, variables: as in `prompt_ids`.
    """
    (row,) = response_rows(prompt, [response], tokenizer, variables=variables)
    return row


def response_rows(
    prompt: str | Messages,
    responses: Sequence[Any],
    tokenizer: Tokenizer,
    *,
    variables: Variables = NO_VARIABLES,
) -> tuple[TokenRow, ...]:
    """Token sequences of several responses to one prompt, which is tokenised once.

    A chat template writes prompt and response together, for every response.
    """
    for response in responses:
        _check_response(prompt, response)
    if isinstance(prompt, str) or tokenizer.chat_template is None:
        if not isinstance(prompt, str):
            _refuse_template_fields(variables, "chat_template_kwargs")
        start = prompt_ids(prompt, tokenizer)
        return tuple(_continuation_row(start, response, tokenizer) for response in responses)
    plain, *answers = [_plain_messages(part, tokenizer) for part in (prompt, *responses)]
    parts = (templated_response(plain, each, tokenizer, variables=variables) for each in answers)
    return tuple(token_row(*part) for part in parts)


def _check_response(prompt: str | Messages, response: str | Messages) -> None:
    """Refuse a response of another kind than the prompt, or that the assistant does not write."""
    if isinstance(response, str) != isinstance(prompt, str):
        raise UserError("one of prompt and response is text, the other a conversation")
    if isinstance(response, str):
        return
    if [response[0]["role"], response[-1]["role"]] != ["assistant", "assistant"]:
        raise UserError("a response begins and ends with the assistant")


def _continuation_row(start: list[int], response: str | Messages, tokenizer: Tokenizer) -> TokenRow:
    """Token sequence of a prompt's ids, a response that continues them, and EOS."""
    end = ([tokenizer.eos_id], True)
    if isinstance(response, str):
        has_text = len(start) > (tokenizer.bos_id is not None)
        encode = tokenizer.encode_after if has_text else tokenizer.encode
        row = token_row((start, False), (encode(_plain(response, tokenizer)), True), end)
        row.is_response[:1] = False  # without a BOS and a prompt nothing predicts the first token
        return row
    turns = _turns(response, tokenizer)[1:]  # the first cue ends the prompt
    turns[-1] = (turns[-1][0].removesuffix("\n"), turns[-1][1])
    parts = [(tokenizer.encode_after(text), flag) for text, flag in turns]
    return token_row((start, False), *parts, end)


def step_row(prompt: str, steps: Sequence[str], tokenizer: Tokenizer) -> TokenRow:
    """Token sequence of a solution in steps, of which the last token of each step is trained on.

    The line end is tokenized apart, so every step ends with the same token.
    """
    end = tokenizer.encode_after("\n")
    start = prompt_ids(prompt, tokenizer)
    row, has_text = [(start, False)], len(start) > (tokenizer.bos_id is not None)
    for step in steps:
        encode = tokenizer.encode_after if has_text else tokenizer.encode
        ids = encode(_plain(step, tokenizer))
        row += [(ids + end[:-1], False), (end[-1:], True)]
        has_text = has_text or bool(ids)
    return token_row(*row)


def text_row(text: str, tokenizer: Tokenizer) -> TokenRow:
    """Token sequence of a text that is all response; its prompt is BOS, or else its first token."""
    return response_row("", text, tokenizer)
