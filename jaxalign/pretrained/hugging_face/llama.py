"""Llama 2 and 3, SmolLM2, and what was made after them."""

from typing import Any

from jaxalign.pretrained.hugging_face.family import GATED, Family, llama_like
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.pretrained.hugging_face.rope_fields import rope

__all__ = ("LLAMA",)

LLAMA_DEFAULTS = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}


def _llama(found: Fields) -> dict[str, Any]:
    biases = found.get("attention_bias", False)
    return llama_like(
        found,
        activation=found.choose("hidden_act", GATED, "silu"),
        qkv_biases=biases,
        output_biases=biases,
        mlp_biases=found.get("mlp_bias", False),
        **rope(found),
    )


LLAMA = Family(
    model_type="llama",
    classes="Llama",
    defaults=LLAMA_DEFAULTS,
    read=_llama,
)
