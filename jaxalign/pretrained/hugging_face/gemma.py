"""The families Gemma 2 and 3: norms behind each block, windows, soft caps."""

import functools
from typing import Any

from jaxalign.errors import UserError
from jaxalign.pretrained.hugging_face.family import (
    FULL,
    GATED_ACTIVATIONS,
    SLIDING,
    Family,
    llama_like,
    windows,
)
from jaxalign.pretrained.hugging_face.fields import NUMBERS, TYPES, Fields
from jaxalign.pretrained.hugging_face.llama_names import LLAMA_LAYER, llama_rule
from jaxalign.pretrained.hugging_face.rope_fields import rope, two_ropes
from jaxalign.system.files import quote

__all__ = (
    "GEMMA2",
    "GEMMA3_TEXT",
    "GEMMA3",
)

GEMMA2_DEFAULTS = {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
GEMMA3_DEFAULTS = GEMMA2_DEFAULTS | {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "sliding_window_pattern": 6,
}

GEMMA_LAYER = LLAMA_LAYER | {
    "attention_out_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_out_norm": "post_feedforward_layernorm",
}
GEMMA_RULE = functools.partial(llama_rule, layer=GEMMA_LAYER, gain_offset=1.0)


def text_part(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Fields of the text model within a Gemma 3 that also reads images.

    Raises:
      UserError: there is no `text_config`, or a field beside it has another value.
    """
    text = fields.get("text_config")
    if not isinstance(text, dict):
        raise UserError(f"{where}: a gemma3 without text_config; gemma3_text is the plain kind")
    read = {*GEMMA3_DEFAULTS, *NUMBERS, *TYPES} - {"architectures", "id2label"}
    for name in sorted(read & fields.keys()):
        inner = text.get(
            name, GEMMA3_DEFAULTS.get(name) if name != "tie_word_embeddings" else fields[name]
        )
        if fields[name] not in (None, inner):
            raise UserError(
                f"{where}: {name} is {quote(fields[name])}, and in text_config {quote(inner)}"
            )
    outer = {k: fields[k] for k in ("tie_word_embeddings", "quantization_config") if k in fields}
    classes = {"architectures": fields.get("architectures"), "id2label": fields.get("id2label")}
    return outer | classes | text


def _gemma2(fields: Fields) -> dict[str, Any]:
    """Fields of Gemma 2."""
    every_other = [FULL if i % 2 else SLIDING for i in range(fields.need("num_hidden_layers"))]
    window = fields.get("sliding_window")
    fields.agree("sliding_window_size", "sliding_window", window)  # an older name
    return _gemma(
        fields,
        windows=windows(fields, every_other, window),
        attention_softcap=fields.get("attn_logit_softcapping"),
        logit_softcap=fields.get("final_logit_softcapping"),
        **rope(fields),
    )


def _gemma3(fields: Fields) -> dict[str, Any]:
    """Fields of Gemma 3."""
    pattern, layers = fields.get("sliding_window_pattern", 6), fields.need("num_hidden_layers")
    default = [SLIDING if (i + 1) % pattern else FULL for i in range(layers)]
    fields.get("attn_logit_softcapping")  # the reference implementation reads it and never caps
    return _gemma(
        fields,
        windows=windows(fields, default, fields.get("sliding_window")),
        qk_norm=True,
        logit_softcap=fields.get("final_logit_softcapping"),
        **two_ropes(fields),
    )


def _gemma(fields: Fields, **more: Any) -> dict[str, Any]:
    """Fields that Gemma 2 and 3 share."""
    width = fields.need("hidden_size")
    biases = fields.get("attention_bias", False)
    if fields.get("use_bidirectional_attention", False):
        fields.refuse("use_bidirectional_attention", "only causal attention is")
    fields.get("hidden_act")  # an older name, which the reference implementation does not read
    return llama_like(
        fields,
        activation=fields.choose("hidden_activation", GATED_ACTIVATIONS, "gelu_pytorch_tanh"),
        qkv_biases=biases,
        output_biases=biases,
        attention_scale=fields.need("query_pre_attn_scalar") ** -0.5,
        embedding_scale=width**0.5,
        post_norms=True,
        **more,
    )


GEMMA2 = Family(
    model_type="gemma2",
    classes="Gemma2",
    defaults=GEMMA2_DEFAULTS,
    read=_gemma2,
    rule=GEMMA_RULE,
)
GEMMA3_TEXT = Family(
    model_type="gemma3_text",
    classes="Gemma3",
    defaults=GEMMA3_DEFAULTS,
    read=_gemma3,
    rule=GEMMA_RULE,
)
GEMMA3 = Family(
    model_type="gemma3",
    classes="Gemma3",
    defaults=GEMMA3_DEFAULTS,
    read=_gemma3,
    rule=GEMMA_RULE,
    prepared=text_part,
)
