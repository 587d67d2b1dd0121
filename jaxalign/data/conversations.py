"""Texts and conversations in the fields of a row: validated prompts, responses and messages.

A conversation is a list of messages `{"role", "content"}`.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from jaxalign.data.chat import ROLES
from jaxalign.data.row_fields import (
    BadRow,
    Row,
    check_json,
    has_value,
    required_value,
    short_repr,
    unicode_text,
)

TextOrMessages = str | list[dict[str, Any]]
CONVERSATION = re.compile(r"""\s*\[\s*\{\s*["'](role|content)["']\s*:""")
# Senders of messages as ShareGPT names them, and our roles.
SENDERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}
# Fields of a message by which other libraries choose what is trained on.
TRAINING_FIELDS = (
    "weight",
    "train",
    "trainable",
    "training",
    "mask",
    "masked",
    "loss",
    "loss_weight",
)
# Fields of a message that hold calls of tools, which are not trained on; an empty one is none.
TOOL_CALL_FIELDS = ("tool_calls", "function_call")
# Fields of a message that number or date it: they have no effect.
IDENTIFIER_FIELDS = (
    *("id", "uuid", "message_id", "parent_id", "parent_message_id", "conversation_id"),
    *("timestamp", "created_at", "created", "create_time", "updated_at", "update_time", "date"),
)


def text_or_messages(row: Row, field: str) -> TextOrMessages:
    """Value of a field that is a text or a list of messages, with validated messages."""
    value = required_value(row, field)
    if isinstance(value, str):
        if CONVERSATION.match(value) and value.rstrip().endswith("]"):
            raise BadRow(f"{field} is a list of messages written as a text; write the list itself")
        return unicode_text(field, value)
    if not isinstance(value, list):
        raise BadRow(
            f'{field} is {short_repr(value)}, wanted text or a list of {{"role", "content"}}'
        )
    if not value:
        raise BadRow(f"{field} has no messages")
    return [_parsed_message(f"{field}[{i}]", message) for i, message in enumerate(value)]


def prompt_field(row: Row, *, may_be_empty: bool = False) -> TextOrMessages:
    """The field `prompt`, which leaves something to answer."""
    prompt = text_or_messages(row, "prompt")
    if isinstance(prompt, str):
        if not prompt.strip() and not may_be_empty:
            raise BadRow("prompt is empty")
    elif prompt[-1]["role"] == "assistant":
        raise BadRow("prompt ends with the assistant: nothing is left to answer")
    return prompt


def response_field(row: Row, field: str, prompt: TextOrMessages) -> TextOrMessages:
    """A field that holds a response of the same kind (text or messages) as the prompt."""
    response = text_or_messages(row, field)
    if isinstance(response, str) != isinstance(prompt, str):
        kinds = ["a conversation", "text"]
        raise BadRow(
            f"prompt is {kinds[isinstance(prompt, str)]}, "
            f"but {field} is {kinds[isinstance(response, str)]}"
        )
    return valid_response(field, response)


def valid_response(field: str, response: TextOrMessages) -> TextOrMessages:
    """The response, checked not to be empty and to begin and end with the assistant's messages."""
    if isinstance(response, str):
        if not response.strip():
            raise BadRow(f"{field} is empty")
        return response
    if not response or not response[0]["role"] == response[-1]["role"] == "assistant":
        raise BadRow(f"the answer in {field} must begin and end with the assistant")
    if any(m["role"] == "assistant" and not m["content"].strip() for m in response):
        raise BadRow(f"{field} has an empty answer")
    return response


def _parsed_message(field: str, message: Any) -> dict[str, Any]:
    """A message with the fields that have an effect, its `content` one text."""
    if not isinstance(message, Mapping):
        raise BadRow(f'{field} is {short_repr(message)}, wanted {{"role", "content"}}')
    message = _with_our_names(message)
    role, content = required_value(message, "role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f"{field} has role {short_repr(role)}, wanted one of {list(ROLES)}")
    rest = {} if message.keys() == {"role", "content"} else _other_fields(field, message)
    return {"role": role, "content": unicode_text(field, _content_text(field, content)), **rest}


def _with_our_names(message: Row) -> Row:
    """The message, its sender and text named as we do where ShareGPT's names stand for them.

    >>> _with_our_names({"from": "gpt", "value": "Hello."})
    {'role': 'assistant', 'content': 'Hello.'}
    """
    if not {"from", "value"} <= message.keys() or {"role", "content"} & message.keys():
        return message
    sender, text = message["from"], message["value"]
    role = SENDERS.get(sender, sender) if isinstance(sender, str) else sender
    rest = {name: value for name, value in message.items() if name not in ("from", "value")}
    return {"role": role, "content": text, **rest}


def _other_fields(field: str, message: Row) -> dict[str, Any]:
    """Fields of a message besides role and content that a chat template may read."""
    if tool_calls := [name for name in TOOL_CALL_FIELDS if message.get(name)]:
        raise BadRow(f"{field} has {tool_calls[0]!r}: calls of tools are not read; take it out")
    if training := [name for name in TRAINING_FIELDS if has_value(message, name)]:
        raise BadRow(f"{field} has {training[0]!r}, which is not read; take it out of the row")
    if message.get("prefix"):
        raise BadRow(f"{field} has 'prefix': an answer that is to be continued is none to learn")
    handled = ("role", "content", "prefix", *TOOL_CALL_FIELDS, *IDENTIFIER_FIELDS)
    rest = {name: v for name, v in message.items() if v is not None and name not in handled}
    check_json(rest, field)
    return rest


def _content_text(field: str, content: Any) -> str:
    """Text of a message's content, which may be a list of parts `{"type": "text", "text": ...}`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise BadRow(f"{field} has content {short_repr(content)}, wanted text")
    texts = []
    for part in content:
        here = {k: v for k, v in part.items() if v is not None} if isinstance(part, dict) else {}
        if here.get("type", "text") != "text":
            raise BadRow(
                f"{field} has content of type {short_repr(here['type'])}; only text is read"
            )
        if not here.keys() <= {"type", "text"} or not isinstance(here.get("text"), str):
            raise BadRow(
                f"{field} has content {short_repr(part)}, wanted {{'type': 'text', 'text'}}"
            )
        texts.append(here["text"])
    return "".join(texts)


def equal_up_to_spaces(chosen: TextOrMessages, rejected: TextOrMessages) -> bool:
    """Whether two responses are equal up to Unicode normal form and surrounding white space."""

    def normal(content: Any) -> Any:
        if isinstance(content, str):
            return unicodedata.normalize("NFC", content).strip()
        if isinstance(content, Mapping):
            return {name: normal(value) for name, value in content.items()}
        return [normal(part) for part in content] if isinstance(content, list) else content

    return normal(chosen) == normal(rejected)
