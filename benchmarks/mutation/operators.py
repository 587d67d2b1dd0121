"""What may be wrong with a line: for one node of a syntax tree, the nodes to put in its place."""

import ast
import copy

BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISONS = {  # the boundary moved, the direction turned
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_FUNCTIONS = (
    ("min", "max"),
    ("minimum", "maximum"),
    ("pmin", "pmax"),
    ("sum", "mean"),
    ("any", "all"),
    ("zeros_like", "ones_like"),
    ("log", "log1p"),
    ("exp", "expm1"),
    ("saturating_exp", "saturating_expm1"),
    ("softplus", "relu"),
)
_VARIABLES = (("chosen", "rejected"), ("terminations", "truncations"))


def _both_ways(pairs) -> dict[str, str]:
    return {old: new for pair in pairs for old, new in (pair, pair[::-1])}


FUNCTIONS, VARIABLES = _both_ways(_FUNCTIONS), _both_ways(_VARIABLES)
UNWRAPPED = {  # calls that may be forgotten around their first argument
    *("stop_gradient", "abs", "sqrt", "exp", "log", "softplus", "sigmoid", "log_softmax", "clip"),
    *("saturating_exp", "saturating_expm1", "psum", "gather", "tempered", "shift_right"),
}
UNSWAPPED = {  # symmetric, or nothing but a type error
    *("maximum", "minimum", "min", "max", "logaddexp", "promote_types", "result_type"),
    *("asarray", "psum", "pmin", "pmax", "gather", "scan", "associative_scan", "fori_loop", "map"),
    *("zeros_like", "ones_like", "zeros", "broadcast_to", "swapaxes"),
}
MASKED = {"masked_sum", "masked_mean", "masked_variance", "whiten"}


def replacements(node: ast.AST) -> list[ast.AST]:
    """The wrong nodes that may stand where `node` does."""
    match node:
        case ast.Expr():  # a check that is not made
            return [ast.Pass()]
        case ast.If():
            return [ast.Pass()] if not node.orelse else []
        case ast.Constant():
            return _constants(node)
        case ast.BinOp() if type(node.op) in BINARY:
            return [ast.BinOp(node.left, BINARY[type(node.op)](), node.right)]
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not()):
            return [node.operand]
        case ast.BoolOp():
            return [
                ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
            ]
        case ast.Compare():
            return _comparisons(node)
        case ast.IfExp() if not _asks_for_none(node.test):  # else the comparison is turned
            return [ast.IfExp(node.test, node.orelse, node.body)]
        case ast.Attribute(value=ast.Name("jnp")) if node.attr in FUNCTIONS:
            return [ast.Attribute(node.value, FUNCTIONS[node.attr], node.ctx)]
        case ast.Attribute() if node.attr in VARIABLES:
            return [ast.Attribute(node.value, VARIABLES[node.attr], node.ctx)]
        case ast.Name() if node.id in VARIABLES and isinstance(node.ctx, ast.Load):
            return [ast.Name(VARIABLES[node.id], node.ctx)]
        case ast.Call():
            return _calls(node)
    return []


def _constants(node: ast.Constant) -> list[ast.AST]:
    """True and False change places, 0 becomes 1, a count grows by 1 and a real doubles."""
    value = node.value
    if isinstance(value, bool):
        return [ast.Constant(not value)]
    if isinstance(value, int):
        return [ast.Constant(value + 1)]
    if isinstance(value, float):
        return [ast.Constant(2 * value or 1.0)]
    return []


def _asks_for_none(test: ast.AST) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Is | ast.IsNot)


def _comparisons(node: ast.Compare) -> list[ast.AST]:
    found = []
    for place, operator in enumerate(node.ops):
        for other in COMPARISONS.get(type(operator), ()):
            operators = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            found.append(ast.Compare(node.left, operators, node.comparators))
    return found


def called(node: ast.Call) -> str:
    """`jax.lax.stop_gradient(x)` calls `stop_gradient`."""
    return getattr(node.func, "attr", None) or getattr(node.func, "id", "")


def _calls(node: ast.Call) -> list[ast.AST]:
    name, arguments = called(node), node.args
    found = [*_swapped_arguments(node), *_swapped_keywords(node), *_unmapped(node)]
    if name in FUNCTIONS:
        found.append(ast.Call(_renamed(node.func), arguments, node.keywords))
    if name in UNWRAPPED and arguments:
        found.append(arguments[0])
    if name == "widen":
        found.append(ast.Tuple(arguments, ast.Load()))
    if name == "where":
        found.append(arguments[1])
    if name in MASKED and len(arguments) > 1:
        ones_like = ast.Attribute(ast.Name("jnp", ast.Load()), "ones_like", ast.Load())
        everywhere = ast.Call(ones_like, [arguments[1]], [])
        found.append(_with_arguments(node, [arguments[0], everywhere, *arguments[2:]]))
    return [other for other in found if not isinstance(other, ast.Starred)]  # no expression


def _renamed(function: ast.expr) -> ast.expr:
    if isinstance(function, ast.Attribute):
        return ast.Attribute(function.value, FUNCTIONS[function.attr], function.ctx)
    assert isinstance(function, ast.Name)
    return ast.Name(FUNCTIONS[function.id], function.ctx)


def _with_arguments(node: ast.Call, arguments) -> ast.Call:
    return ast.Call(node.func, list(arguments), node.keywords)


def _swapped_arguments(node: ast.Call) -> list[ast.AST]:
    """Neighbours change places; of `where`, its branches, of `clip`, its bounds."""
    name, arguments = called(node), node.args
    if name in UNSWAPPED or any(isinstance(argument, ast.Starred) for argument in arguments):
        return []
    found = []
    for place in range(1 if name in ("where", "clip") else 0, len(arguments) - 1):
        first, second = arguments[place : place + 2]
        if ast.dump(first) != ast.dump(second) and "axis_name" not in map(_name, (first, second)):
            swapped = [*arguments[:place], second, first, *arguments[place + 2 :]]
            found.append(_with_arguments(node, swapped))
    return found


def _name(node: ast.AST) -> str:
    return getattr(node, "id", "")


def _swapped_keywords(node: ast.Call) -> list[ast.AST]:
    """The values of neighbouring keywords, unless both are constants (`axis=1, keepdims=True`)."""
    found = []
    for place in range(len(node.keywords) - 1):
        first, second = node.keywords[place : place + 2]
        values = (first.value, second.value)
        if None in (first.arg, second.arg) or ast.dump(values[0]) == ast.dump(values[1]):
            continue
        if any(isinstance(value, ast.Constant) for value in values):
            continue
        swapped = copy.copy(node)
        swapped.keywords = list(node.keywords)
        swapped.keywords[place : place + 2] = [
            ast.keyword(first.arg, values[1]),
            ast.keyword(second.arg, values[0]),
        ]
        found.append(swapped)
    return found


def _unmapped(node: ast.Call) -> list[ast.AST]:
    """`axis_name` is forgotten: each device for itself."""
    alone = ast.Constant(None)
    found = []
    for place, argument in enumerate(node.args):
        if _name(argument) == "axis_name":
            arguments = [*node.args[:place], alone, *node.args[place + 1 :]]
            found.append(_with_arguments(node, arguments))
    if any(keyword.arg == "axis_name" for keyword in node.keywords):
        keywords = [keyword for keyword in node.keywords if keyword.arg != "axis_name"]
        found.append(ast.Call(node.func, node.args, keywords))
    return found
