"""Variables that a row gives to the chat template: `tools` and `chat_template_kwargs`."""

from typing import Any

from jaxalign.data.conversations import TextOrMessages
from jaxalign.data.row_fields import BadRow, Row, check_json, has_value, json_value

# Fields of other data formats that would change the prompt and are not read here.
UNREAD_FIELDS = (
    *("system", "history", "images", "documents", "functions", "enable_thinking"),
    "chat_template",
)
# Variables of a chat template that a row may not set.
RESERVED_VARIABLES = ("messages", "tools", "add_generation_prompt", "continue_final_message")


def template_variables(row: Row, prompt: TextOrMessages) -> dict[str, Any]:
    """Variables for the chat template from the row's `tools` and `chat_template_kwargs`.

    Args:
      row: of a data set.
      prompt: of the row, which must be a conversation where there are variables.

    Raises:
      BadRow: a variable that is not JSON or has another source, or a field that is not read.
    """
    variables: dict[str, Any] = {}
    if unread := [name for name in UNREAD_FIELDS if row.get(name) not in (None, "", [], {})]:
        place = "chat_template_kwargs" if unread[0] == "enable_thinking" else "the prompt"
        raise BadRow(
            f"{unread[0]} is not read; write what the model needs of it into {place}, or hide it "
            f'with --data.fields {unread[0]} ""'
        )
    if not has_value(row, "chat_template_kwargs") and not has_value(row, "tools"):
        return variables
    if has_value(row, "chat_template_kwargs"):
        wanted = 'an object, {"enable_thinking": false} say'
        kwargs = json_value(row, "chat_template_kwargs", dict, wanted)
        if reserved := [
            v for v in map(str, kwargs) if v in RESERVED_VARIABLES or v.endswith("_token")
        ]:
            raise BadRow(f"chat_template_kwargs has {reserved[0]!r}, which is not a row's to give")
        variables |= {str(name): v for name, v in kwargs.items() if v is not None}
    if has_value(row, "tools") and (tools := json_value(row, "tools", list, "a list of tools")):
        if not all(isinstance(tool, dict) for tool in tools):
            raise BadRow("tools holds something that is no object")
        variables["tools"] = tools
    if variables and isinstance(prompt, str):
        name = "tools" if "tools" in variables else "chat_template_kwargs"
        raise BadRow(f"{name} is for conversations, and this row's prompt is text; take it out")
    check_json(variables, "tools or chat_template_kwargs")
    return variables
