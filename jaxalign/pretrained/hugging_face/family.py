"""Declaration of a family of models, and the fields that Llama and its descendants share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.pretrained.hugging_face.llama_names import llama_rule
from jaxalign.pretrained.weights import StorageRule
from jaxalign.system.files import quote

TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh")
ACTIVATIONS = {
    **dict.fromkeys(TANH_GELU, "gelu"),
    **dict.fromkeys(("gelu", "gelu_python"), "gelu_exact"),
    **dict.fromkeys(("silu", "swish"), "silu"),
    "relu": "relu",
    "tanh": "tanh",
}
GATED_NAMES = {"gelu": "geglu", "gelu_exact": "geglu_exact", "silu": "swiglu", "relu": "reglu"}
GATED_ACTIVATIONS = {
    name: GATED_NAMES[ours] for name, ours in ACTIVATIONS.items() if ours in GATED_NAMES
}
SLIDING, FULL = "sliding_attention", "full_attention"


def unchanged_fields(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Fields of a `config.json` as they are."""
    del where
    return fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models of transformers, by its `model_type`.

    model_type: in its `config.json`.
    classes: prefix of the names of its classes in transformers, before "ForCausalLM" for example.
    defaults: values of transformers for fields that a file leaves out; null does not count as such.
    read: fields of `TransformerConfig` from those of a file.
    prepared: fields of a file under their first names, `(fields, where) -> fields`.
    rule: how the tensor of a parameter is stored, by the parameter's path.
    """

    model_type: str
    classes: str
    defaults: Mapping[str, Any]
    read: Callable[[Fields], dict[str, Any]]
    prepared: Callable[[dict[str, Any], str], dict[str, Any]] = unchanged_fields
    rule: Callable[[str], StorageRule] = llama_rule

    @property
    def name(self) -> str:
        """The `model_type`."""
        return self.model_type


def llama_like(fields: Fields, **more: Any) -> dict[str, Any]:
    """Fields of `TransformerConfig` that Llama and its descendants share; `more` replaces them."""
    if "norm_epsilon" not in more:
        more["norm_epsilon"] = fields.need("rms_norm_eps")
    heads = fields.need("num_attention_heads")
    fields.check_multiple("num_attention_heads", "num_key_value_heads")
    if fields.get("head_dim") is None:
        fields.check_multiple("hidden_size", "num_attention_heads")
    if fields.get("partial_rotary_factor", 1) != 1:
        fields.refuse("partial_rotary_factor", "positions turn the whole width of a head")
    return {
        "vocab_size": fields.need("vocab_size"),
        "max_length": fields.need("max_position_embeddings"),
        "width": fields.need("hidden_size"),
        "layers": fields.need("num_hidden_layers"),
        "heads": heads,
        "kv_heads": fields.get("num_key_value_heads", heads),
        "head_size": fields.get("head_dim"),
        "mlp_width": fields.need("intermediate_size"),
        "tie_embeddings": fields.need("tie_word_embeddings"),
    } | more


def windows(fields: Fields, default: list[str], window: int | None) -> tuple[int, ...]:
    """Attention window of every layer in tokens, 0 for none; empty if no layer has one."""
    kinds = fields.get("layer_types", default)
    if len(kinds) != len(default):
        fields.refuse("layer_types", f"it must be a list of {len(default)}, one a layer")
    if unknown := [kind for kind in kinds if kind not in (SLIDING, FULL)]:
        fields.refuse("layer_types", f"{quote(unknown[0])} is no kind of layer known here")
    if SLIDING in kinds and window is None:
        fields.refuse("layer_types", "a layer with a window needs a sliding_window in use")
    layer_windows = tuple(window or 0 if kind == SLIDING else 0 for kind in kinds)
    return layer_windows if any(layer_windows) else ()
