"""Architecture of a transformer: the fields that fix its shape and arithmetic."""

import dataclasses
import difflib
from typing import Any

import jax.numpy as jnp

from jaxalign.errors import UserError
from jaxalign.models.ranges import LENGTH, check_ranges
from jaxalign.models.rope import RopeScaling
from jaxalign.system.files import as_type, quote

CHOICES = {
    "norm": ("rms", "layer"),
    "positions": ("rope", "learned"),
    "activation": (
        *("swiglu", "geglu", "geglu_exact", "reglu"),
        *("gelu", "gelu_exact", "relu", "silu", "tanh"),
    ),
    "compute_dtype": ("float32", "bfloat16"),
    "value_trunk": ("shared", "separate"),
    "score_pooling": ("last", "mean", "both"),
}
# Fields of earlier versions, which said nothing of a model without a bag of tokens.
EARLIER = ("score_bag", "score_characters", "score_bag_buckets", "score_bag_power")
HEADS = ("logits", "value", "score", "step_score")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A decoder-only transformer; the defaults are a small Llama (https://arxiv.org/abs/2302.13971).

    vocab_size, max_length: ids, and the longest sequence in tokens.
    token_ranges: pairs of first id and last plus one: the ids that are tokens. Any other, as in a
      vocabulary that is padded to a round number, has probability 0; empty: all are tokens.
    width, layers, heads, kv_heads, mlp_width: D, number of blocks, query heads, key and value heads
      (`heads / kv_heads` queries share one), and the hidden width of the feed-forward layers.
    head_size: width of a head; None: width / heads.
    norm, positions, activation, tie_embeddings: Llama is rms, rope, swiglu; GPT-2 is layer,
      learned, gelu, True; Gemma is rms, rope, geglu, True.
    qkv_biases, output_biases, mlp_biases: of the query, key and value projections, of attention's
      output, and of the feed-forward layers.
    qk_norm: queries and keys are normalised, a head at a time (Qwen 3, Gemma 3).
    post_norms: outputs of attention and feed-forward layers are normalised before they are added
      (Gemma 2, 3).
    windows: sliding window of each layer in tokens, the token itself included; 0: no window; empty:
      no layer has one.
    attention_scale: factor of the products of queries and keys; None: 1 / sqrt(head width).
    attention_scale_by_layer: they are divided by the number of the layer too, from 1.
    attention_softcap, logit_softcap: `c tanh(x / c)` of those products, of the logits; None: none.
    embedding_scale: factor of the embeddings at the bottom; the logits do not have it.
    norm_epsilon: added to the variance.
    rope_theta, rope_scaling: base of the rotary wavelengths, and how they are stretched.
    window_rope_theta, window_rope_scaling: those of the layers with a window, if they differ; base
      None: as the others.
    dropout: share of the features dropped, with keys, from the embeddings and from the outputs of
      attention and feed-forward layers.
    compute_dtype: of activations and matrix products; parameters, softmax and heads are float32.
    remat, scan_layers: recompute blocks in the backward pass; compile one block and loop over it.
    heads_out: which of logits, value, score and step_score the network has.
    value_trunk: whether values share the policy's trunk or have a network of their own.
    score_pooling: the score reads the last real token, their mean, or both.
    """

    vocab_size: int
    max_length: int
    token_ranges: tuple[tuple[int, int], ...] = ()
    width: int = 192
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    head_size: int | None = None
    mlp_width: int = 512
    norm: str = "rms"
    positions: str = "rope"
    activation: str = "swiglu"
    tie_embeddings: bool = True
    qkv_biases: bool = False
    output_biases: bool = False
    mlp_biases: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    windows: tuple[int, ...] = ()
    attention_scale: float | None = None
    attention_scale_by_layer: bool = False
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float = 1.0
    norm_epsilon: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    window_rope_theta: float | None = None
    window_rope_scaling: RopeScaling | None = None
    dropout: float = 0.0
    compute_dtype: str = "float32"
    remat: bool = False
    scan_layers: bool = False
    heads_out: tuple[str, ...] = ("logits",)
    value_trunk: str = "shared"
    score_pooling: str = "last"

    def __post_init__(self):
        for field, choices in CHOICES.items():
            _check_choice(field, getattr(self, field), choices)
        for head in self.heads_out:
            _check_choice("heads_out", head, HEADS)
        if len(set(self.heads_out)) < len(self.heads_out) or not self.heads_out:
            raise UserError(f"heads_out must name each head once, got {quote(self.heads_out)}")
        check_ranges(self)
        if self.head_size is None:
            _check_divides("width", self.width, "heads", self.heads)
        _check_divides("heads", self.heads, "kv_heads", self.kv_heads)
        if self.positions == "rope" and self.head_width % 2:
            raise UserError(f"rope turns pairs: width / heads must be even, got {self.head_width}")
        if self.window_rope_scaling is not None and self.window_rope_theta is None:
            raise UserError("window_rope_scaling stretches a window_rope_theta, which is not given")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must lie in [0, 1), got {self.dropout}")
        fit = all(window == 0 or window in LENGTH for window in self.windows)
        if self.windows and (len(self.windows) != self.layers or not fit):
            raise UserError(
                f"windows must name {self.layers} numbers from 0, one a layer; got "
                f"{quote(self.windows)}"
            )

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads if self.head_size is None else self.head_size

    @property
    def dtype(self) -> jnp.dtype:
        """The compute dtype as a dtype."""
        return jnp.dtype(self.compute_dtype)

    @classmethod
    def from_json(cls, fields: dict[str, Any], where: str = "config.json") -> "TransformerConfig":
        """Configuration from the JSON form of `dataclasses.asdict`.

        Args:
          fields: by name; one that is missing has its default.
          where: the file's name, for messages.

        Raises:
          UserError: names a field that is unknown, of another type or out of its range.
        """
        if fields.get("score_bag"):
            raise UserError(
                f"{where}: score_bag: a reward model of an earlier version, which is not read any "
                "more; train it again"
            )
        fields = {name: value for name, value in fields.items() if name not in EARLIER}
        check_names(fields, cls, where)
        for name in ("rope_scaling", "window_rope_scaling"):
            if isinstance(scaling := fields.get(name), dict):
                check_names(scaling, RopeScaling, f"{where}: {name}")
        return as_type(fields, cls, where)


def check_names(fields: dict[str, Any], kind: type, where: str) -> None:
    """Raise a one-line `UserError` for a field that a configuration does not have."""
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := [name for name in fields if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0)
        raise UserError(f"{where}: unknown field {quote(unknown[0])}; the nearest is {near[0]}")


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{field} must be one of {', '.join(choices)}; got {quote(value)}")


def _check_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if divisor < 1 or value % divisor:
        raise UserError(f"{name} {value} must be a multiple of {divisor_name} {divisor}")
