"""The declaration of a model family, and what those that are like Llama have in common."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import shown

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh")
PLAIN = {
    **dict.fromkeys(TANH_GELU, "gelu"),
    **dict.fromkeys(("gelu", "gelu_python"), "gelu_exact"),
    **dict.fromkeys(("silu", "swish"), "silu"),
    "relu": "relu",
    "tanh": "tanh",
}
OF_GATES = {"gelu": "geglu", "gelu_exact": "geglu_exact", "silu": "swiglu", "relu": "reglu"}
GATED = {name: OF_GATES[ours] for name, ours in PLAIN.items() if ours in OF_GATES}
SLIDING, FULL = "sliding_attention", "full_attention"


def as_they_are(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of a `config.json` that need no other names."""
    del where
    return fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of model that transformers has.

    model_type: in its `config.json`.
    classes: what the names of its classes in transformers begin with, before "ForCausalLM" say.
    defaults: what transformers takes where a file leaves a field out; a null is not left out.
    read: the fields of our `TransformerConfig`.
    prepared: the fields of a file under their first names, `(fields, where) -> fields`.
    """

    model_type: str
    classes: str
    defaults: Mapping[str, Any]
    read: Callable[[Fields], dict[str, Any]]
    prepared: Callable[[dict[str, Any], str], dict[str, Any]] = as_they_are


def llama_like(found: Fields, **more: Any) -> dict[str, Any]:
    """What Llama and its descendants have in common; `more` replaces it."""
    heads = found.need("num_attention_heads")
    found.check_multiple("num_attention_heads", "num_key_value_heads")
    if found.get("head_dim") is None:
        found.check_multiple("hidden_size", "num_attention_heads")
    if found.get("partial_rotary_factor", 1) != 1:
        found.refuse("partial_rotary_factor", "positions turn the whole width of a head")
    return {
        "vocab_size": found.need("vocab_size"),
        "max_length": found.need("max_position_embeddings"),
        "width": found.need("hidden_size"),
        "layers": found.need("num_hidden_layers"),
        "heads": heads,
        "kv_heads": found.get("num_key_value_heads", heads),
        "head_size": found.get("head_dim"),
        "mlp_width": found.need("intermediate_size"),
        "norm_epsilon": found.need("rms_norm_eps"),
        "tie_embeddings": found.need("tie_word_embeddings"),
    } | more


def windows(found: Fields, default: list[str], window: int | None) -> tuple[int, ...]:
    """The window of every layer, 0 where it sees all; empty if no layer has one."""
    kinds = found.get("layer_types", default)
    if len(kinds) != len(default):
        found.refuse("layer_types", f"it must be a list of {len(default)}, one a layer")
    if unknown := [kind for kind in kinds if kind not in (SLIDING, FULL)]:
        found.refuse("layer_types", f"{shown(unknown[0])} is no kind of layer known here")
    if SLIDING in kinds and window is None:
        found.refuse("layer_types", "a layer with a window needs a sliding_window in use")
    windows = tuple(window or 0 if kind == SLIDING else 0 for kind in kinds)
    return windows if any(windows) else ()
