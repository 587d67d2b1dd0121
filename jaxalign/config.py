"""The configurations of all stages: frozen, keyword-only dataclasses, checked when they are made.

Batch sizes are global. Every field is read by the stage that declares it; `--help` of a command shows them all.
"""

import dataclasses
from typing import Literal

from jaxalign.errors import UserError
from jaxalign.models.transformer import TransformerConfig


def config(cls):
    """Class decorator of every configuration."""
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def require(condition: bool, message: str):
    """Raise a one-line `UserError` unless the condition holds."""
    if not condition:
        raise UserError(message)


@config
class ModelConfig:
    """The policy/value transformer, short of what the data decide (vocabulary, length) and the heads."""

    width: int = 128
    """Model width D."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    kv_heads: int | None = None
    """Key/value heads (grouped-query attention); None: as many as heads."""
    mlp_width: int | None = None
    """Hidden width of the feed-forward part; None: 8/3 of the width for SwiGLU, 4 times for GELU."""
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
class OptimizerConfig:
    """AdamW or RMSprop with clipping and a schedule."""

    name: Literal["adamw", "rmsprop"] = "adamw"
    """Update rule."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up; linear and cosine end at 0."""
    warmup_steps: int = 20
    """Steps of linear warm-up from 0."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices."""
    b2: float = 0.99
    """Decay rate of the second moment."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""


@config
class FitConfig:
    """One training loop."""

    steps: int = 500
    """Optimizer steps."""
    batch_size: int = 64
    """Rows of a step over all devices and micro-batches (pairs for DPO, texts for a reward model)."""
    micro_batches: int = 1
    """Parts of a batch whose gradients are added up one after the other; the update is the same."""
    log_every: int = 20
    """Steps between lines of metrics."""
    checkpoint_every: int = 200
    """Steps between checkpoints; the run resumes from the last one."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule and schedule."""

    def __post_init__(self):
        require(
            self.batch_size % self.micro_batches == 0,
            f"batch_size {self.batch_size} is not a multiple of micro_batches {self.micro_batches}",
        )


@config
class SamplingConfig:
    """How text is drawn; the policy is the tempered, filtered distribution in training and evaluation alike."""

    temperature: float = 1.0
    """Logits are divided by it, > 0."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability; 1 keeps all."""
    max_new_tokens: int = 32
    """Longest response in tokens."""
