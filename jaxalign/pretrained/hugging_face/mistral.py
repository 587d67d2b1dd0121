"""Mistral: Llama with a window in every layer."""

from typing import Any

from jaxalign.pretrained.hugging_face.family import FULL, GATED, SLIDING, Family, llama_like
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.pretrained.hugging_face.llama import LLAMA_DEFAULTS
from jaxalign.pretrained.hugging_face.rope_fields import rope

__all__ = ("MISTRAL",)

MISTRAL_DEFAULTS = LLAMA_DEFAULTS | {
    "intermediate_size": 14_336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}


def _mistral(found: Fields) -> dict[str, Any]:
    layers, window = found.need("num_hidden_layers"), found.get("sliding_window")
    kinds = [SLIDING if window else FULL] * layers
    if found.get("layer_types", kinds) != kinds:  # no reader of Mistral asks it
        found.refuse("layer_types", "all layers of a mistral have its sliding_window")
    return llama_like(
        found,
        activation=found.choose("hidden_act", GATED, "silu"),
        windows=(window,) * layers if window else (),
        **rope(found),
    )


MISTRAL = Family(
    model_type="mistral",
    classes="Mistral",
    defaults=MISTRAL_DEFAULTS,
    read=_mistral,
)
