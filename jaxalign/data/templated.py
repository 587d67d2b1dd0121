"""Conversations to token ids by the tokenizer's own chat template: which of them are the prompt,
and which are trained on.

Trained on is what the assistant says and the token that ends its turn; not the header before it,
which is where a policy that is asked begins to write, and not the line end behind it:

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

Given = Mapping[str, Any]
NOTHING: Given = {}
# Fields in which an assistant's message may have its thoughts beside its content.
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
# Variables by which templates are told whether an answer begins with a thought.
SWITCHES = ("enable_thinking", "thinking")
THOUGHT = re.compile(r"<(think|thought|thinking|reasoning)>.*?</\1>", re.DOTALL)
CLOSED = re.compile(r"</(think|thought|thinking|reasoning)>\s*$")
OPENED = re.compile(r"(<(think|thought|thinking|reasoning)>\s*)$")


def templated_prompt(
    messages: Messages, tokenizer: Tokenizer, *, given: Given = NOTHING
) -> list[int]:
    """The conversation and the header of the assistant's turn."""
    return tokenizer.for_marks.encode(_rendered(messages, tokenizer, asked=True, given=given).text)


def templated_response(
    prompt: Messages,
    response: Messages,
    tokenizer: Tokenizer,
    *,
    given: Given = NOTHING,
    advise: bool = True,
) -> list[tuple[list[int], bool]]:
    """`(ids, is_response)` parts, beginning with the ids of `templated_prompt`.

    Where the template has `{% generation %}` blocks, those behind the prompt are trained on, and
    EOS in any case: a policy that never learns to end does not end.

    Args:
      prompt, response: messages; those of the response begin and end with the assistant's.
      tokenizer: with a chat template.
      given: other variables of the template: `tools`, `enable_thinking`.
      advise: try what would mend a conversation that cannot be trained on, and say it.

    Raises:
      UserError: the template refuses the conversation, or an answer would be trained on after other
        ids than it is sampled after.
    """
    messages = [*prompt, *response]
    whole = _rendered(messages, tokenizer, asked=False, given=given)
    answers = [i for i in range(len(prompt), len(messages)) if messages[i]["role"] == "assistant"]
    headers = {}
    for i in answers:
        headers[i] = _rendered(messages[:i], tokenizer, asked=True, given=given).text
        if i == answers[-1]:
            whole = _with_thought(whole, headers[i], messages[i])
        if not whole.text.startswith(headers[i]):
            line = _two_beginnings(whole.text, headers[i], tokenizer)
            advice = _advice(prompt, response, tokenizer, given, headers[i]) if advise else []
            raise UserError(f"{line}; {' or '.join(advice)}" if advice else line)
    try:
        spans = _answers(whole, messages, headers, tokenizer)
    except UserError as error:
        last = headers[answers[-1]]
        advice = _advice(prompt, response, tokenizer, given, last) if advise else []
        raise UserError(f"{error}; {' or '.join(advice)}" if advice else str(error)) from None
    end = spans[-1][1]
    if whole.generated:
        start = spans[0][0]
        blocks = [(max(start, a), min(end, b)) for a, b in whole.generated]
        spans = [(a, b) for a, b in blocks if a < b]
        if not spans:
            raise UserError("the chat template has no {% generation %} block in the response")
    cuts = sorted({0, *(edge for span in spans for edge in span), end} - {0, end})
    starts = [0, *cuts]
    pieces = tokenizer.for_marks.split(whole.text[:end], cuts)
    trained = [any(a <= start < b for a, b in spans) for start in starts]
    last = [i for i in pieces[-1][-1:] if i in tokenizer.stop_ids]
    pieces[-1] = pieces[-1][: len(pieces[-1]) - len(last)]
    return [*zip(pieces, trained, strict=True), (last or [tokenizer.eos_id], True)]


def _rendered(messages: Messages, tokenizer: Tokenizer, *, asked: bool, given: Given) -> Rendered:
    if (template := tokenizer.chat_template) is None:
        raise UserError("the tokenizer has no chat template")
    return render(
        template,
        messages,
        asked=asked,
        names=tokenizer.special_names,
        tokenizer=tokenizer.for_marks,
        given=given,
    )


def _with_thought(whole: Rendered, header: str, message: Mapping[str, Any]) -> Rendered:
    """The conversation with the thought of its last answer, where the template drops it from an
    answer that is given, be it opened in the header ("<think>") or not.

    The policy writes its thought behind the header, so that is where it is trained on.
    """
    said, number = message["content"].strip(), max(whole.closes, default=-1)
    if number < 0:
        return whole
    if whole.text.startswith(header):
        return _with_dropped(whole, header, said, number)
    close = whole.closes[number]
    for opened, size in itertools.product((header, header.rstrip()), range(len(said), 0, -1)):
        shared = opened[: max(len(opened) - size, 0)]
        written = whole.text[len(shared) : close].strip()
        opens = opened.endswith(said[:size]) and whole.text.startswith(shared)
        if opens and written and said.endswith(written):
            rest = said[size:]
            text = header + (rest if opened == header else rest.lstrip())
            closes = {**whole.closes, number: len(text)}
            opens_at = {i: at for i, at in whole.opens.items() if i != number}
            moved = len(text) - close
            generated = [
                (a, b) if b <= len(shared) else (len(header), b + moved) for a, b in whole.generated
            ]
            return Rendered(text + whole.text[close:], opens_at, closes, generated)
    return whole


def _with_dropped(whole: Rendered, header: str, said: str, number: int) -> Rendered:
    """The same where the header opens no thought: the answer is written as it was given.

    Not where the header closes one, which says that the answer has none.
    """
    close = whole.closes[number]
    written = whole.text[len(header) : close].strip()
    thought = THOUGHT.match(said)
    if (
        not thought
        or CLOSED.search(header)
        or not written
        or said[thought.end() :].strip() != written
    ):
        return whole
    text = header + said
    moved = len(text) - close
    opens = {i: at for i, at in whole.opens.items() if i != number}
    generated = [
        (a, b) if b <= len(header) else (len(header), b + moved) for a, b in whole.generated
    ]
    closes = {**whole.closes, number: len(text)}
    return Rendered(text + whole.text[close:], opens, closes, generated)


def _answers(
    whole: Rendered, messages: Messages, headers: Mapping[int, str], tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """From behind the header to behind the turn's end, for each answer."""
    last = max(headers)
    closing = _closing(whole.text[_close(whole, last, messages) :])
    spans = []
    for i, header in headers.items():
        close = _close(whole, i, messages)
        _check_whole(header, whole.text[len(header) : close], messages[i])
        later = [at for j, at in (whole.closes | whole.opens).items() if j > i]
        tail = whole.text[close : min(later, default=len(whole.text))]
        stops = [mark(TOKEN, i) for i in tokenizer.stop_ids]
        ends = [*sorted(stops, key=tail.find), *closing]
        if i != last and not any(end in tail for end in ends):
            ends = _inner_end(whole, messages, tail)
        end = next((tail.index(end) + len(end) for end in ends if end in tail), 0)
        spans.append((len(header), close + end))
    return spans


def _closing(tail: str) -> list[str]:
    """What ends a turn, seen behind the last one: a special token, or else a text, or nothing."""
    token = MARK.search(tail)
    return [token[0]] if token else [text for text in [tail.strip()] if text]


def _inner_end(whole: Rendered, messages: Messages, tail: str) -> list[str]:
    """What ends a turn that others follow, where that is not what ends the last one (gpt-oss).

    It is the token right behind what is said, if the turns of others end with it too and another
    token begins the next turn.
    """
    token = MARK.match(tail.lstrip())
    if token is None or len(MARK.findall(tail)) < 2:
        return []
    others = [at for j, at in whole.closes.items() if messages[j]["role"] != "assistant"]
    ends = any(whole.text[at:].lstrip().startswith(token[0]) for at in others)
    return [token[0]] if ends else []


def _close(whole: Rendered, number: int, messages: Messages) -> int:
    if number in whole.closes:
        return whole.closes[number]
    said = messages[number]["content"][-SHOWN:]
    raise UserError(f"the chat template leaves out the end of the answer ...{said!r}")


def _check_whole(header: str, written: str, message: Mapping[str, Any]) -> None:
    """What is to be trained on must be there, be it with other white space; a header may hold its
    beginning.
    """
    said, found = message["content"], "".join(written.split())
    whole = "".join(without_marks(header[-len(said) - SHOWN :]).split()) + found
    if said.strip() and not (found and whole.endswith("".join(said.split()))):
        raise UserError(
            f"the chat template leaves out a part of the answer {said[:SHOWN]!r}...: "
            f"it writes {without_marks(written)[:SHOWN]!r}..."
        )
    for name in THOUGHTS:
        thought = message.get(name)
        if isinstance(thought, str) and "".join(thought.split()) not in found:
            raise UserError(f"the chat template leaves out {name!r} of the answer {said[:SHOWN]!r}")


def _advice(
    prompt: Messages, response: Messages, tokenizer: Tokenizer, given: Given, header: str
) -> list[str]:
    """What mends a conversation that cannot be trained on, tried out."""
    known, found = names_in(tokenizer.chat_template or "")[0], []
    for name in (name for name in SWITCHES if name in known and name not in given):
        for value, word in ((False, "false"), (True, "true")):
            if _trains(prompt, response, tokenizer, {**given, name: value}):
                found.append(f'add "chat_template_kwargs": {{"{name}": {word}}} to the row')
    last = response[-1]
    if (opened := OPENED.search(header)) and len(response) == 1:
        ends = f"\n</{opened[2]}>\n\n"
        message = {**last, "content": f"{opened[1]}{ends}{last['content']}"}
        if _trains(prompt, [message], tokenizer, given):
            shown = json.dumps(f"{opened[1]}...{ends}")
            found.append(f"begin the answer with its thought, {shown}, be it an empty one")
    if len(response) > 1 and not found:
        line = "give each answer a row of its own, the messages before it as its prompt"
        before = [*prompt, *response[:-1]]
        if _trains(before, [last], tokenizer, given):
            return [line]
        more = _advice(before, [last], tokenizer, given, header)
        return [f"{line}, and {' or '.join(more)}"] if more else []
    return found


def _trains(prompt: Messages, response: Messages, tokenizer: Tokenizer, given: Given) -> bool:
    try:
        templated_response(prompt, response, tokenizer, given=given, advise=False)
    except UserError:
        return False
    return True


def _two_beginnings(whole: str, asked: str, tokenizer: Tokenizer) -> str:
    texts = [MARK.sub(lambda found: tokenizer.token(int(found[2])), t) for t in (asked, whole)]
    at = first_difference(*texts)
    here, there = (text[max(0, at - SHOWN) : at + SHOWN] for text in texts)
    return (
        f"the chat template writes ...{here!r} where an answer is asked for, but ...{there!r} "
        "where one is given: what is sampled after would not be what is trained after"
    )
