"""What a transformer looks like: the fields that fix its shape and arithmetic."""

import dataclasses

import jax.numpy as jnp

from jaxalign.errors import UserError

CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned"),
    "activation": ("swiglu", "gelu"),
    "compute_dtype": ("float32", "bfloat16"),
    "value_trunk": ("shared", "separate"),
    "score_pooling": ("last", "mean", "none"),
}
HEADS = ("logits", "value", "score", "step_score")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A decoder-only transformer; the defaults are a small Llama (https://arxiv.org/abs/2302.13971).

    vocab_size, max_length: ids, and the longest sequence in tokens.
    width, layers, heads, kv_heads, mlp_width: D, number of blocks, query heads, key and value heads
      (`heads / kv_heads` queries share one), and the hidden width of the feed-forward layers.
    norm, positions, activation, biases, tie_embeddings: Llama is rms, rope, swiglu, False;
      GPT-2 is layer, learned, gelu, True, True.
    norm_epsilon, rope_theta: added to the variance; base of the rotary wavelengths.
    dropout: share of the embeddings and of both branches of a block that keys make it drop.
    compute_dtype: of activations and matrix products; parameters, softmax and heads are float32.
    remat, scan_layers: recompute blocks in the backward pass; compile one block and loop over it.
    heads_out: which of logits, value, score and step_score the network has.
    value_trunk: whether values share the policy's trunk or have a network of their own.
    score_pooling: the score reads the last real token, their mean, or no hidden state.
    score_bag: whether the score adds a bag of tokens and of pairs of tokens.
    score_characters: longest token whose characters the bag reads too, in runs of 4 to 6; 0: none.
    score_bag_buckets: number of weights that the pairs (and the runs) share by hashing.
    score_bag_power: the bag's sum is divided by the number of its terms to this power (0 sums, 1
      averages).
    """

    vocab_size: int
    max_length: int
    width: int = 192
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    mlp_width: int = 512
    norm: str = "rms"
    positions: str = "rope"
    activation: str = "swiglu"
    biases: bool = False
    tie_embeddings: bool = True
    norm_epsilon: float = 1e-5
    rope_theta: float = 10_000.0
    dropout: float = 0.0
    compute_dtype: str = "float32"
    remat: bool = False
    scan_layers: bool = False
    heads_out: tuple[str, ...] = ("logits",)
    value_trunk: str = "shared"
    score_pooling: str = "last"
    score_bag: bool = False
    score_characters: int = 0
    score_bag_buckets: int = 262_144
    score_bag_power: float = 0.5

    def __post_init__(self):
        for field, choices in CHOICES.items():
            _check_choice(field, getattr(self, field), choices)
        for head in self.heads_out:
            _check_choice("heads_out", head, HEADS)
        _check_divides("width", self.width, "heads", self.heads)
        _check_divides("heads", self.heads, "kv_heads", self.kv_heads)
        if self.positions == "rope" and self.head_width % 2:
            raise UserError(f"rope turns pairs: width / heads must be even, got {self.head_width}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def dtype(self) -> jnp.dtype:
        """The compute dtype as a dtype."""
        return jnp.dtype(self.compute_dtype)


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{field} must be one of {', '.join(choices)}; got {value!r}")


def _check_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if divisor < 1 or value % divisor:
        raise UserError(f"{name} {value} must be a multiple of {divisor_name} {divisor}")
