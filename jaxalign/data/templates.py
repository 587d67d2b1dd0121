"""Rendering of chat templates (Jinja) as in Hugging Face transformers, in a sandbox.

The same extensions, filters and variables: `raise_exception`, `strftime_now`, `tojson`, `break` and
`continue` in loops, `{% generation %}` blocks, the names of the special tokens, `messages`,
`add_generation_prompt`. Source: `render_jinja_template` in
https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_template_utils.py.

A template is a program that a stranger wrote: it sees the messages and nothing else, and whatever
fails in it is reported in one line.
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
    """A conversation as the chat template wrote it, and where in it the contents stand.

    text: with the template's special tokens as marks, and no marks in contents.
    opens, closes: message number to the position in `text` where its content begins and ends.
    generated: start and end in `text` of the `{% generation %}` blocks.
    """

    text: str
    opens: dict[int, int]
    closes: dict[int, int]
    generated: list[tuple[int, int]]


class _Refusal(jinja2.TemplateError):
    """An error that a template raises with `raise_exception`."""


class _GenerationBlocks(Extension):
    """Jinja extension for `{% generation %} ... {% endgeneration %}`: the block between marks."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_block_with_marks")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _block_with_marks(self, caller: Callable[[], str]) -> str:
        return mark(GENERATION) + caller() + mark(GENERATION_END)


def render(
    template: str,
    messages: Messages,
    *,
    add_generation_prompt: bool,
    names: Mapping[str, str],
    tokenizer: MarkedTokenizer,
    variables: Mapping[str, Any],
) -> Rendered:
    """The conversation as the chat template writes it.

    It is rendered twice, once as it is and once with marks around the contents, and the two must
    agree but for the marks: what the template does to a text, it does to both.

    Args:
      template: Jinja source.
      messages: `{"role", "content", ...}` each.
      add_generation_prompt: whether the text ends with the header of the assistant's turn.
      names: of the special tokens, `{"bos_token": "<s>"}`.
      tokenizer: that has the special tokens.
      variables: of the template, beside these: `{"tools": [...], "enable_thinking": False}`.

    Raises:
      UserError: the template refuses or fails, leaves a message out, does not read a variable or
        field, or changes contents depending on their letters.
    """
    _check_read(template, messages, variables)
    text_of = functools.partial(
        _rendered_text, template, add_generation_prompt=add_generation_prompt, names=names
    )
    plain = without_marks(text_of(messages, variables=variables))
    marked = text_of(
        [_message_with_marks(i, message, tokenizer) for i, message in enumerate(messages)],
        variables=_with_literal_marks(dict(variables), tokenizer),
    )
    unmarked = without_marks(marked)
    if unmarked != plain:
        at = first_difference(plain, unmarked)
        raise UserError(
            "the chat template treats a text by what it begins or ends with, so what it writes is "
            f"not told from what people say; near {plain[max(0, at - SHOWN) : at + SHOWN]!r}"
        )
    rendered = _without_content_marks(marked, tokenizer)
    for i, message in enumerate(messages):
        if i not in rendered.opens and i not in rendered.closes:
            what = f"message {i + 1} ({message['role']}: {message['content'][:SHOWN]!r})"
            raise UserError(f"the chat template leaves out {what}")
    return rendered


def _check_read(template: str, messages: Messages, variables: Mapping[str, Any]) -> None:
    """Refuse variables and fields of messages that the template never names: they would be lost."""
    known_names, words = names_in(template)
    for name in variables:
        if name not in known_names:
            near = difflib.get_close_matches(name, sorted(known_names), 1)
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
    """Free variables of a template, and all names of attributes and entries that it may read."""
    tree = _syntax_tree(template)
    attributes = {node.attr for node in tree.find_all(nodes.Getattr)}
    texts = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    with _one_line_errors():  # it compiles the template, which may name a filter that is unknown
        return frozenset(meta.find_undeclared_variables(tree)), frozenset(attributes | texts)
    raise AssertionError  # never reached: a fault is raised above


def _message_with_marks(
    number: int, message: Mapping[str, Any], tokenizer: MarkedTokenizer
) -> dict[str, Any]:
    """A message with marks around its content and around every special token spelled in it.

    The marks stand within the surrounding white space, which templates trim.
    """
    content = message["content"]
    text = content.strip()
    start = content.index(text)
    inner = mark(OPEN, number) + _with_literal_marks(text, tokenizer) + mark(CLOSE, number)
    rest = _with_literal_marks({k: v for k, v in message.items() if k != "content"}, tokenizer)
    return {**rest, "content": content[:start] + inner + content[start + len(text) :]}


def _with_literal_marks(value: Any, tokenizer: MarkedTokenizer) -> Any:
    """A value with marks around every special token that is spelled in one of its texts."""
    with_marks = functools.partial(_with_literal_marks, tokenizer=tokenizer)
    if isinstance(value, str):
        return tokenizer.pattern.sub(
            lambda match: mark(LITERAL) + match[0] + mark(LITERAL_END), value
        )
    if isinstance(value, Mapping):
        return {with_marks(name): with_marks(entry) for name, entry in value.items()}
    return list(map(with_marks, value)) if isinstance(value, list) else value


def first_difference(one: str, other: str) -> int:
    """Position of the first character in which two texts differ."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in same)


def _without_content_marks(marked: str, tokenizer: MarkedTokenizer) -> Rendered:
    """A rendered text without the marks of contents, and with marks for its special tokens."""
    text, ends = "", {OPEN: {}, CLOSE: {}}
    generated, start, literal = [], 0, False
    pieces = MARK.split(marked)  # text, kind, number, text, kind, number, ... text
    for at in range(0, len(pieces), 3):
        text += pieces[at] if literal else tokenizer.marked(pieces[at])
        if at + 1 == len(pieces):
            break
        kind, number = int(pieces[at + 1]), int(pieces[at + 2])
        if kind in ends:
            ends[kind][number] = len(text)
        elif kind == GENERATION:
            start = len(text)
        elif kind == GENERATION_END:
            generated.append((start, len(text)))
        else:
            if literal == (kind == LITERAL):
                raise UserError("the chat template cuts a text at a special token spelled in it")
            literal = kind == LITERAL
    return Rendered(text, ends[OPEN], ends[CLOSE], generated)


def _rendered_text(
    template: str,
    messages: Messages,
    *,
    add_generation_prompt: bool,
    names: Mapping[str, str],
    variables: Mapping[str, Any],
) -> str:
    """Text of a conversation as a template renders it, marks included."""
    own_variables = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
    names_and_variables = {**names, "tools": None, "documents": None, **variables, **own_variables}
    with _one_line_errors():
        text = bounded_rendering(_template(template), names_and_variables)
        text.encode()  # an escape may be half a surrogate pair, which no tokenizer reads
        return text
    raise AssertionError  # never reached: a fault is raised above


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Context in which any failure of a template becomes a one-line `UserError`."""
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


def _syntax_tree(template: str) -> nodes.Template:
    """Syntax tree of a template."""
    with _one_line_errors():
        return _environment().parse(template)
    raise AssertionError  # never reached: a fault is raised above


@functools.lru_cache(maxsize=8)
def _template(template: str) -> jinja2.Template:
    """Compiled template."""
    return _environment().from_string(template)


@functools.cache
def _environment() -> BoundedEnvironment:
    """Jinja environment with the filters and functions that transformers gives templates."""
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
    """The date of the run in the form that `strftime` takes; templates' `strftime_now`."""
    return template_date().strftime(form[:LONGEST])


def _refuse(message: str) -> None:
    """Templates' `raise_exception`."""
    raise _Refusal(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON text of a value, templates' `tojson`, whose arguments come in transformers' order.

    Jinja's own filter escapes it for HTML.
    """
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


@contextlib.contextmanager
def fixed_template_date(moment: datetime.datetime | None) -> Iterator[None]:
    """Context in which templates are told this date; None: that of `template_date`."""
    if moment is not None:
        _moments.append(moment)
    try:
        yield
    finally:
        if moment is not None:
            _moments.remove(moment)


def template_date() -> datetime.datetime:
    """The date that templates are told, one for the whole run, in sampling as in training."""
    if not _moments:
        _moments.append(datetime.datetime.now())
    return _moments[-1]


_moments: list[datetime.datetime] = []
