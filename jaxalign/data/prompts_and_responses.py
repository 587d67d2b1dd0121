"""The prompt of a row separated from its responses, where both are written together.

A response may repeat the conversation that it answers; a pair without a prompt has the one that
both responses begin with.
"""

from typing import Any

from jaxalign.data.conversations import (
    TextOrMessages,
    prompt_field,
    text_or_messages,
    valid_response,
)
from jaxalign.data.row_fields import BadRow, Row


def prompt_and_responses(row: Row, *fields: str) -> tuple[Any, ...]:
    """Prompt and responses of a row; a response that is a conversation may repeat the prompt."""
    prompt = prompt_field(row, may_be_empty=True)
    splits = [prompt_and_response(field, prompt, text_or_messages(row, field)) for field in fields]
    if any(other_prompt != splits[0][0] for other_prompt, _ in splits):
        raise BadRow(f"{fields[0]} and another answer go on from different messages")
    return splits[0][0], *(response for _, response in splits)


def prompt_and_response(
    field: str, prompt: TextOrMessages, response: TextOrMessages
) -> tuple[TextOrMessages, TextOrMessages]:
    """Prompt and response, without the messages of the prompt that the response repeats.

    A response that repeats its prompt begins with the prompt's messages, or with messages of which
    the last is the prompt's text as a message of the user.
    """
    if isinstance(prompt, str) and isinstance(response, str):
        return prompt, valid_response(field, response)
    if isinstance(response, str):
        raise BadRow(
            f"prompt is a conversation, but {field} is text; "
            f'write it as [{{"role": "assistant", "content": ...}}]'
        )
    if isinstance(prompt, list):
        repeated = response[: len(prompt)] == prompt
        return prompt, valid_response(field, response[len(prompt) :] if repeated else response)
    user_turns = [i for i, message in enumerate(response) if message["role"] == "user"]
    for i in user_turns:
        if response[i]["content"].strip() == prompt.strip() and i + 1 < len(response):
            return response[: i + 1], valid_response(field, response[i + 1 :])
    hide = ', or hide it with --data.fields prompt ""' if user_turns else ""
    raise BadRow(
        f"prompt is text, but {field} is a conversation that does not repeat it; write the prompt "
        f'as [{{"role": "user", "content": ...}}]{hide}'
    )


def prompt_and_completion(messages: TextOrMessages) -> tuple[TextOrMessages, TextOrMessages]:
    """Prompt and completion of a conversation, cut before the first answer of the assistant."""
    if isinstance(messages, str):
        raise BadRow('messages is text, wanted a list of {"role", "content"}')
    roles = [message["role"] for message in messages]
    if "assistant" not in roles[1:] or roles[0] == "assistant":
        raise BadRow("messages hold no answer of the assistant to something")
    cut = roles.index("assistant")
    return messages[:cut], valid_response("messages", messages[cut:])


def prompt_chosen_rejected(
    chosen: TextOrMessages, rejected: TextOrMessages
) -> tuple[TextOrMessages, TextOrMessages, TextOrMessages]:
    """Prompt, chosen and rejected response of a pair in which both begin with the prompt."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        cut = len(shared_text(chosen, rejected))
    elif isinstance(chosen, list) and isinstance(rejected, list):
        cut = shared_messages(chosen, rejected)
    else:
        raise BadRow("one of chosen and rejected is text, the other a conversation")
    sides = valid_response("chosen", chosen[cut:]), valid_response("rejected", rejected[cut:])
    return chosen[:cut], *sides


def shared_text(chosen: str, rejected: str) -> str:
    """Longest common prefix of two texts that ends with a word and leaves something of both.

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
    """Number of common leading messages that are the prompt: an answer follows them on both sides.

    Raises:
      BadRow: there are none.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    for count in range(min(shared, len(chosen) - 1, len(rejected) - 1), 0, -1):
        if chosen[count]["role"] == rejected[count]["role"] == "assistant":
            return count
    raise BadRow("chosen and rejected share no message that both go on to answer")
