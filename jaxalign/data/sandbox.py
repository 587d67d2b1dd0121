"""A Jinja environment that bounds the time and memory of a template, which a stranger wrote.

Every operation is paid for before it is done: a step each, and the size of what it reads and makes.
The sum is bounded, whatever the machine, so the same template and rows always end the same way; a
clock stops what the count should have missed. Nothing is interrupted from outside: no thread, no
signal. What no chat template needs (texts as large as a number says, methods and filters that look
for patterns, random words) is not there.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from jaxalign.data.sandbox_budget import (
    BUDGET,
    CALL,
    PLAIN,
    UNIT,
    check_plain,
    rendering_budget,
)
from jaxalign.data.sandbox_checks import (
    ITERATING,
    check_filter,
    check_format,
    check_hashed,
    check_method,
    check_percent,
    check_power,
    check_product,
)

LARGEST_TEMPLATE = 2**16  # characters; those of known models have up to 20,000
DEPTH = 50  # of calls within calls
NOT_NEEDED = ("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr")
# Names of own filters, which no template can spell.
COMPARISON, LOOP, CONTAINER = " compared", " looped", " made"


@dataclasses.dataclass(frozen=True)
class _CountedLoop:
    """The values of a loop, each of which costs a step."""

    values: Any

    def __iter__(self) -> Iterator[Any]:
        return BUDGET.get().count_steps(self.values)

    def __len__(self) -> int:
        return len(self.values)


class _BriefNamespace(Namespace):
    """Jinja's `namespace(...)` without a `repr` of its entries, which may hold one another."""

    def __repr__(self) -> str:
        return "<namespace>"


class _BudgetCalls(NodeTransformer):
    """Transformer of syntax trees that puts calls paid from the budget around operations.

    They are loops, comparisons, concatenations and literal lists, tuples and dictionaries.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _with_filter(LOOP, node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        call = nodes.Call(nodes.EnvironmentAttribute("concatenation"), node.nodes, [], None, None)
        return call.set_lineno(node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _with_filter(CONTAINER, node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _with_filter(CONTAINER, node) if node.ctx == "load" else node

    visit_Dict = visit_List

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        for part in (node, *node.ops):
            part.expr = _with_filter(COMPARISON, part.expr)
        return node


def _with_filter(name: str, node: Any) -> Any:
    """An expression with a filter behind it, unless it is a constant."""
    if isinstance(node, nodes.Const):
        return node
    return nodes.Filter(node, name, [], [], None, None).set_lineno(node.lineno)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a budget; what it compiles is rendered by `bounded_rendering` alone."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, filters: Mapping[str, Callable], **options: Any) -> None:
        super().__init__(optimized=False, finalize=_output, **options)
        del self.globals["lipsum"]
        self.globals["namespace"] = _BriefNamespace
        needed = {name: f for name, f in self.filters.items() if name not in NOT_NEEDED}
        functions = {**needed, **filters}
        self.filters = {
            name: _bounded_filter(name, function) for name, function in functions.items()
        }
        self.filters |= {
            COMPARISON: _paid_comparison,
            LOOP: _CountedLoop,
            CONTAINER: _paid_container,
        }
        self.tests = {name: _one_step_each(test) for name, test in self.tests.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > LARGEST_TEMPLATE:
            raise SecurityError(f"it has {len(source):,} characters, more than any chat template")
        return _BudgetCalls().visit(super()._parse(source, name, filename))

    def concat(self, pieces: Iterable[str]) -> str:  # type: ignore[override]
        """Text of a template, a macro or a block, from its pieces."""
        budget, parts, size = BUDGET.get(), [], 0
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            budget.spend(1 + len(piece) // UNIT)
            budget.check(size // UNIT)
        return "".join(parts)

    def concatenation(self, *parts: Any) -> str:
        """Text of the expression `a ~ b`."""
        check_plain(parts)
        budget = BUDGET.get()
        budget.check(sum(map(budget.size_of, parts)))
        return "".join(map(str, parts))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Result of a binary operator, refused before it is computed if it would be too large."""
        check_plain((left, right))
        budget = BUDGET.get()
        size = budget.size_of(left) + budget.size_of(right)
        budget.spend(size)
        if operator == "*":
            check_product(left, right)
        elif operator == "**":
            check_power(left, right)
        elif operator == "%" and isinstance(left, str):
            check_percent(left, right)
        else:
            budget.check(size)
        return budget.pay_for(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Entry or slice of a value."""
        BUDGET.get().spend(CALL)
        BUDGET.get().size_of(argument)
        entry = super().getitem(obj, argument)
        return BUDGET.get().pay_for(entry) if isinstance(argument, slice) else entry

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Attribute or entry of a value."""
        BUDGET.get().spend()
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` of a text with bounded widths; None where the value is another function."""
        if (function := super().wrap_str_format(value)) is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            check_format(value.__self__, [*args, *kwargs.values()])
            return function(*args, **kwargs)

        return checked

    def call(__self: Any, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Result of a call, where a template may make it."""
        budget = BUDGET.get()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, (*PLAIN[:-1], bytes, type)) and owner is not None:
            check_method(owner, getattr(__obj, "__name__", ""), [*args, *kwargs.values()])
        budget.spend(CALL + len(args) + len(kwargs))
        if __obj is dict:
            check_hashed(args)
        budget.depth += 1
        if budget.depth > DEPTH:
            raise SecurityError(f"it makes more than {DEPTH} calls within calls")
        try:
            return budget.pay_for(super().call(__context, __obj, *args, **kwargs))
        finally:
            budget.depth -= 1


def bounded_rendering(template: Any, variables: Mapping[str, Any]) -> str:
    """Text that a template of a `BoundedEnvironment` renders, within a budget of its own.

    Raises:
      SecurityError: it works too long or makes too much.
    """
    token = BUDGET.set(rendering_budget(variables))
    try:
        context = template.new_context(variables)
        return template.environment.concat(template.root_render_func(context))
    finally:
        BUDGET.reset(token)


@pass_context
def _output(context: Any, value: Any) -> Any:
    """Value of `{{ value }}`, paid for; with the context, so that it never runs at compile time."""
    check_plain((value,))
    BUDGET.get().pay_for(value)
    return value


def _paid_comparison(value: Any) -> Any:
    """An operand of a comparison, paid for."""
    if not isinstance(value, str) or len(value) >= UNIT:
        budget = BUDGET.get()
        budget.spend(budget.size_of(value))
    return value


def _paid_container(value: Any) -> Any:
    """A literal list, tuple or dictionary of the template, paid for."""
    return BUDGET.get().pay_for(value)


def _one_step_each(function: Callable[..., Any]) -> Callable[..., Any]:
    """A test of Jinja that costs one step a call."""

    def test(*args: Any, **kwargs: Any) -> Any:
        BUDGET.get().spend()
        return function(*args, **kwargs)

    test.__dict__.update(getattr(function, "__dict__", {}))  # whether Jinja passes the context
    return test


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja that is checked and paid for before it is called."""
    passed = int(hasattr(function, "jinja_pass_arg"))  # whether Jinja passes it the context

    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget = BUDGET.get()
        values = [*args[passed:], *kwargs.values()]
        budget.spend()
        if name not in ("length", "count", "first", "last", "default", "d"):
            check_plain(values)
            size = sum(map(budget.size_of, values))
            budget.spend(CALL * size if name in ITERATING else size)
            check_filter(name, values)
        return budget.pay_for(function(*args, **kwargs))

    bounded.__dict__.update(getattr(function, "__dict__", {}))
    return bounded
