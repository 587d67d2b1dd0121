"""The sizes of a new model and of its vocabulary, and adapters for a trained one."""

from typing import Literal

from jaxalign.config.checks import changed_fields, config, require
from jaxalign.config.loop import OptimizerConfig


@config
class ModelConfig:
    """The policy/value transformer, short of what the data decide (vocabulary, length) and the
    heads.
    """

    width: int = 128
    """Model width D."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    kv_heads: int | None = None
    """Key/value heads (grouped-query attention); None: as many as heads."""
    mlp_width: int | None = None
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
    dropout: float = 0.2
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
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}; it must lie in [0, 1)")


@config
class TokenizerConfig:
    """The vocabulary that is learned from the training texts."""

    kind: Literal["word", "bpe"] = "word"
    """Frequent whole words with a fallback for the others, or byte-level BPE."""
    vocab_size: int = 4096
    """Largest number of tokens."""


@config
class LoraConfig:
    """Low-rank adapters in place of full fine-tuning: the trunk is frozen, heads of values and
    scores are trained beside them.
    """

    rank: int = 0
    """Rank r of every adapter; 0: no adapters, all parameters are trained."""
    alpha: float = 16.0
    """What an adapter adds is multiplied by alpha / rank."""
    rslora: bool = False
    """Multiply by alpha / sqrt(rank) instead."""
    dropout: float = 0.0
    """Share of the features of an adapter's input that is dropped in training, in [0, 1)."""
    targets: tuple[str, ...] = (
        "trunk/layers_[0-9]+/attention/(query|key|value|output)",
        "trunk/layers_[0-9]+/feed_forward/(gate|up|down)",
    )
    """Regular expressions of the dense layers that get one, by whole paths such as
    `trunk/layers_3/attention/query`."""
    base: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision in which the frozen weights are kept; int8 has a scale for every output."""

    def __post_init__(self):
        require(self.rank >= 0, f"lora.rank is {self.rank}; it must not be negative")
        require(self.alpha > 0, f"lora.alpha is {self.alpha}; it must be above 0")
        require(0 <= self.dropout < 1, f"lora.dropout is {self.dropout}; it must lie in [0, 1)")
        require(bool(self.targets), "lora.targets is empty; name at least one dense layer")
        unread = [] if self.rank else changed_fields(self, LoraConfig, "lora")
        require(
            not unread,
            f"lora.rank 0 trains all parameters and does not read {', '.join(unread)}; "
            "set lora.rank",
        )


def check_lora(lora: LoraConfig, optimizer: OptimizerConfig, *, sampled: bool = False):
    """What cannot go with adapters.

    Args:
      lora: of a command.
      optimizer: of its training loop.
      sampled: whether it learns from its own samples by their log-probabilities.
    """
    require(
        not lora.rank or optimizer.name != "muon",
        "muon is for the matrices that lora.rank freezes; choose adamw or rmsprop",
    )
    require(
        not sampled or not lora.dropout,
        f"lora.dropout is {lora.dropout}; samples are drawn without, and with it the policy that "
        "learns from them would be another one: set it to 0",
    )


def require_base(
    init: str, adapter: str, lora: LoraConfig, model: ModelConfig, tokenizer: TokenizerConfig
):
    """An adapter needs a trained model below it, which has sizes and a vocabulary already."""
    require(
        bool(init) or not (lora.rank or adapter),
        "lora.rank and adapter need a trained model below them; set init",
    )
    unread = changed_fields(model, ModelConfig(), "model")
    unread += changed_fields(tokenizer, TokenizerConfig(), "tokenizer")
    require(
        not (init and unread),
        f"init {init} has a model and a vocabulary, which does not go with {', '.join(unread)}",
    )
