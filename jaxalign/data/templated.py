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

from jaxalign.data.marks import MARK, TOKEN, mark, without_marks
from jaxalign.data.templates import SHOWN, Messages, Rendered, first_difference, render
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.errors import UserError


def templated_prompt(messages: Messages, tokenizer: Tokenizer) -> list[int]:
    """The conversation and the header of the assistant's turn."""
    return tokenizer.for_marks.encode(_rendered(messages, tokenizer, asked=True).text)


def templated_response(
    prompt: Messages, response: Messages, tokenizer: Tokenizer
) -> list[tuple[list[int], bool]]:
    """`(ids, is_response)` parts, beginning with the ids of `templated_prompt`.

    Where the template has `{% generation %}` blocks, those behind the prompt are trained on, and
    EOS in any case: a policy that never learns to end does not end.
    """
    messages = [*prompt, *response]
    whole = _rendered(messages, tokenizer, asked=False)
    spans = _answers(whole, messages, len(prompt), tokenizer)
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


def _rendered(messages: Messages, tokenizer: Tokenizer, *, asked: bool) -> Rendered:
    if (template := tokenizer.chat_template) is None:
        raise UserError("the tokenizer has no chat template")
    return render(
        template,
        messages,
        asked=asked,
        variables=tokenizer.special_names,
        tokenizer=tokenizer.for_marks,
    )


def _answers(
    whole: Rendered, messages: Messages, first: int, tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """From behind the header to behind the turn's end, for each answer from message `first` on."""
    answers = [i for i in range(first, len(messages)) if messages[i]["role"] == "assistant"]
    closing = _closing(whole.text[_close(whole, answers[-1], messages) :])
    spans = []
    for i in answers:
        asked = _rendered(messages[:i], tokenizer, asked=True).text
        if not whole.text.startswith(asked):
            raise UserError(_two_beginnings(whole.text, asked, tokenizer))
        close = _close(whole, i, messages)
        _check_whole(whole.text[len(asked) : close], messages[i]["content"])
        later = [at for j, at in (whole.closes | whole.opens).items() if j > i]
        tail = whole.text[close : min(later, default=len(whole.text))]
        stops = [mark(TOKEN, i) for i in tokenizer.stop_ids]
        ends = [*sorted(stops, key=tail.find), *closing]
        end = next((tail.index(end) + len(end) for end in ends if end in tail), 0)
        spans.append((len(asked), close + end))
    return spans


def _closing(tail: str) -> list[str]:
    """What ends a turn, seen behind the last one: a special token, or else a text, or nothing."""
    token = MARK.search(tail)
    return [token[0]] if token else [text for text in [tail.strip()] if text]


def _close(whole: Rendered, number: int, messages: Messages) -> int:
    if number in whole.closes:
        return whole.closes[number]
    said = messages[number]["content"][-SHOWN:]
    raise UserError(f"the chat template leaves out the end of the answer ...{said!r}")


def _check_whole(written: str, said: str) -> None:
    """What is to be trained on must be there, be it with other white space."""
    if "".join(said.split()) not in "".join(written.split()):
        raise UserError(
            f"the chat template leaves out a part of the answer {said[:SHOWN]!r}...: "
            f"it writes {without_marks(written)[:SHOWN]!r}..."
        )


def _two_beginnings(whole: str, asked: str, tokenizer: Tokenizer) -> str:
    texts = [MARK.sub(lambda found: tokenizer.token(int(found[2])), t) for t in (asked, whole)]
    at = first_difference(*texts)
    here, there = (text[max(0, at - SHOWN) : at + SHOWN] for text in texts)
    return (
        f"the chat template writes ...{here!r} where an answer is asked for, but ...{there!r} "
        "where one is given: what is sampled after would not be what is trained after"
    )
