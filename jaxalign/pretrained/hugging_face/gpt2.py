"""The family GPT-2: learned positions, layer norms, biases."""

from typing import Any

from jaxalign.errors import UserError
from jaxalign.pretrained.hugging_face.family import ACTIVATIONS, Family
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.pretrained.hugging_face.llama_names import HEAD, HEADS, LAYER
from jaxalign.pretrained.weights import StorageRule
from jaxalign.system.files import quote

__all__ = ("GPT2",)

GPT2_DEFAULTS = {
    "vocab_size": 50_257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
# Other names of the fields of GPT-2, which transformers reads too.
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

GPT2_LAYER = {
    "attention/output": "attn.c_proj",
    "feed_forward/up": "mlp.c_fc",
    "feed_forward/down": "mlp.c_proj",
    "attention_norm": "ln_1",
    "feed_forward_norm": "ln_2",
}


def _first_names(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """Fields under their first names, of which transformers knows two."""
    renamed: dict[str, Any] = {}
    for name, value in fields.items():
        first = GPT2_NAMES.get(name, name)
        if first in renamed and renamed[first] != value:
            raise UserError(
                f"{where}: {name} is {quote(value)}, {first} is {quote(renamed[first])}"
            )
        renamed[first] = value
    return renamed


def _gpt2(fields: Fields) -> dict[str, Any]:
    """Fields of GPT-2."""
    width, heads = fields.need("n_embd"), fields.need("n_head")
    fields.check_multiple("n_embd", "n_head")
    fields.get("n_ctx")  # an older name of n_positions, which stands beside it
    if fields.get("add_cross_attention", False):
        fields.refuse("add_cross_attention", "only false is")
    return {
        "vocab_size": fields.need("vocab_size"),
        "max_length": fields.need("n_positions"),
        "width": width,
        "layers": fields.need("n_layer"),
        "heads": heads,
        "kv_heads": heads,
        "mlp_width": fields.get("n_inner", 4 * width),
        "norm": "layer",
        "norm_epsilon": fields.need("layer_norm_epsilon"),
        "positions": "learned",
        "activation": fields.choose("activation_function", ACTIVATIONS, "gelu_new"),
        "tie_embeddings": fields.need("tie_word_embeddings"),
        "qkv_biases": True,
        "output_biases": True,
        "mlp_biases": True,
        "attention_scale": None if fields.get("scale_attn_weights", True) else 1.0,
        "attention_scale_by_layer": fields.get("scale_attn_by_inverse_layer_idx", False),
    }


def _gpt2_rule(path: str) -> StorageRule:
    """Rule by which GPT-2 stores a parameter: query, key and value side by side."""
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


GPT2 = Family(
    model_type="gpt2",
    classes="GPT2",
    defaults=GPT2_DEFAULTS,
    read=_gpt2,
    prepared=_first_names,
    rule=_gpt2_rule,
)
