"""The kinds of training example, made from a row of somebody's data or refused with a reason.

Field names and shapes are those that TRL documents
(https://huggingface.co/docs/trl/dataset_formats): text is either plain or a conversation, a list of
`{"role", "content"}`.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Mapping
from typing import Any, Self

from jaxalign.bounds import LARGEST
from jaxalign.data.chat import ROLES, TokenRow, prompt_ids, response_row, step_row, token_row
from jaxalign.data.tokenizer import Tokenizer

FIELDS = (
    *("prompt", "completion", "chosen", "rejected", "label", "text", "messages", "gold"),
    *("margin", "responses", "completions", "labels"),
)
# Keys of a message that would change what is learned or written, if they were read.
MEANT = ("weight", "tool_calls", "function_call", "reasoning_content", "thinking")
Said = str | list[dict[str, str]]
Row = Mapping[str, Any]


class BadRow(Exception):
    """Why a row cannot be used; the reader adds where it stands."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """`{"prompt"}`: what a policy is to answer."""

    prompt: Said

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        return cls(_prompt(row))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """The prompt, one row."""
        return (token_row((prompt_ids(self.prompt, tokenizer), False)),)


@dataclasses.dataclass(frozen=True)
class PromptRow(Prompt):
    """`{"prompt", ...}`: the same with the other fields of the row as they are, for functions that
    judge answers.
    """

    columns: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        columns = {field: value for field, value in row.items() if field != "prompt"}
        return cls(_prompt(row), columns)


@dataclasses.dataclass(frozen=True)
class PromptCompletion:
    """`{"prompt", "completion"}`, or `{"text"}`, or `{"messages"}`: an answer to imitate.

    A text is all completion. Of messages, the completion begins with the assistant's first.
    """

    prompt: Said
    completion: Said

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        if "completion" not in row and "text" in row:
            return cls("", _response(row, "text", ""))
        if "completion" not in row and "messages" in row:
            return cls(*_first_answer(_said(row, "messages")))
        prompt = _prompt(row, may_be_empty=True)
        return cls(prompt, _response(row, "completion", prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and completion, one row."""
        return (response_row(self.prompt, self.completion, tokenizer),)


@dataclasses.dataclass(frozen=True)
class Preference:
    """`{"prompt", "chosen", "rejected"}`: two answers, the first preferred.

    Without a "prompt" it is what both answers begin with (`shared_text`, `shared_messages`).
    """

    prompt: Said
    chosen: Said
    rejected: Said

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        if "prompt" in row:
            prompt = _prompt(row, may_be_empty=True)
            sides = _response(row, "chosen", prompt), _response(row, "rejected", prompt)
        else:
            prompt, *sides = _implicit(_said(row, "chosen"), _said(row, "rejected"))
        if _same(*sides):
            raise BadRow("chosen and rejected are the same")
        return cls(prompt, *sides)

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and chosen, prompt and rejected: two rows."""
        sides = (self.chosen, self.rejected)
        return tuple(response_row(self.prompt, side, tokenizer) for side in sides)


@dataclasses.dataclass(frozen=True)
class GoldPreference(Preference):
    """`{"prompt", "chosen", "rejected", "gold"}`: a preference and a best answer to imitate."""

    gold: Said

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        pair = Preference.parse(row)
        return cls(pair.prompt, pair.chosen, pair.rejected, _response(row, "gold", pair.prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and chosen, prompt and rejected, prompt and gold: three rows."""
        return *super().token_rows(tokenizer), response_row(self.prompt, self.gold, tokenizer)


@dataclasses.dataclass(frozen=True)
class MarginPreference(Preference):
    """`{"prompt", "chosen", "rejected", "margin"}`: by how much the chosen answer should score
    higher, in the units of the trained scores; a row without has 0.
    """

    margin: float

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        pair = Preference.parse(row)
        margin = _number(row, "margin", high=LARGEST) if "margin" in row else 0.0
        return cls(pair.prompt, pair.chosen, pair.rejected, margin)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """`{"prompt", "responses"}`: two or more different answers, the best first, no ties.

    Rows may have different numbers of answers.
    """

    prompt: Said
    responses: list[Said]

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        prompt = _prompt(row, may_be_empty=True)
        parts = _parts(row, "responses", "of answers, the best first")
        if len(parts) < 2:
            raise BadRow(f"responses has {len(parts)} answers; a ranking takes two or more")
        responses = [_response(parts, name, prompt) for name in parts]
        for (one, first), (two, second) in itertools.combinations(enumerate(responses), 2):
            if _same(first, second):
                raise BadRow(f"responses[{one}] and responses[{two}] are the same")
        return cls(prompt, responses)

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and answer, a row for each answer."""
        return tuple(response_row(self.prompt, answer, tokenizer) for answer in self.responses)


@dataclasses.dataclass(frozen=True)
class Stepwise:
    """`{"prompt", "completions", "labels"}`: the steps of a solution and whether each is right.

    All text; a label is true or false, or a number in [0, 1] (a share of continuations, say).
    """

    prompt: str
    completions: list[str]
    labels: list[float]

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        prompt = _prompt(row, may_be_empty=True)
        if not isinstance(prompt, str):
            raise BadRow("prompt is a conversation; steps follow a text")
        steps = _parts(row, "completions", "of steps")
        if not steps:
            raise BadRow("completions has no steps")
        labels = _parts(row, "labels", "of a label for each step")
        if len(labels) != len(steps):
            raise BadRow(f"{len(steps)} completions, but {len(labels)} labels")
        texts: Any = [_response(steps, name, prompt) for name in steps]
        return cls(prompt, texts, [_number(labels, name, high=1) for name in labels])

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and steps, one row, in which the last token of each step is marked."""
        return (step_row(self.prompt, self.completions, tokenizer),)


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """`{"prompt", "completion", "label"}`: an answer and whether it was good."""

    prompt: Said
    completion: Said
    label: bool

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        prompt = _prompt(row, may_be_empty=True)
        label = _present(row, "label")
        if label not in (0, 1) or not isinstance(label, bool | int):
            raise BadRow(f"label is {_shown(label)}, wanted true or false")
        return cls(prompt, _response(row, "completion", prompt), bool(label))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and completion, one row."""
        return (response_row(self.prompt, self.completion, tokenizer),)


Record = Prompt | PromptCompletion | Preference | Unpaired | Ranking | Stepwise


def shared_text(chosen: str, rejected: str) -> str:
    """What both texts begin with, up to the end of a word and with something left of both.

    >>> shared_text("The sky is blue.", "The sky is black.")
    'The sky is'
    """
    shared = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        shared += 1
    for cut in range(min(shared, len(chosen) - 1, len(rejected) - 1), 0, -1):
        word_ends = (
            chosen[cut].isspace() and rejected[cut].isspace() and not chosen[cut - 1].isspace()
        )
        if word_ends and chosen[cut:].strip() and rejected[cut:].strip():
            return chosen[:cut]
    return ""


def shared_messages(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> int:
    """How many leading messages are the prompt: those both share, up to an answer on both sides."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    for count in range(min(shared, len(chosen) - 1, len(rejected) - 1), 0, -1):
        if chosen[count]["role"] == rejected[count]["role"] == "assistant":
            return count
    raise BadRow("chosen and rejected share no message that both go on to answer")


def _implicit(chosen: Said, rejected: Said) -> tuple[Said, Said, Said]:
    if isinstance(chosen, str) and isinstance(rejected, str):
        cut = len(shared_text(chosen, rejected))
    elif isinstance(chosen, list) and isinstance(rejected, list):
        cut = shared_messages(chosen, rejected)
    else:
        raise BadRow("one of chosen and rejected is text, the other a conversation")
    sides = _answer("chosen", chosen[cut:]), _answer("rejected", rejected[cut:])
    return chosen[:cut], *sides


def _first_answer(messages: Said) -> tuple[Said, Said]:
    if isinstance(messages, str):
        raise BadRow('messages is text, wanted a list of {"role", "content"}')
    roles = [message["role"] for message in messages]
    if "assistant" not in roles[1:] or roles[0] == "assistant":
        raise BadRow("messages hold no answer of the assistant to something")
    cut = roles.index("assistant")
    return messages[:cut], _answer("messages", messages[cut:])


def _present(row: Row, field: str) -> Any:
    if field not in row:
        raise BadRow(f"no {field!r}; the row has {sorted(row)}")
    if row[field] is None:
        raise BadRow(f"{field} is null")
    return row[field]


def _said(row: Row, field: str) -> Said:
    """A field that is text or a conversation."""
    value = _present(row, field)
    if isinstance(value, str):
        return _text(field, value)
    if not isinstance(value, list):
        raise BadRow(f'{field} is {_shown(value)}, wanted text or a list of {{"role", "content"}}')
    if not value:
        raise BadRow(f"{field} has no messages")
    return [_message(f"{field}[{i}]", message) for i, message in enumerate(value)]


def _parts(row: Row, field: str, what: str) -> dict[str, Any]:
    """The entries of a list under the names that errors call them by: `{"labels[0]": True}`."""
    value = _present(row, field)
    if not isinstance(value, list):
        raise BadRow(f"{field} is {_shown(value)}, wanted a list {what}")
    return {f"{field}[{i}]": part for i, part in enumerate(value)}


def _number(row: Row, field: str, *, high: float) -> float:
    """A number in [0, high]; up to 1 it is a label and may be true or false."""
    value = _present(row, field)
    label = high == 1
    known = isinstance(value, int | float) and (label or not isinstance(value, bool))
    if not known or not 0 <= value <= high:
        wanted = "true, false or a number in [0, 1]" if label else f"a number from 0 to {high:,.0f}"
        raise BadRow(f"{field} is {_shown(value)}, wanted {wanted}")
    return float(value)


def _message(field: str, message: Any) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise BadRow(f'{field} is {_shown(message)}, wanted {{"role", "content"}}')
    role, content = _present(message, "role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f"{field} has role {_shown(role)}, wanted one of {list(ROLES)}")
    if meant := [name for name in MEANT if message.get(name) is not None]:
        raise BadRow(f"{field} has {meant[0]!r}, which is not read; take it out of the row")
    if not isinstance(content, str):
        raise BadRow(f"{field} has content {_shown(content)}, wanted text")
    return {"role": role, "content": _text(field, content)}


def _text(field: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{field} holds half a surrogate pair: invalid Unicode") from None
    return text


def _prompt(row: Row, *, may_be_empty: bool = False) -> Said:
    prompt = _said(row, "prompt")
    if isinstance(prompt, str):
        if not prompt.strip() and not may_be_empty:
            raise BadRow("prompt is empty")
    elif prompt[-1]["role"] == "assistant":
        raise BadRow("prompt ends with the assistant: nothing is left to answer")
    return prompt


def _response(row: Row, field: str, prompt: Said) -> Said:
    response = _said(row, field)
    if isinstance(response, str) != isinstance(prompt, str):
        kinds = ["a conversation", "text"]
        raise BadRow(
            f"prompt is {kinds[isinstance(prompt, str)]}, "
            f"but {field} is {kinds[isinstance(response, str)]}"
        )
    return _answer(field, response)


def _answer(field: str, response: Said) -> Said:
    """A response has something in it; a conversation's begins and ends with the assistant."""
    if isinstance(response, str):
        if not response.strip():
            raise BadRow(f"{field} is empty")
        return response
    if not response or not response[0]["role"] == response[-1]["role"] == "assistant":
        raise BadRow(f"the answer in {field} must begin and end with the assistant")
    if any(m["role"] == "assistant" and not m["content"].strip() for m in response):
        raise BadRow(f"{field} has an empty answer")
    return response


def _same(chosen: Said, rejected: Said) -> bool:
    def normal(said: Said) -> list[str]:
        texts = [said] if isinstance(said, str) else [part for m in said for part in m.values()]
        return [unicodedata.normalize("NFC", text).strip() for text in texts]

    return normal(chosen) == normal(rejected)


def _shown(value: Any) -> str:
    return f"{str(value)[:40]!r} ({type(value).__name__})"
