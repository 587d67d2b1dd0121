"""Training examples, one class a kind, parsed from a row of a user's data or refused with a reason.

Field names and shapes are those that TRL documents
(https://huggingface.co/docs/trl/dataset_formats): text is either plain or a conversation, a list of
`{"role", "content"}`.
"""

import dataclasses
import itertools
from typing import Any, Self

from jaxalign.data.chat import (
    TokenRow,
    prompt_ids,
    response_row,
    response_rows,
    step_row,
    token_row,
)
from jaxalign.data.conversations import (
    TextOrMessages,
    equal_up_to_spaces,
    prompt_field,
    response_field,
    text_or_messages,
)
from jaxalign.data.prompts_and_responses import (
    prompt_and_completion,
    prompt_and_response,
    prompt_and_responses,
    prompt_chosen_rejected,
)
from jaxalign.data.row_fields import (
    BadRow,
    Row,
    bounded_number,
    has_value,
    list_entries,
    required_value,
    short_repr,
)
from jaxalign.data.template_variables import UNREAD_FIELDS, template_variables
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.numerics.bounds import LARGEST

CONVERSATIONS = ("messages", "conversations")  # fields that hold a whole conversation
FIELDS = (
    *("prompt", "completion", "chosen", "rejected", "label", "text", *CONVERSATIONS, "gold"),
    *("margin", "responses", "completions", "labels", "tools", "chat_template_kwargs"),
    *UNREAD_FIELDS,  # to hide them
)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt for a policy: `{"prompt"}`.

    variables: here and in the records below, what the row gives the chat template beside the
      messages: `tools`, and what is in `chat_template_kwargs`.
    """

    prompt: TextOrMessages
    variables: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        prompt = prompt_field(row)
        return cls(prompt, variables=template_variables(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """The prompt, one row."""
        ids = prompt_ids(self.prompt, tokenizer, variables=self.variables)
        return (token_row((ids, False)),)


@dataclasses.dataclass(frozen=True)
class PromptRow(Prompt):
    """A prompt with the other fields of its row, which reward functions read: `{"prompt", ...}`."""

    columns: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        columns = {field: value for field, value in row.items() if field != "prompt"}
        prompt = prompt_field(row)
        return cls(prompt, columns, variables=template_variables(row, prompt))


@dataclasses.dataclass(frozen=True)
class PromptCompletion:
    """A demonstration: `{"prompt", "completion"}`, or `{"text"}`, or `{"messages"}`, which
    ShareGPT calls `conversations`.

    A text is all completion. Of messages, the completion begins with the assistant's first.
    """

    prompt: TextOrMessages
    completion: TextOrMessages
    variables: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        known = [name for name in ("completion", "text", *CONVERSATIONS) if has_value(row, name)]
        if known[:1] == ["text"]:
            prompt, completion = "", response_field(row, "text", "")
        elif known and known[0] in CONVERSATIONS:
            prompt, completion = prompt_and_completion(text_or_messages(row, known[0]))
        else:
            prompt, completion = prompt_and_responses(row, "completion")
        return cls(prompt, completion, variables=template_variables(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and completion, one row."""
        return (response_row(self.prompt, self.completion, tokenizer, variables=self.variables),)


@dataclasses.dataclass(frozen=True)
class Preference:
    """A preference between two responses: `{"prompt", "chosen", "rejected"}`.

    Without a "prompt" it is what both responses begin with (`shared_text`, `shared_messages`).
    """

    prompt: TextOrMessages
    chosen: TextOrMessages
    rejected: TextOrMessages
    variables: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        if has_value(row, "prompt"):
            prompt, *sides = prompt_and_responses(row, "chosen", "rejected")
            if isinstance(row["prompt"], str) and not isinstance(prompt, str):
                prompt, *sides = prompt_chosen_rejected(*(prompt + side for side in sides))
        else:
            prompt, *sides = prompt_chosen_rejected(
                text_or_messages(row, "chosen"), text_or_messages(row, "rejected")
            )
            if not prompt and "prompt" in row:
                raise BadRow("prompt is null, and chosen and rejected begin with nothing in common")
        if equal_up_to_spaces(*sides):
            raise BadRow("chosen and rejected are the same")
        return cls(prompt, *sides, variables=template_variables(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and chosen, prompt and rejected: two rows."""
        sides = (self.chosen, self.rejected)
        return response_rows(self.prompt, sides, tokenizer, variables=self.variables)


@dataclasses.dataclass(frozen=True)
class GoldPreference(Preference):
    """A preference with a gold response to imitate: `{"prompt", "chosen", "rejected", "gold"}`."""

    gold: TextOrMessages

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        pair = Preference.parse(row)
        prompt, gold = prompt_and_response("gold", pair.prompt, text_or_messages(row, "gold"))
        return cls(prompt, pair.chosen, pair.rejected, gold, variables=pair.variables)

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and chosen, prompt and rejected, prompt and gold: three rows."""
        sides = (self.chosen, self.rejected, self.gold)
        return response_rows(self.prompt, sides, tokenizer, variables=self.variables)


@dataclasses.dataclass(frozen=True)
class MarginPreference(Preference):
    """A preference with a margin of scores: `{"prompt", "chosen", "rejected", "margin"}`.

    margin: by how much the chosen response should score higher, in the units of the scores; 0 or
      more, and 0 for a row without one.
    """

    margin: float

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        pair = Preference.parse(row)
        margin = bounded_number(row, "margin", high=LARGEST) if has_value(row, "margin") else 0.0
        return cls(
            pair.prompt,
            pair.chosen,
            pair.rejected,
            margin,
            variables=pair.variables,
        )


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A ranking of two or more different responses, the best first: `{"prompt", "responses"}`.

    There are no ties; rows may have different numbers of responses.
    """

    prompt: TextOrMessages
    responses: list[TextOrMessages]
    variables: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        parts = list_entries(row, "responses", "of answers, the best first")
        if len(parts) < 2:
            raise BadRow(f"responses has {len(parts)} answers; a ranking takes two or more")
        prompt, *responses = prompt_and_responses(
            {"prompt": required_value(row, "prompt"), **parts}, *parts
        )
        for (one, first), (two, second) in itertools.combinations(enumerate(responses), 2):
            if equal_up_to_spaces(first, second):
                raise BadRow(f"responses[{one}] and responses[{two}] are the same")
        return cls(prompt, responses, variables=template_variables(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and answer, a row for each answer."""
        return response_rows(self.prompt, self.responses, tokenizer, variables=self.variables)


@dataclasses.dataclass(frozen=True)
class Stepwise:
    """A solution in steps, each labelled right or wrong: `{"prompt", "completions", "labels"}`.

    All text; a label is true or false, or a number in [0, 1] (a share of continuations, say).
    """

    prompt: str
    completions: list[str]
    labels: list[float]

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        prompt = prompt_field(row, may_be_empty=True)
        if not isinstance(prompt, str):
            raise BadRow("prompt is a conversation; steps follow a text")
        steps = list_entries(row, "completions", "of steps")
        if not steps:
            raise BadRow("completions has no steps")
        labels = list_entries(row, "labels", "of a label for each step")
        if len(labels) != len(steps):
            raise BadRow(f"{len(steps)} completions, but {len(labels)} labels")
        template_variables(row, prompt)
        texts: Any = [response_field(steps, name, prompt) for name in steps]
        return cls(prompt, texts, [bounded_number(labels, name, high=1) for name in labels])

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and steps, one row, in which the last token of each step is marked."""
        return (step_row(self.prompt, self.completions, tokenizer),)


@dataclasses.dataclass(frozen=True)
class Unpaired:
    """A response labelled good or bad: `{"prompt", "completion", "label"}`."""

    prompt: TextOrMessages
    completion: TextOrMessages
    label: bool
    variables: dict[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    @classmethod
    def parse(cls, row: Row) -> Self:
        """Record of a row; raises `BadRow` with the reason where the row is none."""
        prompt, completion = prompt_and_responses(row, "completion")
        label = required_value(row, "label")
        if not isinstance(label, bool | int) or label not in (0, 1):
            raise BadRow(f"label is {short_repr(label)}, wanted true or false")
        return cls(prompt, completion, bool(label), variables=template_variables(row, prompt))

    def token_rows(self, tokenizer: Tokenizer) -> tuple[TokenRow, ...]:
        """Prompt and completion, one row."""
        return (response_row(self.prompt, self.completion, tokenizer, variables=self.variables),)


Record = Prompt | PromptCompletion | Preference | Unpaired | Ranking | Stepwise
