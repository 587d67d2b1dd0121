"""The mutants of a file: each a function with one wrong node, with its position and its source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutation.operators import called, replacements


@dataclass(frozen=True, order=True)
class Mutant:
    file: str
    """Below the folder of the package: losses/dpo.py."""
    function: str
    """`dpo_loss`, or `Class.method`."""
    lines: tuple[int, int]
    """First and last line of the statement."""
    line: str
    """The first line of the statement, stripped."""
    description: str
    """What stood there, and what does now."""
    source: str
    """The whole function, mutated."""

    @property
    def key(self) -> str:
        """What the mutant is, wherever its line stands."""
        return " | ".join((self.file, self.function, self.line, self.description))


def mutants(path: Path, file: str) -> list[Mutant]:
    """Every mutant of the functions of a file, in the order of the file."""
    text = path.read_text()
    found: dict[tuple[str, str], Mutant] = {}
    keys: dict[str, int] = {}
    for function, tree in functions(ast.parse(text)):
        original = ast.unparse(tree)
        for mutant in _of_function(file, function, tree, text.splitlines()):
            if mutant.source == original or (function, mutant.source) in found:
                continue
            keys[mutant.key] = keys.get(mutant.key, 0) + 1
            if keys[mutant.key] > 1:
                description = f"{mutant.description} (place {keys[mutant.key]})"
                mutant = Mutant(**{**vars(mutant), "description": description})
            found[function, mutant.source] = mutant
    return list(found.values())


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions of a module and the methods of its classes, without docstring and types."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, _bare(node)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    yield f"{node.name}.{method.name}", _bare(method)


def _bare(function: ast.FunctionDef) -> ast.FunctionDef:
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns, node.decorator_list = None, []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return function


@dataclass(frozen=True)
class _Place:
    """Where a node stands: a field of the innermost of `above`, or an element of that field."""

    above: tuple[ast.AST, ...]
    field: str
    index: int | None

    def put(self, node: ast.AST):
        if self.index is None:
            setattr(self.above[-1], self.field, node)
        else:
            getattr(self.above[-1], self.field)[self.index] = node

    @property
    def statement(self) -> ast.AST:
        return next(node for node in reversed(self.above) if isinstance(node, ast.stmt))

    @property
    def surroundings(self) -> ast.AST:
        """The innermost expression that says more than `1`."""
        parts = (ast.Slice, ast.Tuple, ast.List, ast.UnaryOp, ast.keyword)
        return next(node for node in reversed(self.above) if not isinstance(node, parts))


def _of_function(file, function, tree, text) -> Iterator[Mutant]:
    for node, place in _nodes(tree, ()):
        statement = node if isinstance(node, ast.stmt) else place.statement
        first, last = _span(statement)
        for other in replacements(node):
            around = place.surroundings if isinstance(node, ast.Constant | ast.Name) else None
            before = ast.unparse(around or node)
            place.put(ast.copy_location(other, node))
            after = ast.unparse(around or other)
            source = ast.unparse(tree)
            place.put(node)
            described = _description(node, before, after)
            yield Mutant(file, function, (first, last), text[first - 1].strip(), described, source)


def _span(statement: ast.AST) -> tuple[int, int]:
    """The lines that run when the statement does; any line of the function for a default."""
    last = statement.test if isinstance(statement, ast.If) else statement
    return statement.lineno, last.end_lineno


def _description(node: ast.AST, before: str, after: str) -> str:
    first, *more = before.splitlines()
    if isinstance(node, ast.stmt):
        return f"dropped `{first}{' ...' if more else ''}`"
    return f"`{first}` -> `{after.splitlines()[0]}`"


def _nodes(node: ast.AST, above: tuple[ast.AST, ...]) -> Iterator[tuple[ast.AST, _Place]]:
    """Every node that may be mutated, with its place."""
    above = (*above, node)
    for field, value in ast.iter_fields(node):
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_no_mathematics(child):
                continue
            yield child, _Place(above, field, index)
            if not isinstance(child, ast.Expr):  # a check is dropped whole
                yield from _nodes(child, above)


def _is_no_mathematics(node: ast.AST) -> bool:
    """Messages are not; nor is the test for a kind of argument or for equal lengths of a zip."""
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True
    if isinstance(node, ast.Call) and called(node) == "isinstance":
        return True
    return isinstance(node, ast.Raise | ast.JoinedStr)
