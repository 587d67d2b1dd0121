"""Token ids of conversations by the tokenizer's chat template, and which of them are trained on.

Trained on are the assistant's contents and the token that ends its turn; not the header before it,
after which a policy is sampled, and not the line end behind it:

    <|im_start|>user
    Why?<|im_end|>
    <|im_start|>assistant
    So.<|im_end|>              <- trained on
    <|im_start|>user
    ...

BOS stands where the template writes it. At the end stands the token that ends a response, once:
the one that the template ends the last turn with (Gemma's <end_of_turn>, where its
`generation_config.json` lists it), or else EOS behind what the template ends turns with.
"""

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from jaxalign.data.marks import MARK, TOKEN, mark, without_marks
from jaxalign.data.templates import (
    SHOWN,
    Messages,
    Rendered,
    first_difference,
    names_in,
    render,
)
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError

Variables = Mapping[str, Any]
NO_VARIABLES: Variables = {}
# Fields in which an assistant's message may have its thoughts beside its content.
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
# Variables by which templates are told whether an answer begins with a thought.
SWITCHES = ("enable_thinking", "thinking")
THOUGHT = re.compile(r"<(think|thought|thinking|reasoning)>.*?</\1>", re.DOTALL)
CLOSED = re.compile(r"</(think|thought|thinking|reasoning)>\s*$")
OPENED = re.compile(r"(<(think|thought|thinking|reasoning)>\s*)$")


def templated_prompt(
    messages: Messages, tokenizer: Tokenizer, *, variables: Variables = NO_VARIABLES
) -> list[int]:
    """Token ids of a conversation and the header of the assistant's turn."""
    return tokenizer.for_marks.encode(
        _render(messages, tokenizer, add_generation_prompt=True, variables=variables).text
    )


def templated_response(
    prompt: Messages,
    response: Messages,
    tokenizer: Tokenizer,
    *,
    variables: Variables = NO_VARIABLES,
) -> list[tuple[list[int], bool]]:
    """Parts `(ids, is_response)` of a conversation, beginning with the ids of `templated_prompt`.

    Where the template has `{% generation %}` blocks, those behind the prompt are trained on, and
    EOS in any case: a policy that never learns to end does not end.

    Args:
      prompt, response: messages; those of the response begin and end with the assistant's.
      tokenizer: with a chat template.
      variables: of the template, beside the messages: `tools`, `enable_thinking`.

    Raises:
      UserError: the template refuses the conversation, or an answer would be trained on after other
        ids than it is sampled after; the message names changes of the row that would mend it.
    """
    try:
        return _response_parts(prompt, response, tokenizer, variables=variables)
    except _UntrainableAnswer as error:
        remedies = _remedies(prompt, response, tokenizer, variables=variables, header=error.header)
        raise UserError(f"{error}; {' or '.join(remedies)}" if remedies else str(error)) from None


class _UntrainableAnswer(UserError):
    """An answer that cannot be trained on as it would be sampled; a change of the row may help.

    header: of the assistant's turn, as the template writes it where an answer is sampled.
    """

    def __init__(self, line: str, header: str) -> None:
        super().__init__(line)
        self.header = header


def _response_parts(
    prompt: Messages, response: Messages, tokenizer: Tokenizer, *, variables: Variables
) -> list[tuple[list[int], bool]]:
    """`templated_response` without remedies in its errors."""
    messages = [*prompt, *response]
    whole = _render(messages, tokenizer, add_generation_prompt=False, variables=variables)
    answers = [i for i in range(len(prompt), len(messages)) if messages[i]["role"] == "assistant"]
    headers = {}
    for i in answers:
        rendered = _render(messages[:i], tokenizer, add_generation_prompt=True, variables=variables)
        headers[i] = rendered.text
        if i == answers[-1]:
            whole = _with_thought(whole, headers[i], messages[i])
        if not whole.text.startswith(headers[i]):
            line = _prefix_mismatch(whole.text, headers[i], tokenizer)
            raise _UntrainableAnswer(line, headers[i])
    try:
        spans = _answer_spans(whole, messages, headers, tokenizer)
    except UserError as error:
        raise _UntrainableAnswer(str(error), headers[answers[-1]]) from None
    end = spans[-1][1]
    if whole.generated:
        spans = _spans_in_blocks(whole.generated, spans[0][0], end)
    return _parts(whole.text[:end], spans, tokenizer)


def _spans_in_blocks(blocks: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Spans of the `{% generation %}` blocks between two positions of the text."""
    spans = [(max(start, a), min(end, b)) for a, b in blocks]
    spans = [(a, b) for a, b in spans if a < b]
    if not spans:
        raise UserError("the chat template has no {% generation %} block in the response")
    return spans


def _parts(
    text: str, spans: list[tuple[int, int]], tokenizer: Tokenizer
) -> list[tuple[list[int], bool]]:
    """Parts `(ids, is_response)` of a marked text, true within the spans, and the stop id."""
    cuts = sorted({0, *(edge for span in spans for edge in span), len(text)} - {0, len(text)})
    starts = [0, *cuts]
    pieces = tokenizer.for_marks.split(text, cuts)
    trained = [any(a <= start < b for a, b in spans) for start in starts]
    last = [i for i in pieces[-1][-1:] if i in tokenizer.stop_ids]
    pieces[-1] = pieces[-1][: len(pieces[-1]) - len(last)]
    return [*zip(pieces, trained, strict=True), (last or [tokenizer.eos_id], True)]


def _render(
    messages: Messages, tokenizer: Tokenizer, *, add_generation_prompt: bool, variables: Variables
) -> Rendered:
    """A conversation as the tokenizer's chat template writes it."""
    if (template := tokenizer.chat_template) is None:
        raise UserError("the tokenizer has no chat template")
    return render(
        template,
        messages,
        add_generation_prompt=add_generation_prompt,
        names=tokenizer.special_names,
        tokenizer=tokenizer.for_marks,
        variables=variables,
    )


def _with_thought(whole: Rendered, header: str, message: Mapping[str, Any]) -> Rendered:
    """The conversation with the thought of its last answer, where the template drops it there.

    Templates open a thought in the header ("<think>") or not. The policy writes its thought behind
    the header, so that is where it is trained on.
    """
    content, number = message["content"].strip(), max(whole.closes, default=-1)
    if number < 0:
        return whole
    if whole.text.startswith(header):
        return _with_unopened_thought(whole, header, content, number)
    close = whole.closes[number]
    for opened, size in itertools.product((header, header.rstrip()), range(len(content), 0, -1)):
        shared = opened[: max(len(opened) - size, 0)]
        written = whole.text[len(shared) : close].strip()
        opens = opened.endswith(content[:size]) and whole.text.startswith(shared)
        if opens and written and content.endswith(written):
            rest = content[size:]
            text = header + (rest if opened == header else rest.lstrip())
            closes = {**whole.closes, number: len(text)}
            opens_at = {i: at for i, at in whole.opens.items() if i != number}
            moved = len(text) - close
            generated = [
                (a, b) if b <= len(shared) else (len(header), b + moved) for a, b in whole.generated
            ]
            return Rendered(text + whole.text[close:], opens_at, closes, generated)
    return whole


def _with_unopened_thought(whole: Rendered, header: str, content: str, number: int) -> Rendered:
    """`_with_thought` where the header opens no thought: the answer as the row has it.

    Unchanged where the header closes a thought, which says that the answer has none.
    """
    close = whole.closes[number]
    written = whole.text[len(header) : close].strip()
    thought = THOUGHT.match(content)
    if (
        not thought
        or CLOSED.search(header)
        or not written
        or content[thought.end() :].strip() != written
    ):
        return whole
    text = header + content
    moved = len(text) - close
    opens = {i: at for i, at in whole.opens.items() if i != number}
    generated = [
        (a, b) if b <= len(header) else (len(header), b + moved) for a, b in whole.generated
    ]
    closes = {**whole.closes, number: len(text)}
    return Rendered(text + whole.text[close:], opens, closes, generated)


def _answer_spans(
    whole: Rendered, messages: Messages, headers: Mapping[int, str], tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """Span of each answer in the text, from behind its header to behind the end of its turn."""
    last = max(headers)
    closing = _turn_ends(whole.text[_content_end(whole, last, messages) :])
    spans = []
    for i, header in headers.items():
        close = _content_end(whole, i, messages)
        _check_complete(header, whole.text[len(header) : close], messages[i])
        later = [at for j, at in (whole.closes | whole.opens).items() if j > i]
        tail = whole.text[close : min(later, default=len(whole.text))]
        stops = [mark(TOKEN, i) for i in tokenizer.stop_ids]
        ends = [*sorted(stops, key=tail.find), *closing]
        if i != last and not any(end in tail for end in ends):
            ends = _inner_turn_ends(whole, messages, tail)
        end = next((tail.index(end) + len(end) for end in ends if end in tail), 0)
        spans.append((len(header), close + end))
    return spans


def _turn_ends(tail: str) -> list[str]:
    """Ends of the last turn, and so of others: a special token, a text, or nothing."""
    token = MARK.search(tail)
    return [token[0]] if token else [text for text in [tail.strip()] if text]


def _inner_turn_ends(whole: Rendered, messages: Messages, tail: str) -> list[str]:
    """Ends of turns before the last one, where another token ends the last one (gpt-oss).

    It is the token right behind the content, if the turns of other roles end with it too and
    another token begins the next turn.
    """
    token = MARK.match(tail.lstrip())
    if token is None or len(MARK.findall(tail)) < 2:
        return []
    others = [at for j, at in whole.closes.items() if messages[j]["role"] != "assistant"]
    ends = any(whole.text[at:].lstrip().startswith(token[0]) for at in others)
    return [token[0]] if ends else []


def _content_end(whole: Rendered, number: int, messages: Messages) -> int:
    """Position in the text where the content of a message ends."""
    if number in whole.closes:
        return whole.closes[number]
    ending = messages[number]["content"][-SHOWN:]
    raise UserError(f"the chat template leaves out the end of the answer ...{ending!r}")


def _check_complete(header: str, written: str, message: Mapping[str, Any]) -> None:
    """Refuse a template that leaves out a part of an answer; white space may differ.

    The header may hold the beginning of the answer.
    """
    content, letters = message["content"], "".join(written.split())
    whole = "".join(without_marks(header[-len(content) - SHOWN :]).split()) + letters
    if content.strip() and not (letters and whole.endswith("".join(content.split()))):
        raise UserError(
            f"the chat template leaves out a part of the answer {content[:SHOWN]!r}...: "
            f"it writes {without_marks(written)[:SHOWN]!r}..."
        )
    for name in THOUGHTS:
        thought = message.get(name)
        if isinstance(thought, str) and "".join(thought.split()) not in letters:
            answer = content[:SHOWN]
            raise UserError(f"the chat template leaves out {name!r} of the answer {answer!r}")


def _remedies(
    prompt: Messages, response: Messages, tokenizer: Tokenizer, *, variables: Variables, header: str
) -> list[str]:
    """Changes of a row, each tried out, that make its conversation one that can be trained on."""
    known_names, remedies = names_in(tokenizer.chat_template or "")[0], []
    for name in (name for name in SWITCHES if name in known_names and name not in variables):
        for value, word in ((False, "false"), (True, "true")):
            if _trains(prompt, response, tokenizer, {**variables, name: value}):
                remedies.append(f'add "chat_template_kwargs": {{"{name}": {word}}} to the row')
    last = response[-1]
    if (opened := OPENED.search(header)) and len(response) == 1:
        ends = f"\n</{opened[2]}>\n\n"
        message = {**last, "content": f"{opened[1]}{ends}{last['content']}"}
        if _trains(prompt, [message], tokenizer, variables):
            excerpt = json.dumps(f"{opened[1]}...{ends}")
            remedies.append(f"begin the answer with its thought, {excerpt}, be it an empty one")
    if len(response) > 1 and not remedies:
        line = "give each answer a row of its own, the messages before it as its prompt"
        before = [*prompt, *response[:-1]]
        if _trains(before, [last], tokenizer, variables):
            return [line]
        more = _remedies(before, [last], tokenizer, variables=variables, header=header)
        return [f"{line}, and {' or '.join(more)}"] if more else []
    return remedies


def _trains(
    prompt: Messages, response: Messages, tokenizer: Tokenizer, variables: Variables
) -> bool:
    """Whether a conversation can be trained on."""
    try:
        _response_parts(prompt, response, tokenizer, variables=variables)
    except UserError:
        return False
    return True


def _prefix_mismatch(whole: str, header: str, tokenizer: Tokenizer) -> str:
    """Message that an answer would be trained on after another text than it is sampled after."""
    texts = [
        MARK.sub(lambda match: tokenizer.token(int(match[2])), text) for text in (header, whole)
    ]
    at = first_difference(*texts)
    here, there = (text[max(0, at - SHOWN) : at + SHOWN] for text in texts)
    return (
        f"the chat template writes ...{here!r} where an answer is asked for, but ...{there!r} "
        "where one is given: what is sampled after would not be what is trained after"
    )
