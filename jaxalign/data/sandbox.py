"""A Jinja environment in which a template, a program of a stranger, ends soon and stays small.

Every operation is paid for before it is done: a step each, and the size of what it reads and makes.
The sum is bounded, whatever the machine, so the same template and rows always end the same way; a
clock stops what the count should have missed. Nothing is interrupted from outside: no thread, no
signal. What no chat template needs (texts as large as a number says, methods and filters that look
for patterns, random words) is not there.
"""

import contextvars
import dataclasses
import re
import string
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

LARGEST_TEMPLATE = 2**16  # characters; those of known models have up to 20,000
STEPS = 500_000  # of a rendering, besides `STEPS_PER_UNIT` for each unit of what is rendered
STEPS_PER_UNIT = 500
SECONDS = 10
UNIT = 32  # characters that are read or written for one step
LARGEST_VALUE = 2**17  # units of one value: 4 million characters or 131,072 entries of a list
LARGEST_NUMBER = 4096  # bits
LARGEST_WIDTH = 1000  # of padding, indentation, precision
DEPTH = 50  # of calls within calls
MOST_HASHED = 4096  # entries of what is hashed: numbers may be chosen so that all hashes are one
CALL = 4  # steps of a call, a look-up, and of each entry that a filter goes through
METHODS = {
    str: frozenset(
        (
            *("capitalize", "casefold", "center", "count", "endswith", "expandtabs", "find"),
            *("format", "format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal"),
            *("isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust"),
            *("lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind"),
            *("rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines"),
            *("startswith", "strip", "swapcase", "title", "upper", "zfill"),
        )
    ),
    list: frozenset(("copy", "count", "index")),
    tuple: frozenset(("count", "index")),
    dict: frozenset(("copy", "get", "items", "keys", "values")),
    float: frozenset(("is_integer",)),
}
WIDTHS = frozenset(  # methods and filters of which a number says how much they write
    (
        *("batch", "center", "expandtabs", "indent", "ljust", "rjust", "round", "slice"),
        *("tojson", "truncate", "zfill"),
    )
)
# Filters that go through a text letter by letter.
ITERATING = frozenset(
    (
        *("batch", "groupby", "join", "list", "map", "max", "min", "reject", "rejectattr"),
        *("select", "selectattr", "slice", "sort", "sum", "title", "unique", "urlencode"),
        "wordcount",
    )
)
NOT_NEEDED = ("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
WIDE_PERCENT = re.compile(r"(?<!\d)\d{4,}+(?:\.\d*+)?[hlL]?[diouxXeEfFgGcrsa%]|\.\d{4}")
# Filters of ours, by names that no template can spell.
COMPARED, LOOPED, MADE = " compared", " looped", " made"
VIEWS = (type({}.keys()), type({}.values()), type({}.items()))
PLAIN = (str, int, float, list, tuple, dict, range, Undefined, types.NoneType, *VIEWS)


@dataclasses.dataclass
class Budget:
    """What is left for one rendering.

    steps: how many more.
    largest: units that one value may have.
    ends: when the time is over, on the monotonic clock.
    depth: of the calls that are being made.
    sizes: those of the containers that were measured, by id; they are kept so that ids stay theirs.
    """

    steps: int
    largest: int
    ends: float
    depth: int = 0
    sizes: dict[int, tuple[Any, int]] = dataclasses.field(default_factory=dict)

    def spend(self, steps: int = 1) -> None:
        """Pays for some steps.

        Raises:
          SecurityError: there are not so many left, or the time is over.
        """
        self.steps -= steps
        if self.steps < 0:
            raise SecurityError("it takes more steps than any chat template needs")
        if time.monotonic() > self.ends:
            raise SecurityError(f"it takes more than {SECONDS} seconds")

    def check(self, units: int) -> None:
        """Refuses a value of more than the largest size.

        Raises:
          SecurityError: it is larger.
        """
        if units > self.largest:
            raise SecurityError("it makes a text or a list larger than any chat template needs")

    def measured(self, value: Any) -> int:
        """The size of a value in units, containers with all that is in them, however often."""
        if isinstance(value, str):
            return 1 + len(value) // UNIT
        if isinstance(value, int):
            if value.bit_length() > LARGEST_NUMBER:
                raise SecurityError(f"a number of more than {LARGEST_NUMBER} bits")
            return 1
        if isinstance(value, range):
            return 1 + len(value)
        if not isinstance(value, (dict, list, tuple, *VIEWS)):
            return 1
        if (known := self.sizes.get(id(value))) is not None:
            return known[1]
        size = 1
        for part in value:
            self.spend()
            parts = (part, value[part]) if isinstance(value, dict) else (part,)
            _check_plain(parts)
            size += sum(map(self.measured, parts))
            self.check(size)
        self.sizes[id(value)] = (value, size)
        return size

    def admitted(self, value: Any) -> Any:
        """The value, paid for, if it is not too large; of an iterator, the list."""
        if isinstance(value, Iterator):
            value = list(self.counted(value))
        size = self.measured(value)
        self.check(size)
        self.spend(size)
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, a step each."""
        for value in values:
            self.spend()
            yield value


_BUDGET: contextvars.ContextVar[Budget] = contextvars.ContextVar("budget")


@dataclasses.dataclass(frozen=True)
class _Counted:
    """What a loop runs over."""

    values: Any

    def __iter__(self) -> Iterator[Any]:
        return _BUDGET.get().counted(self.values)

    def __len__(self) -> int:
        return len(self.values)


class _BriefNamespace(Namespace):
    """`namespace(...)`; one may hold another, so what it holds is not written out."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Paid(NodeTransformer):
    """Puts calls that count around loops, literal lists and concatenations."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(LOOPED, node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        call = nodes.Call(nodes.EnvironmentAttribute("joined"), node.nodes, [], None, None)
        return call.set_lineno(node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(MADE, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(MADE, node) if node.ctx == "load" else node

    visit_Dict = visit_List

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        for part in (node, *node.ops):
            part.expr = _filtered(COMPARED, part.expr)
        return node


def _filtered(name: str, node: Any) -> Any:
    if isinstance(node, nodes.Const):
        return node
    return nodes.Filter(node, name, [], [], None, None).set_lineno(node.lineno)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a budget; what it compiles is rendered by `bounded_rendering` alone."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, filters: Mapping[str, Callable], **options: Any) -> None:
        super().__init__(optimized=False, finalize=_written, **options)
        del self.globals["lipsum"]
        self.globals["namespace"] = _BriefNamespace
        kept = {name: f for name, f in self.filters.items() if name not in NOT_NEEDED}
        found = {**kept, **filters}
        self.filters = {name: _bounded_filter(name, function) for name, function in found.items()}
        self.filters |= {COMPARED: _compared, LOOPED: _Counted, MADE: _made}
        self.tests = {name: _stepped(test) for name, test in self.tests.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > LARGEST_TEMPLATE:
            raise SecurityError(f"it has {len(source):,} characters, more than any chat template")
        return _Paid().visit(super()._parse(source, name, filename))

    def concat(self, pieces: Iterable[str]) -> str:  # type: ignore[override]
        """What the template, a macro or a block wrote."""
        budget, found, size = _BUDGET.get(), [], 0
        for piece in pieces:
            found.append(piece)
            size += len(piece)
            budget.spend(1 + len(piece) // UNIT)
            budget.check(size // UNIT)
        return "".join(found)

    def joined(self, *parts: Any) -> str:
        """`a ~ b`."""
        _check_plain(parts)
        budget = _BUDGET.get()
        budget.check(sum(map(budget.measured, parts)))
        return "".join(map(str, parts))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """The result, if it will not be too large."""
        _check_plain((left, right))
        budget = _BUDGET.get()
        size = budget.measured(left) + budget.measured(right)
        budget.spend(size)
        if operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            _check_percent(left, right)
        else:
            budget.check(size)
        return budget.admitted(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An entry or a slice."""
        _BUDGET.get().spend(CALL)
        _BUDGET.get().measured(argument)
        found = super().getitem(obj, argument)
        return _BUDGET.get().admitted(found) if isinstance(argument, slice) else found

    def getattr(self, obj: Any, attribute: str) -> Any:
        """An attribute or entry."""
        _BUDGET.get().spend()
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, with widths that are not too large."""
        if (function := super().wrap_str_format(value)) is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _check_format(value.__self__, [*args, *kwargs.values()])
            return function(*args, **kwargs)

        return checked

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of a call that a template may make."""
        budget = _BUDGET.get()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, (*PLAIN[:-1], bytes, type)) and owner is not None:
            _check_method(owner, getattr(__obj, "__name__", ""), [*args, *kwargs.values()])
        budget.spend(CALL + len(args) + len(kwargs))
        if __obj is dict:
            _check_hashed(args)
        budget.depth += 1
        if budget.depth > DEPTH:
            raise SecurityError(f"it makes more than {DEPTH} calls within calls")
        try:
            return budget.admitted(super().call(__context, __obj, *args, **kwargs))
        finally:
            budget.depth -= 1


def bounded_rendering(template: Any, variables: Mapping[str, Any]) -> str:
    """What a template of a `BoundedEnvironment` writes.

    Raises:
      SecurityError: it works too long or makes too much.
    """
    size = sum(map(_input_size, variables.values()))
    steps, largest = STEPS + STEPS_PER_UNIT * size, LARGEST_VALUE + 4 * size
    token = _BUDGET.set(Budget(steps, largest, time.monotonic() + SECONDS))
    try:
        context = template.new_context(variables)
        return template.environment.concat(template.root_render_func(context))
    finally:
        _BUDGET.reset(token)


def _input_size(value: Any) -> int:
    """Units of what is rendered, which costs nothing."""
    if isinstance(value, str):
        return 1 + len(value) // UNIT
    if isinstance(value, dict):
        return 1 + sum(map(_input_size, value.values()))
    return 1 + sum(map(_input_size, value)) if isinstance(value, list) else 1


@pass_context
def _written(context: Any, value: Any) -> Any:
    """What `{{ value }}` writes; passed the context, so that it never runs at compile time."""
    _check_plain((value,))
    _BUDGET.get().admitted(value)
    return value


def _check_plain(values: Sequence[Any]) -> None:
    """Texts are made of plain data: how long that of another object is cannot be foreseen."""
    for value in values:
        if not isinstance(value, PLAIN):
            raise SecurityError(f"it uses a {type(value).__name__} as a text or in a list")


def _compared(value: Any) -> Any:
    if not isinstance(value, str) or len(value) >= UNIT:
        budget = _BUDGET.get()
        budget.spend(budget.measured(value))
    return value


def _made(value: Any) -> Any:
    """A list, tuple or dictionary that the template spells."""
    return _BUDGET.get().admitted(value)


def _stepped(function: Callable) -> Callable:
    def stepped(*args: Any, **kwargs: Any) -> Any:
        _BUDGET.get().spend()
        return function(*args, **kwargs)

    stepped.__dict__.update(
        getattr(function, "__dict__", {})
    )  # whether Jinja passes it the context
    return stepped


def _bounded_filter(name: str, function: Callable) -> Callable:
    passed = int(hasattr(function, "jinja_pass_arg"))  # whether Jinja passes it the context

    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget = _BUDGET.get()
        values = [*args[passed:], *kwargs.values()]
        budget.spend()
        if name not in ("length", "count", "first", "last", "default", "d"):
            _check_plain(values)
            size = sum(map(budget.measured, values))
            budget.spend(CALL * size if name in ITERATING else size)
            _check_filter(name, values)
        return budget.admitted(function(*args, **kwargs))

    bounded.__dict__.update(getattr(function, "__dict__", {}))
    return bounded


def _check_filter(name: str, values: Sequence[Any]) -> None:
    value, *rest = values or [None]
    if name in WIDTHS:
        _check_widths(rest)
    if name in ITERATING and isinstance(value, str):
        _BUDGET.get().check(len(value))
    if name == "join" and rest:
        _check_join(str(rest[0]), value)
    elif name == "replace" and len(rest) > 1:
        _check_replace(str(value), str(rest[0]), str(rest[1]))
    elif name == "unique":
        _check_hashed([value])
    elif name == "format":
        _check_percent(str(value), rest)
    elif name == "indent":
        _check_padding(str(value).count("\n") + 1, rest)
    elif name == "sum" and any(isinstance(part, (list, tuple)) for part in rest):
        raise SecurityError("it sums lists")


def _check_method(owner: Any, name: str, values: Sequence[Any]) -> None:
    allowed = next((METHODS[kind] for kind in METHODS if isinstance(owner, kind)), frozenset())
    if name not in allowed or isinstance(owner, type):
        raise SecurityError(f"it calls {name!r} of a {type(owner).__name__}")
    budget = _BUDGET.get()
    _check_plain(values)
    budget.spend(sum(map(budget.measured, values)))
    if not isinstance(owner, str):
        return
    budget.spend(budget.measured(owner))
    if name in WIDTHS:
        _check_widths(values)
        _check_padding(owner.count("\t") + 1, values)
    elif name == "join" and values:
        _check_join(owner, values[0])
    elif name == "replace" and len(values) > 1:
        _check_replace(owner, str(values[0]), str(values[1]))
    elif name in ("split", "rsplit", "splitlines"):
        at = values[0] if values and isinstance(values[0], str) else None
        budget.check(owner.count(at) if at else len(owner.split(None, budget.largest)))


def _check_hashed(values: Sequence[Any]) -> None:
    for value in values:
        if isinstance(value, (list, tuple, range)) and len(value) > MOST_HASHED:
            raise SecurityError(f"it compares more than {MOST_HASHED} entries with one another")


def _check_widths(values: Sequence[Any]) -> None:
    for value in values:
        size = len(value) if isinstance(value, str) else value
        if isinstance(size, (int, float)) and not -LARGEST_WIDTH <= size <= LARGEST_WIDTH:
            raise SecurityError(f"it asks for a width of more than {LARGEST_WIDTH}")


def _check_padding(times: int, widths: Sequence[Any]) -> None:
    for width in widths:
        size = len(width) if isinstance(width, str) else width
        if isinstance(size, int):
            _BUDGET.get().check(times * size // UNIT)


def _check_join(separator: str, values: Any) -> None:
    budget = _BUDGET.get()
    count = 0 if isinstance(values, (int, float, types.NoneType, Undefined)) else len(values)
    budget.check(budget.measured(values) + count * len(separator) // UNIT)


def _check_replace(text: str, old: str, new: str) -> None:
    _BUDGET.get().check((len(text) + text.count(old) * len(new)) // UNIT)


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and not isinstance(right, int):
        left, right = right, left
    if isinstance(right, int) and isinstance(left, (str, list, tuple)):
        units = len(left) / UNIT if isinstance(left, str) else _BUDGET.get().measured(left)
        _BUDGET.get().check(int(min(right, 10**12) * units))


def _check_power(left: Any, right: Any) -> None:
    numbers = isinstance(left, int) and isinstance(right, int)
    if numbers and left.bit_length() * right > LARGEST_NUMBER:
        raise SecurityError(f"a number of more than {LARGEST_NUMBER} bits")


def _check_percent(text: str, values: Any) -> None:
    """Of `text % values`: a width may stand in the text or, for a star, in the values."""
    given = [*values] if isinstance(values, (list, tuple)) else [values]
    _check_plain(given)
    if WIDE_PERCENT.search(text):
        raise SecurityError(f"it asks for a width of more than {LARGEST_WIDTH}")
    if "*" in text:
        _check_widths([value for value in given if isinstance(value, int)])
    _check_written(text, text.count("%"), values)


def _check_format(text: str, values: Sequence[Any]) -> None:
    """Of `text.format(...)`."""
    _check_plain(values)
    _check_written(text, text.count("{"), list(values))
    specs = [spec or "" for _, _, spec, _ in string.Formatter().parse(text)]
    if any("{" in spec or re.search(r"\d{4}", spec) for spec in specs):
        raise SecurityError(f"it asks for a width of more than {LARGEST_WIDTH}")


def _check_written(text: str, times: int, values: Any) -> None:
    budget = _BUDGET.get()
    each = budget.measured(values) + LARGEST_WIDTH // UNIT
    budget.check(len(text) // UNIT + times * each)
