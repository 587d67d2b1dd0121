"""GPT-2."""

from typing import Any

from jaxalign.errors import UserError
from jaxalign.pretrained.hugging_face.family import PLAIN, Family
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import shown

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


def _gpt2_names(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """The same fields, each by its first name."""
    named: dict[str, Any] = {}
    for name, value in fields.items():
        first = GPT2_NAMES.get(name, name)
        if first in named and named[first] != value:
            raise UserError(f"{where}: {name} is {shown(value)}, {first} is {shown(named[first])}")
        named[first] = value
    return named


def _gpt2(found: Fields) -> dict[str, Any]:
    width, heads = found.need("n_embd"), found.need("n_head")
    found.check_multiple("n_embd", "n_head")
    found.get("n_ctx")  # an older name of n_positions, which stands beside it
    if found.get("add_cross_attention", False):
        found.refuse("add_cross_attention", "only false is")
    return {
        "vocab_size": found.need("vocab_size"),
        "max_length": found.need("n_positions"),
        "width": width,
        "layers": found.need("n_layer"),
        "heads": heads,
        "kv_heads": heads,
        "mlp_width": found.get("n_inner", 4 * width),
        "norm": "layer",
        "norm_epsilon": found.need("layer_norm_epsilon"),
        "positions": "learned",
        "activation": found.choose("activation_function", PLAIN, "gelu_new"),
        "tie_embeddings": found.need("tie_word_embeddings"),
        "qkv_biases": True,
        "output_biases": True,
        "mlp_biases": True,
        "attention_scale": None if found.get("scale_attn_weights", True) else 1.0,
        "attention_scale_by_layer": found.get("scale_attn_by_inverse_layer_idx", False),
    }


GPT2 = Family(
    model_type="gpt2",
    classes="GPT2",
    defaults=GPT2_DEFAULTS,
    read=_gpt2,
    prepared=_gpt2_names,
)
