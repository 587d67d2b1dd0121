"""Chat templates (Jinja) as Hugging Face transformers renders them, in a sandbox.

The same extensions, filters and variables: `raise_exception`, `strftime_now`, `tojson`, `break` and
`continue` in loops, `{% generation %}` blocks, the names of the special tokens, `messages`,
`add_generation_prompt`. Source: `render_jinja_template` in
https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_template_utils.py.

A template is a program that a stranger wrote: it sees the messages and nothing else, and whatever
goes wrong in it is one line.
"""

import contextlib
import dataclasses
import datetime
import difflib
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension

from jaxalign.data.marks import (
    CLOSE,
    GENERATION,
    GENERATION_END,
    LITERAL,
    LITERAL_END,
    MARK,
    OPEN,
    MarkedTokenizer,
    mark,
    without_marks,
)
from jaxalign.data.sandbox import BoundedEnvironment, bounded_rendering
from jaxalign.errors import UserError

Messages = Sequence[Mapping[str, Any]]
SHOWN = 40
LONGEST = 300  # characters that a template's own words may have in an error
# Fields of a message that only link or date it: a template that does not read them loses nothing.
LINKS = ("tool_call_id",)


@dataclasses.dataclass(frozen=True)
class Rendered:
    """What a template made of a conversation.

    text: with the template's special tokens as marks, and none in what people say.
    opens, closes: message number to where in `text` its content begins and ends.
    generated: the `{% generation %}` blocks, start and end in `text`.
    """

    text: str
    opens: dict[int, int]
    closes: dict[int, int]
    generated: list[tuple[int, int]]


class _Refusal(jinja2.TemplateError):
    """What a template says with `raise_exception`."""


class _GenerationBlocks(Extension):
    """`{% generation %} ... {% endgeneration %}`: the block between two marks."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_marked")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        return mark(GENERATION) + caller() + mark(GENERATION_END)


def render(
    template: str,
    messages: Messages,
    *,
    asked: bool,
    names: Mapping[str, str],
    tokenizer: MarkedTokenizer,
    given: Mapping[str, Any],
) -> Rendered:
    """The conversation as the template writes it.

    It is written twice, once as it is and once with marks around what people say, and the two must
    agree but for the marks: what the template does to a text, it does to both.

    Args:
      asked: end with the header of the assistant's turn (`add_generation_prompt`).
      names: of the special tokens, `{"bos_token": "<s>"}`.
      tokenizer: knows the special tokens.
      given: other variables of the template, `{"tools": [...], "enable_thinking": False}`.
    Raises:
      UserError: the template refuses or breaks, leaves a message out, does not read what it is
        given, or changes texts by their letters.
    """
    _check_read(template, messages, given)
    fill = functools.partial(_filled, template, asked=asked, names=names)
    plain = without_marks(fill(messages, given=given))
    marked = fill(
        [_marked(i, message, tokenizer) for i, message in enumerate(messages)],
        given=_literal(dict(given), tokenizer),
    )
    found = without_marks(marked)
    if found != plain:
        at = first_difference(plain, found)
        raise UserError(
            "the chat template treats a text by what it begins or ends with, so what it writes is "
            f"not told from what people say; near {plain[max(0, at - SHOWN) : at + SHOWN]!r}"
        )
    rendered = _read(marked, tokenizer)
    for i, message in enumerate(messages):
        if i not in rendered.opens and i not in rendered.closes:
            what = f"message {i + 1} ({message['role']}: {message['content'][:SHOWN]!r})"
            raise UserError(f"the chat template leaves out {what}")
    return rendered


def _check_read(template: str, messages: Messages, given: Mapping[str, Any]) -> None:
    """What a template does not so much as mention it cannot write: it would be lost in silence."""
    variables, words = names_in(template)
    for name in given:
        if name not in variables:
            near = difflib.get_close_matches(name, sorted(variables), 1)
            what = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"the chat template does not read {name!r}; take it out{what}")
    for number, message in enumerate(messages):
        for name in message.keys() - {"role", "content", *LINKS} - words:
            if message[name] in ("", [], {}):
                continue  # which says nothing
            raise UserError(
                f"the chat template does not read {name!r} of message {number + 1} "
                f"({message['role']}); take it out of the row"
            )


@functools.lru_cache(maxsize=8)
def names_in(template: str) -> tuple[frozenset[str], frozenset[str]]:
    """The variables that a template takes from outside, and all names that it could look up."""
    tree = _parsed(template)
    attributes = {node.attr for node in tree.find_all(nodes.Getattr)}
    texts = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    with _in_one_line():  # it compiles the template, which may name a filter that is unknown
        return frozenset(meta.find_undeclared_variables(tree)), frozenset(attributes | texts)
    raise AssertionError  # never reached: a fault is raised above


def _marked(number: int, message: Mapping[str, Any], tokenizer: MarkedTokenizer) -> dict[str, Any]:
    """A message with marks around its content, within the white space that templates trim, and
    around every special token that is spelled in it.
    """
    content = message["content"]
    text = content.strip()
    start = content.index(text)
    inner = mark(OPEN, number) + _literal(text, tokenizer) + mark(CLOSE, number)
    rest = _literal({k: v for k, v in message.items() if k != "content"}, tokenizer)
    return {**rest, "content": content[:start] + inner + content[start + len(text) :]}


def _literal(value: Any, tokenizer: MarkedTokenizer) -> Any:
    """The value with marks around every special token that is spelled in one of its texts."""
    if isinstance(value, str):
        return tokenizer.pattern.sub(
            lambda found: mark(LITERAL) + found[0] + mark(LITERAL_END), value
        )
    if isinstance(value, Mapping):
        return {_literal(k, tokenizer): _literal(v, tokenizer) for k, v in value.items()}
    return [_literal(v, tokenizer) for v in value] if isinstance(value, list) else value


def first_difference(one: str, other: str) -> int:
    """Where two texts part."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in same)


def _read(marked: str, tokenizer: MarkedTokenizer) -> Rendered:
    """Takes the marks out and makes special tokens of what is spelled between them."""
    text, ends = "", {OPEN: {}, CLOSE: {}}
    generated, begun, literal = [], 0, False
    pieces = MARK.split(marked)  # text, kind, number, text, kind, number, ... text
    for at in range(0, len(pieces), 3):
        text += pieces[at] if literal else tokenizer.marked(pieces[at])
        if at + 1 == len(pieces):
            break
        kind, number = int(pieces[at + 1]), int(pieces[at + 2])
        if kind in ends:
            ends[kind][number] = len(text)
        elif kind == GENERATION:
            begun = len(text)
        elif kind == GENERATION_END:
            generated.append((begun, len(text)))
        else:
            if literal == (kind == LITERAL):
                raise UserError("the chat template cuts a text at a special token spelled in it")
            literal = kind == LITERAL
    return Rendered(text, ends[OPEN], ends[CLOSE], generated)


def _filled(
    template: str,
    messages: Messages,
    *,
    asked: bool,
    names: Mapping[str, str],
    given: Mapping[str, Any],
) -> str:
    ours = {"messages": list(messages), "add_generation_prompt": asked}
    variables = {**names, "tools": None, "documents": None, **given, **ours}
    with _in_one_line():
        text = bounded_rendering(_compiled(template), variables)
        text.encode()  # an escape may be half a surrogate pair, which no tokenizer reads
        return text
    raise AssertionError  # never reached: a fault is raised above


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """A program may fail in any way."""
    try:
        yield
    except _Refusal as refusal:
        reason = f"refuses the conversation: {refusal}"
    except jinja2.TemplateSyntaxError as error:
        reason = f"is no Jinja: line {error.lineno}: {error.message}"
    except jinja2.exceptions.SecurityError as error:
        reason = f"does what no template may: {error}"
    except Exception as error:
        reason = f"fails: {type(error).__name__}: {error}"
    else:
        return
    line = " ".join(without_marks(reason).split())
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    raise UserError(f"the chat template {text}")


def _parsed(template: str) -> nodes.Template:
    with _in_one_line():
        return _environment().parse(template)
    raise AssertionError  # never reached: a fault is raised above


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    return _environment().from_string(template)


@functools.cache
def _environment() -> BoundedEnvironment:
    environment = BoundedEnvironment(
        {"tojson": _to_json},
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlocks, "jinja2.ext.loopcontrols"],
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _date
    return environment


def _date(form: str) -> str:
    """The moment as `strftime` writes it."""
    return started().strftime(form[:LONGEST])


def _refuse(message: str) -> None:
    raise _Refusal(message)


def _to_json(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    """Not Jinja's own, which escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


@contextlib.contextmanager
def dated(moment: datetime.datetime | None) -> Iterator[None]:
    """Within it templates are told that moment; None: that of `started`."""
    if moment is not None:
        _moments.append(moment)
    try:
        yield
    finally:
        if moment is not None:
            _moments.remove(moment)


def started() -> datetime.datetime:
    """One moment for the whole run: prompts that are sampled from have the date of those trained
    after.
    """
    if not _moments:
        _moments.append(datetime.datetime.now())
    return _moments[-1]


_moments: list[datetime.datetime] = []
