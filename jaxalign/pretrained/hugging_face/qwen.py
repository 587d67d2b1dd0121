"""Qwen 2 and 3: Llama with biases, or with norms of queries and keys."""

from typing import Any

from jaxalign.pretrained.hugging_face.family import (
    FULL,
    GATED,
    SLIDING,
    Family,
    llama_like,
    windows,
)
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.pretrained.hugging_face.llama import LLAMA_DEFAULTS
from jaxalign.pretrained.hugging_face.rope_fields import rope

__all__ = (
    "QWEN2",
    "QWEN3",
)

QWEN2_DEFAULTS = LLAMA_DEFAULTS | {
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 28,
}


def _qwen2(found: Fields) -> dict[str, Any]:
    return _qwen(found, qkv_biases=True)


def _qwen3(found: Fields) -> dict[str, Any]:
    biases = found.get("attention_bias", False)
    return _qwen(found, qkv_biases=biases, output_biases=biases, qk_norm=True)


def _qwen(found: Fields, **more: Any) -> dict[str, Any]:
    layers, window = found.need("num_hidden_layers"), found.get("sliding_window")
    first, windowed = found.need("max_window_layers"), found.need("use_sliding_window")
    window = window if windowed else None
    default = [SLIDING if window and i >= first else FULL for i in range(layers)]
    return llama_like(
        found,
        activation=found.choose("hidden_act", GATED, "silu"),
        windows=windows(found, default, window),
        **rope(found),
        **more,
    )


QWEN2 = Family(
    model_type="qwen2",
    classes="Qwen2",
    defaults=QWEN2_DEFAULTS,
    read=_qwen2,
)
QWEN3 = Family(
    model_type="qwen3",
    classes="Qwen3",
    defaults=QWEN2_DEFAULTS | {"head_dim": 128},
    read=_qwen3,
)
