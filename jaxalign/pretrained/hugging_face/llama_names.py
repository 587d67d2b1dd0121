"""Names and layout of the parameters of Llama and its descendants in model files of Hugging Face.

A tensor is a parameter transposed, or several side by side, or a norm's gain less one.
"""

import re
from collections.abc import Mapping

from jaxalign.pretrained.weights import StorageRule

LLAMA_LAYER = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/output": "self_attn.o_proj",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
    "feed_forward/up": "mlp.up_proj",
    "feed_forward/gate": "mlp.gate_proj",
    "feed_forward/down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
}
HEAD = "lm_head.weight"
VALUE_HEAD = "v_head.summary.weight"  # as TRL's AutoModelForCausalLMWithValueHead stores it
SCORE_BIAS = "score.bias"  # no head of theirs has it; ours writes it into a file of its own
HEADS = {
    "score/readout/kernel": StorageRule(name="score.weight", transposed=True),
    "score/readout/bias": StorageRule(name=SCORE_BIAS),
    "value/readout/kernel": StorageRule(name=VALUE_HEAD, transposed=True),
    "value/readout/bias": StorageRule(name="v_head.summary.bias"),
}
LAYER = re.compile(r"trunk/layers_(\d+)/(.+)/(\w+)$")


def llama_rule(
    path: str, *, layer: Mapping[str, str] = LLAMA_LAYER, gain_offset: float = 0.0
) -> StorageRule:
    """Rule by which Llama and its descendants store a parameter.

    Args:
      path: of the parameter.
      layer: names of the modules of a block.
      gain_offset: what a norm's gain is more than the stored number.
    """
    plain = {
        "trunk/embedding": StorageRule(name="model.embed_tokens.weight"),
        "trunk/norm/scale": StorageRule(name="model.norm.weight", offset=gain_offset),
        "trunk/norm/bias": StorageRule(name="model.norm.bias"),
        "unembedding": StorageRule(name=HEAD, transposed=True),
        **HEADS,
    }
    if (block := LAYER.match(path)) is None:
        return plain[path]
    number, module, kind = block.groups()
    return StorageRule(
        name=f"model.layers.{number}.{layer[module]}.{'bias' if kind == 'bias' else 'weight'}",
        transposed=kind == "kernel",
        offset=gain_offset if kind == "scale" else 0.0,
    )
