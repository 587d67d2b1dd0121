"""The sizes of a new model and of its vocabulary."""

from typing import Literal

from jaxalign.config.checks import config, require
from jaxalign.config.ranges import LongSize, ShareBelowOne, Size, SmallSize


@config
class ModelConfig:
    """Sizes and parts of a new transformer; the data decide its vocabulary and length."""

    width: Size = 128
    """Width D of the vectors between blocks; a multiple of heads."""
    layers: SmallSize = 2
    """Transformer blocks."""
    heads: SmallSize = 4
    """Attention heads."""
    kv_heads: SmallSize | None = None
    """Key/value heads (grouped-query attention); None: as many as heads."""
    mlp_width: Size | None = None
    """Hidden width of the feed-forward part; None: 8/3 of the width for SwiGLU, 4 times for
    GELU.
    """
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm or LayerNorm."""
    positions: Literal["rope", "learned"] = "rope"
    """Rotary or learned absolute positions."""
    activation: Literal["swiglu", "gelu"] = "swiglu"
    """Feed-forward non-linearity."""
    tie_embeddings: bool = True
    """The output head is the transposed embedding."""
    dropout: ShareBelowOne = 0.2
    """Dropout of embeddings and of both parts of every block, in [0, 1)."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the products; parameters and log-probabilities are float32 always."""
    remat: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    scan_layers: bool = False
    """One compiled block for all layers: quick compilation of deep models."""
    value_trunk: Literal["shared", "separate"] = "shared"
    """Whether values are read from the policy's trunk or from one of their own."""

    def __post_init__(self):
        require(
            self.width % self.heads == 0,
            f"model.width {self.width} is not a multiple of model.heads {self.heads}",
        )
        require(
            self.heads % (self.kv_heads or self.heads) == 0,
            f"model.heads {self.heads} is not a multiple of model.kv_heads {self.kv_heads}",
        )


@config
class TokenizerConfig:
    """The vocabulary that is learned from the training texts."""

    kind: Literal["word", "bpe"] = "word"
    """Frequent whole words with a fallback for the others, or byte-level BPE."""
    vocab_size: LongSize = 4096
    """Largest number of tokens, single bytes and special ones included."""
