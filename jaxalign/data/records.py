"""The kinds of training example, made from a row of somebody's data or refused with a reason.

Field names and shapes are those that TRL documents
(https://huggingface.co/docs/trl/dataset_formats): text is either plain or a conversation, a list of
`{"role", "content"}`.
"""

import dataclasses
import itertools
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Self

from jaxalign.data.chat import (
    ROLES,
    TokenRow,
    prompt_ids,
    response_row,
    response_rows,
    step_row,
    token_row,
)
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.numerics.bounds import LARGEST
from jaxalign.system.files import shown

# Fields that belong to what is asked in other formats, and that nothing here reads.
UNREAD = (
    *("system", "history", "images", "documents", "functions", "enable_thinking"),
    "chat_template",
)
FIELDS = (
    *("prompt", "completion", "chosen", "rejected", "label", "text", "messages", "gold"),
    *("margin", "responses", "completions", "labels", "tools", "chat_template_kwargs"),
    *UNREAD,  # to hide them
)
# Fields of a message that would change what is learned, if they were read.
MEANT = ("weight", "train", "trainable", "training", "mask", "masked", "loss", "loss_weight")
# Calls of tools, which are not trained on; an empty one is none.
CALLS = ("tool_calls", "function_call")
# Fields of a message that number or date it: they have no effect.
NUMBERS = (
    *("id", "uuid", "message_id", "parent_id", "parent_message_id", "conversation_id"),
    *("timestamp", "created_at", "created", "create_time", "updated_at", "update_time", "date"),
)
# Variables of a chat template that are not a row's to give.
OURS = ("messages", "tools", "add_generation_prompt", "continue_final_message")
Said = str | list[dict[str, Any]]
Row = Mapping[str, Any]
LEVELS = 64  # of lists and objects within one another
CONVERSATION = re.compile(r"""\s*\[\s*\{\s*["'](role|content)["']\s*:""")


class BadRow(Exception):
    """Why a row cannot be used; the reader adds where it stands."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """`{"prompt"}`: what a policy is to answer.

    given: here and in the records below, what the row gives the chat template beside the messages:
      `tools`, and what is in `chat_template_kwargs`.
    """

    prompt: Said
    given: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        prompt = _prompt(row)
        return cls(prompt, given=_given(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """The prompt, one row."""
        ids = prompt_ids(self.prompt, tokenizer, given=self.given)
        return (token_row((ids, False)),)


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
        prompt = _prompt(row)
        return cls(prompt, columns, given=_given(row, prompt))


@dataclasses.dataclass(frozen=True)
class PromptCompletion:
    """`{"prompt", "completion"}`, or `{"text"}`, or `{"messages"}`: an answer to imitate.

    A text is all completion. Of messages, the completion begins with the assistant's first.
    """

    prompt: Said
    completion: Said
    given: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        if not _has(row, "completion") and _has(row, "text"):
            prompt, completion = "", _response(row, "text", "")
        elif not _has(row, "completion") and _has(row, "messages"):
            prompt, completion = _first_answer(_said(row, "messages"))
        else:
            prompt, completion = _prompt_and(row, "completion")
        return cls(prompt, completion, given=_given(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and completion, one row."""
        return (response_row(self.prompt, self.completion, tokenizer, given=self.given),)


@dataclasses.dataclass(frozen=True)
class Preference:
    """`{"prompt", "chosen", "rejected"}`: two answers, the first preferred.

    Without a "prompt" it is what both answers begin with (`shared_text`, `shared_messages`).
    """

    prompt: Said
    chosen: Said
    rejected: Said
    given: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        if _has(row, "prompt"):
            prompt, *sides = _prompt_and(row, "chosen", "rejected")
            if isinstance(row["prompt"], str) and not isinstance(prompt, str):
                prompt, *sides = _implicit(*(prompt + side for side in sides))
        else:
            prompt, *sides = _implicit(_said(row, "chosen"), _said(row, "rejected"))
            if not prompt and "prompt" in row:
                raise BadRow("prompt is null, and chosen and rejected begin with nothing in common")
        if _same(*sides):
            raise BadRow("chosen and rejected are the same")
        return cls(prompt, *sides, given=_given(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and chosen, prompt and rejected: two rows."""
        sides = (self.chosen, self.rejected)
        return response_rows(self.prompt, sides, tokenizer, given=self.given)


@dataclasses.dataclass(frozen=True)
class GoldPreference(Preference):
    """`{"prompt", "chosen", "rejected", "gold"}`: a preference and a best answer to imitate."""

    gold: Said

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        pair = Preference.parse(row)
        prompt, gold = _split("gold", pair.prompt, _said(row, "gold"))
        return cls(prompt, pair.chosen, pair.rejected, gold, given=pair.given)

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and chosen, prompt and rejected, prompt and gold: three rows."""
        sides = (self.chosen, self.rejected, self.gold)
        return response_rows(self.prompt, sides, tokenizer, given=self.given)


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
        margin = _number(row, "margin", high=LARGEST) if _has(row, "margin") else 0.0
        return cls(pair.prompt, pair.chosen, pair.rejected, margin, given=pair.given)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """`{"prompt", "responses"}`: two or more different answers, the best first, no ties.

    Rows may have different numbers of answers.
    """

    prompt: Said
    responses: list[Said]
    given: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        parts = _parts(row, "responses", "of answers, the best first")
        if len(parts) < 2:
            raise BadRow(f"responses has {len(parts)} answers; a ranking takes two or more")
        prompt, *responses = _prompt_and({"prompt": _present(row, "prompt"), **parts}, *parts)
        for (one, first), (two, second) in itertools.combinations(enumerate(responses), 2):
            if _same(first, second):
                raise BadRow(f"responses[{one}] and responses[{two}] are the same")
        return cls(prompt, responses, given=_given(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and answer, a row for each answer."""
        return response_rows(self.prompt, self.responses, tokenizer, given=self.given)


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
        _given(row, prompt)
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
    given: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """The record of a row, or BadRow with the reason."""
        prompt, completion = _prompt_and(row, "completion")
        label = _present(row, "label")
        if not isinstance(label, bool | int) or label not in (0, 1):
            raise BadRow(f"label is {_shown(label)}, wanted true or false")
        return cls(prompt, completion, bool(label), given=_given(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and completion, one row."""
        return (response_row(self.prompt, self.completion, tokenizer, given=self.given),)


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


def shared_messages(chosen: list[dict[str, Any]], rejected: list[dict[str, Any]]) -> int:
    """How many leading messages are the prompt: those both share, up to an answer on both sides."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    for count in range(min(shared, len(chosen) - 1, len(rejected) - 1), 0, -1):
        if chosen[count]["role"] == rejected[count]["role"] == "assistant":
            return count
    raise BadRow("chosen and rejected share no message that both go on to answer")


def check_depth(value: Any) -> None:
    """Lists and objects may stand within one another, but not thousands deep: what handles them
    later goes down step by step.

    Raises:
      BadRow: they are too deep.
    """
    level: list[Any] = [value]
    for _ in range(LEVELS):
        inner = itertools.chain.from_iterable(
            part.values() if isinstance(part, dict) else part
            for part in level
            if isinstance(part, dict | list)
        )
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return
    raise BadRow(f"nested more than {LEVELS} levels deep")


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


def _prompt_and(row: Row, *fields: str) -> tuple[Any, ...]:
    """The prompt and answers to it, which may repeat it if they are conversations."""
    prompt = _prompt(row, may_be_empty=True)
    found = [_split(field, prompt, _said(row, field)) for field in fields]
    if any(before != found[0][0] for before, _ in found):
        raise BadRow(f"{fields[0]} and another answer go on from different messages")
    return found[0][0], *(answer for _, answer in found)


def _split(field: str, prompt: Said, said: Said) -> tuple[Said, Said]:
    """The prompt and an answer to it.

    An answer that repeats a conversation begins with the messages of the prompt, or with messages
    of which the last is the prompt's text, said by the user.
    """
    if isinstance(prompt, str) and isinstance(said, str):
        return prompt, _answer(field, said)
    if isinstance(said, str):
        raise BadRow(
            f"prompt is a conversation, but {field} is text; "
            f'write it as [{{"role": "assistant", "content": ...}}]'
        )
    if isinstance(prompt, list):
        repeated = said[: len(prompt)] == prompt
        return prompt, _answer(field, said[len(prompt) :] if repeated else said)
    asked = [i for i, message in enumerate(said) if message["role"] == "user"]
    for i in asked:
        if said[i]["content"].strip() == prompt.strip() and i + 1 < len(said):
            return said[: i + 1], _answer(field, said[i + 1 :])
    hide = ', or hide it with --data.fields prompt ""' if asked else ""
    raise BadRow(
        f"prompt is text, but {field} is a conversation that does not repeat it; write the prompt "
        f'as [{{"role": "user", "content": ...}}]{hide}'
    )


def _given(row: Row, prompt: Said) -> dict[str, Any]:
    """What the row gives the chat template beside the messages."""
    given: dict[str, Any] = {}
    if lost := [name for name in UNREAD if row.get(name) not in (None, "", [], {})]:
        place = "chat_template_kwargs" if lost[0] == "enable_thinking" else "the prompt"
        raise BadRow(
            f"{lost[0]} is not read; write what the model needs of it into {place}, or hide it "
            f'with --data.fields {lost[0]} ""'
        )
    if not _has(row, "chat_template_kwargs") and not _has(row, "tools"):
        return given
    if _has(row, "chat_template_kwargs"):
        wanted = 'an object, {"enable_thinking": false} say'
        variables = _written(row, "chat_template_kwargs", dict, wanted)
        if ours := [v for v in map(str, variables) if v in OURS or v.endswith("_token")]:
            raise BadRow(f"chat_template_kwargs has {ours[0]!r}, which is not a row's to give")
        given |= {str(name): v for name, v in variables.items() if v is not None}
    if _has(row, "tools") and (tools := _written(row, "tools", list, "a list of tools")):
        if not all(isinstance(tool, dict) for tool in tools):
            raise BadRow("tools holds something that is no object")
        given["tools"] = tools
    if given and isinstance(prompt, str):
        name = "tools" if "tools" in given else "chat_template_kwargs"
        raise BadRow(f"{name} is for conversations, and this row's prompt is text; take it out")
    _check_texts(given, "tools or chat_template_kwargs")
    return given


def _written(row: Row, field: str, kind: type, wanted: str) -> Any:
    """A value, or the JSON text of one, as tables that have no such columns hold it."""
    value = row[field]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = row[field]
    if not isinstance(value, kind):
        raise BadRow(f"{field} is {_shown(value)}, wanted {wanted}")
    check_depth(value)
    return value


def _check_texts(value: Any, field: str) -> None:
    """What goes to a template must be JSON and Unicode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRow(f"{field} holds half a surrogate pair: invalid Unicode") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"{field} is not JSON: {error}") from None


def _has(row: Row, field: str) -> bool:
    """Whether the row says something there: tables fill what is absent with null."""
    return row.get(field) is not None


def _present(row: Row, field: str) -> Any:
    if field not in row:
        raise BadRow(f"no {field!r}; the row has {sorted(row)[:20]}")
    if row[field] is None:
        raise BadRow(f"{field} is null")
    return row[field]


def _said(row: Row, field: str) -> Said:
    """A field that is text or a conversation."""
    value = _present(row, field)
    if isinstance(value, str):
        if CONVERSATION.match(value) and value.rstrip().endswith("]"):
            raise BadRow(f"{field} is a list of messages written as a text; write the list itself")
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


def _message(field: str, message: Any) -> dict[str, Any]:
    """The fields of a message that have an effect; `content` is made one text."""
    if not isinstance(message, Mapping):
        raise BadRow(f'{field} is {_shown(message)}, wanted {{"role", "content"}}')
    if {"from", "value"} <= message.keys():
        raise BadRow(f'{field} has "from" and "value"; call them "role" and "content"')
    role, content = _present(message, "role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f"{field} has role {_shown(role)}, wanted one of {list(ROLES)}")
    rest = {} if message.keys() == {"role", "content"} else _rest(field, message)
    return {"role": role, "content": _text(field, _content(field, content)), **rest}


def _rest(field: str, message: Row) -> dict[str, Any]:
    """What a message has besides role and content, for the chat template."""
    if calls := [name for name in CALLS if message.get(name)]:
        raise BadRow(f"{field} has {calls[0]!r}: calls of tools are not read; take it out")
    if meant := [name for name in MEANT if _has(message, name)]:
        raise BadRow(f"{field} has {meant[0]!r}, which is not read; take it out of the row")
    if message.get("prefix"):
        raise BadRow(f"{field} has 'prefix': an answer that is to be continued is none to learn")
    done = ("role", "content", "prefix", *CALLS, *NUMBERS)
    rest = {name: v for name, v in message.items() if v is not None and name not in done}
    _check_texts(rest, field)
    return rest


def _content(field: str, content: Any) -> str:
    """A text, or a list of texts as models of several kinds of input have it: `[{"type": "text",
    "text": ...}]`, which are joined.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise BadRow(f"{field} has content {_shown(content)}, wanted text")
    texts = []
    for part in content:
        here = {k: v for k, v in part.items() if v is not None} if isinstance(part, dict) else {}
        if here.get("type", "text") != "text":
            raise BadRow(f"{field} has content of type {_shown(here['type'])}; only text is read")
        if not here.keys() <= {"type", "text"} or not isinstance(here.get("text"), str):
            raise BadRow(f"{field} has content {_shown(part)}, wanted {{'type': 'text', 'text'}}")
        texts.append(here["text"])
    return "".join(texts)


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
    def normal(said: Any) -> Any:
        if isinstance(said, str):
            return unicodedata.normalize("NFC", said).strip()
        if isinstance(said, Mapping):
            return {name: normal(value) for name, value in said.items()}
        return [normal(part) for part in said] if isinstance(said, list) else said

    return normal(chosen) == normal(rejected)


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, str | float) else shown(value).strip("'")
    return f"{text[:40]!r} ({type(value).__name__})"
