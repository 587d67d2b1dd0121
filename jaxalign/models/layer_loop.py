"""A transformer of unrolled layers, computed by a loop over them: one block is compiled, not all.

The parameters keep their names, so a checkpoint does not tell how it was computed.
"""

import dataclasses
from typing import Any

from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.layer_stack import stacked
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.transformer import Outputs, Transformer
from jaxalign.numerics.types import Params


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
