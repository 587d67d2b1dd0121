"""Parameters of unrolled layers as a stack of arrays, and back."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.numerics.types import Params, Tree

LAYER = re.compile(r"layers_\d+")


def stacked(tree: Params, layers: int) -> Params:
    """Nested dicts with `layers_0`, `layers_1`, ... as one `stack` of arrays `[layers, ...]`."""
    if not isinstance(tree, dict):
        return tree
    rest = {n: stacked(part, layers) for n, part in tree.items() if not LAYER.fullmatch(n)}
    if len(rest) == len(tree):
        return rest
    parts = [tree[f"layers_{i}"] for i in range(layers)]
    return rest | {"stack": jax.tree.map(_stack, *parts)}


def unstacked(tree: Params, layers: int) -> Params:
    """Nested dicts with every `stack` of layers as `layers_0`, `layers_1`, ... again."""
    if not isinstance(tree, dict):
        return tree
    rest = {name: unstacked(part, layers) for name, part in tree.items() if name != "stack"}
    for i in range(layers if "stack" in tree else 0):
        rest[f"layers_{i}"] = jax.tree.map(lambda x, i=i: x[i], tree["stack"])
    return rest


def within(change: Any, tree: Tree, layers: int) -> Tree:
    """Any pytree with `stacked` or `unstacked` of the dicts in it."""
    return jax.tree.map(
        lambda part: change(part, layers), tree, is_leaf=lambda part: isinstance(part, dict)
    )


def can_be_stacked(tree: Params, layers: int) -> bool:
    """Whether all layers have the same arrays, wherever there are some."""
    if not isinstance(tree, dict):
        return True
    parts = [part for name, part in tree.items() if LAYER.fullmatch(name)]
    shapes = [jax.tree.map(lambda x: (np.shape(x), str(x.dtype)), part) for part in parts]
    alike = not parts or (len(parts) == layers and all(s == shapes[0] for s in shapes))
    rest = [part for name, part in tree.items() if not LAYER.fullmatch(name)]
    return alike and all(can_be_stacked(part, layers) for part in rest)


def _stack(*leaves: Any) -> Any:
    stack: Any = np.stack if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp.stack
    return stack(leaves)
