"""Names and layout of parameters in model files of Hugging Face, for reading and writing.

A tensor is a parameter transposed, or several side by side, or a norm's gain less one.
"""

import re
from collections.abc import Iterator

import numpy as np

from jaxalign.models.architecture import TransformerConfig
from jaxalign.pretrained.weights import StorageRule, Weights, parameter_shapes, parameters

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
GEMMA_LAYER = LLAMA_LAYER | {
    "attention_out_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_out_norm": "post_feedforward_layernorm",
}
GPT2_LAYER = {
    "attention/output": "attn.c_proj",
    "feed_forward/up": "mlp.c_fc",
    "feed_forward/down": "mlp.c_proj",
    "attention_norm": "ln_1",
    "feed_forward_norm": "ln_2",
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
# Buffers that some files carry beside the parameters.
BUFFERS = re.compile(r".*(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)$")
OTHER_PARTS = ("vision_tower.", "multi_modal_projector.")
PREFIXES = ("model.language_model.", "language_model.model.", "language_model.")
LAYER = re.compile(r"trunk/layers_(\d+)/(.+)/(\w+)$")


def storage_rule(path: str, family: str) -> StorageRule:
    """Rule by which a model of a family stores the parameter `path`."""
    return _gpt2(path) if family == "gpt2" else _llama(path, gemma=family.startswith("gemma"))


def _llama(path: str, *, gemma: bool) -> StorageRule:
    """Rule of Llama and its descendants."""
    plain = {
        "trunk/embedding": StorageRule(name="model.embed_tokens.weight"),
        "trunk/norm/scale": StorageRule(name="model.norm.weight", offset=1.0 if gemma else 0.0),
        "unembedding": StorageRule(name=HEAD, transposed=True),
        **HEADS,
    }
    if (layer := LAYER.match(path)) is None:
        return plain[path]
    number, module, kind = layer.groups()
    theirs = (GEMMA_LAYER if gemma else LLAMA_LAYER)[module]
    return StorageRule(
        name=f"model.layers.{number}.{theirs}.{'bias' if kind == 'bias' else 'weight'}",
        transposed=kind == "kernel",
        offset=1.0 if gemma and kind == "scale" else 0.0,
    )


def _gpt2(path: str) -> StorageRule:
    """Rule of GPT-2."""
    plain = {
        "trunk/embedding": StorageRule(name="transformer.wte.weight"),
        "trunk/positions": StorageRule(name="transformer.wpe.weight"),
        "trunk/norm/scale": StorageRule(name="transformer.ln_f.weight"),
        "trunk/norm/bias": StorageRule(name="transformer.ln_f.bias"),
        "unembedding": StorageRule(name=HEAD, transposed=True),
        **HEADS,
    }
    if (layer := LAYER.match(path)) is None:
        return plain[path]
    number, module, kind = layer.groups()
    prefix, suffix = f"transformer.h.{number}", "bias" if kind == "bias" else "weight"
    joint = ("attention/query", "attention/key", "attention/value")
    if module in joint:
        name = f"{prefix}.attn.c_attn.{suffix}"
        return StorageRule(name=name, part=joint.index(module), parts=3)
    return StorageRule(name=f"{prefix}.{GPT2_LAYER[module]}.{suffix}")


def plain_name(name: str) -> str:
    """Name of a tensor in a plain text model of its family."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            return rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"
    if name.startswith(("h.", "wte.", "wpe.", "ln_f.")):
        return f"transformer.{name}"  # a model without head, as GPT-2 is published, has no prefix
    if name.startswith(("layers.", "embed_tokens.", "norm.")):
        return f"model.{name}"
    return name


def parameters_of_tensors(
    config: TransformerConfig, family: str, weights: Weights
) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters by path, one after another, read from the tensors of a Hugging Face model.

    Args:
      config: of the model.
      family: its `model_type`.
      weights: of the files, by the names of a plain text model.

    Raises:
      UserError: as `parameters` of `jaxalign.pretrained.weights`.
    """
    shapes = parameter_shapes(config)
    tied = {HEAD} if config.tie_embeddings else set()
    return parameters(
        weights,
        {path: storage_rule(path, family) for path in shapes},
        shapes,
        optional={SCORE_BIAS},  # a reward head of theirs has no bias
        ignored=lambda name: name in tied or not is_parameter(name),
    )


def embedding_name(family: str) -> str:
    """Name of the tensor of the token embeddings."""
    return storage_rule("trunk/embedding", family).name


def is_parameter(name: str) -> bool:
    """Whether a tensor is a parameter of the text model, and no buffer."""
    return not BUFFERS.match(name) and not name.removeprefix("model.").startswith(OTHER_PARTS)


def tensors_of_parameters(
    params: Iterator[tuple[str, np.ndarray]], family: str
) -> dict[str, np.ndarray]:
    """Tensors by name, as Hugging Face stores them, of parameters by path."""
    tensors, parts = {}, {}
    for path, array in params:
        rule = storage_rule(path, family)
        if rule.parts == 1:
            tensors[rule.name] = rule.written(array)
        else:
            parts.setdefault(rule.name, {})[rule.part] = rule.written(array)
    joined = {name: np.concatenate([x for _, x in sorted(each.items())], axis=-1)
              for name, each in parts.items()}  # fmt: skip
    return tensors | joined
