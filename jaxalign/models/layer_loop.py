"""A transformer of unrolled layers, computed by a loop over them: one block is compiled, not all.

The parameters keep their names, so a checkpoint does not tell how it was computed.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.transformer import Outputs, Transformer
from jaxalign.numerics.types import Params

LAYER = re.compile(r"layers_\d+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looped:
    """A transformer with the parameters of unrolled layers that loops over a stack of them.

    transformer: of unrolled layers.
    """

    transformer: Transformer

    @property
    def config(self) -> TransformerConfig:
        """Architecture of the transformer."""
        return self.transformer.config

    @property
    def ngrams(self) -> NgramConfig | None:
        """Of the transformer."""
        return self.transformer.ngrams

    def clone(self, **changes: Any) -> "Looped":
        """The same loop over a transformer with other fields."""
        return dataclasses.replace(self, transformer=self.transformer.clone(**changes))

    def apply(self, variables: dict[str, Params], *arguments: Any, **more: Any) -> Outputs:
        """Outputs for the transformer's arguments; layers that are stacked already stay so."""
        config = dataclasses.replace(self.config, scan_layers=True)
        stacks = {name: stacked(tree, config.layers) for name, tree in variables.items()}
        return self.transformer.clone(config=config).apply(stacks, *arguments, **more)  # pyright: ignore[reportReturnType]


def stacked(tree: Params, layers: int) -> Params:
    """Nested dicts with `layers_0`, `layers_1`, ... as one `stack` of arrays `[layers, ...]`."""
    if not isinstance(tree, dict):
        return tree
    rest = {n: stacked(part, layers) for n, part in tree.items() if not LAYER.fullmatch(n)}
    if len(rest) == len(tree):
        return rest
    parts = [tree[f"layers_{i}"] for i in range(layers)]
    return rest | {"stack": jax.tree.map(_stack, *parts)}


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
