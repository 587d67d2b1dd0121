"""`TransformerConfig` of a GGUF file's metadata.

Missing keys have the defaults of llama.cpp. Every key below the architecture's name is either read,
known to change nothing, or an error that names it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.rope import RopeScaling, frequencies
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import as_type, quote

Shapes = Mapping[str, tuple[int, ...]]
# Gemma's largest models, by layers: their scale is 1 / sqrt(width / heads), not of a head's width.
GEMMA_27B = {"gemma2": 46, "gemma3": 62}
GEMMA3_WINDOW_THETA = 10_000.0
LLAMA3_LENGTH = 8192  # tokens that Llama 3 was trained on before its positions were stretched


def read_gguf_config(
    metadata: dict[str, Any], shapes: Shapes, divisors: np.ndarray | None, where: str
) -> TransformerConfig:
    """Configuration of the model in a GGUF file.

    Args:
      metadata: of the file.
      shapes: of its tensors, rows first.
      divisors: `[H / 2]` of the rotary frequencies, the tensor `rope_freqs.weight` if it has one.
      where: name of the file, for messages.

    Raises:
      UserError: another kind of model, a key that is missing, or one that is not supported.
    """
    name = metadata.get("general.architecture")
    if metadata.get("general.type", "model") != "model":
        raise UserError(
            f"{where}: general.type {quote(metadata['general.type'])} is not a whole model"
        )
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UserError(
            f"{where}: general.architecture {quote(name)} is none of {', '.join(ARCHITECTURES)}"
        )
    below = {k.removeprefix(f"{name}."): v for k, v in metadata.items() if k.startswith(f"{name}.")}
    fields = Fields(below, f"{where}, {name}.*")
    if not fields.get("attention.causal", True):
        fields.refuse("attention.causal", "only true is")
    if len(shapes.get("token_embd.weight", ())) != 2:
        raise UserError(f"{where}: no tensor token_embd.weight of rows and columns")
    config = ARCHITECTURES[name](fields, shapes)
    if config.get("positions") != "learned":
        config |= _rope(fields, divisors, config, where)
    fields.finish()
    return as_type(config, TransformerConfig, where)


def _common(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields of the configuration that all architectures have."""
    heads, width = fields.need("attention.head_count"), fields.need("embedding_length")
    size = fields.get("attention.key_length")
    fields.check_multiple("attention.head_count", "attention.head_count_kv")
    if size is None:
        fields.check_multiple("embedding_length", "attention.head_count")
    for name in ("attention.value_length", "rope.dimension_count"):
        if fields.get(name, size or width // heads) != (size or width // heads):
            fields.refuse(name, f"only the width of a head, {size or width // heads}, is")
    rows = shapes["token_embd.weight"][0]
    if fields.get("vocab_size", rows) != rows:
        fields.refuse("vocab_size", f"token_embd.weight has {rows} rows")
    return {
        "vocab_size": rows,
        "max_length": fields.need("context_length"),
        "width": width,
        "layers": fields.need("block_count"),
        "heads": heads,
        "kv_heads": fields.get("attention.head_count_kv", heads),
        "head_size": size,
        "mlp_width": fields.need("feed_forward_length"),
        "tie_embeddings": "output.weight" not in shapes,
        "attention_scale": fields.get("attention.scale") or None,
    }


def _gpt2(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields of GPT-2."""
    return _common(fields, shapes) | {
        "norm": "layer",
        "norm_epsilon": fields.need("attention.layer_norm_epsilon"),
        "positions": "learned",
        "activation": "gelu",
        "qkv_biases": True,
        "output_biases": True,
        "mlp_biases": True,
    }


def _llama_like(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields that Llama and its descendants have in common."""
    return _common(fields, shapes) | {
        "norm_epsilon": fields.need("attention.layer_norm_rms_epsilon"),
        "qkv_biases": "blk.0.attn_q.bias" in shapes,
        "output_biases": "blk.0.attn_output.bias" in shapes,
        "mlp_biases": "blk.0.ffn_up.bias" in shapes,
    }


def _llama(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields of Llama and Mistral."""
    if fields.get("tensor_data_layout", "Meta AI original pth") != "Meta AI original pth":
        fields.refuse("tensor_data_layout", "only 'Meta AI original pth' is")
    # Mistral: where the file names a window and no pattern, all layers have it.
    return _llama_like(fields, shapes) | {"windows": _windows(fields, fields.get(WINDOW, 0), 0)}


def _qwen2(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields of Qwen 2."""
    window = fields.get(WINDOW, 0)
    if window and fields.get(PATTERN) is None:
        fields.refuse(WINDOW, f"it needs {PATTERN}, which says what layers have it")
    return _llama_like(fields, shapes) | {"windows": _windows(fields, window, 0)}


def _qwen3(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields of Qwen 3."""
    return _qwen2(fields, shapes) | {"qk_norm": True}


def _gemma2(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields of Gemma 2."""
    return _gemma(fields, shapes, "gemma2") | {
        "windows": _windows(fields, fields.get(WINDOW, 4096), 2),
        "attention_softcap": fields.get("attn_logit_softcapping", 50.0),
        "logit_softcap": fields.get("final_logit_softcapping", 30.0),
    }


def _gemma3(fields: Fields, shapes: Shapes) -> dict[str, Any]:
    """Fields of Gemma 3."""
    fields.need("rope.freq_base")
    return _gemma(fields, shapes, "gemma3") | {
        "windows": _windows(fields, fields.get(WINDOW, 0), 6),
        "window_rope_theta": fields.get("rope.freq_base_swa", GEMMA3_WINDOW_THETA),
        "qk_norm": True,
        "logit_softcap": fields.get("final_logit_softcapping"),
    }


def _gemma(fields: Fields, shapes: Shapes, name: str) -> dict[str, Any]:
    """Fields that Gemma 2 and 3 have in common."""
    config = _llama_like(fields, shapes)
    share = config["width"] // config["heads"]
    divisor = share if config["layers"] == GEMMA_27B[name] else config["head_size"] or share
    return config | {
        "activation": "geglu",
        "attention_scale": config["attention_scale"] or divisor**-0.5,
        "embedding_scale": config["width"] ** 0.5,
        "post_norms": True,
    }


WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


def _windows(fields: Fields, window: int, period: int) -> tuple[int, ...]:
    """Attention window of each layer; the last of every `period` layers has none, with 0 all do."""
    layers = fields.need("block_count")
    pattern = fields.get(PATTERN, period)
    if not isinstance(pattern, list):
        if (pattern := fields.of(PATTERN, int, period)) < 0:
            fields.refuse(PATTERN, "a number from 0 is")
        pattern = [pattern == 0 or i % pattern < pattern - 1 for i in range(layers)]
    if len(pattern) != layers or not all(x in (0, 1) for x in pattern):
        fields.refuse(PATTERN, f"one for each of {layers} layers is")
    windows = tuple(window if windowed else 0 for windowed in pattern)
    return windows if any(windows) else ()


def _rope(
    fields: Fields, divisors: np.ndarray | None, config: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Base and scaling of the rotary positions."""
    theta, scaling = fields.get("rope.freq_base", 10_000.0), _scaling(fields)
    if divisors is None:
        return {"rope_theta": theta, "rope_scaling": scaling}
    if scaling is not None:
        raise UserError(
            f"{where}: rope_freqs.weight and rope.scaling.factor both stretch positions"
        )
    size = config["head_size"] or config["width"] // config["heads"]
    return {"rope_theta": theta, "rope_scaling": _llama3(divisors, size, theta, where)}


def _scaling(fields: Fields) -> RopeScaling | None:
    """Scaling of the rotary positions that the metadata name, if any."""
    kind = fields.of("rope.scaling.type", str, "linear")
    new, old = fields.get("rope.scaling.factor"), fields.get("rope.scale_linear")
    if new and old and new != old:
        fields.refuse("rope.scale_linear", f"rope.scaling.factor is {new}")
    factor = new or old or 1.0
    length = fields.get("rope.scaling.original_context_length") or fields.need("context_length")
    fields.get("rope.scaling.finetuned")  # whether the model was trained with it
    for name in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):
        if fields.get(f"rope.scaling.{name}", 1.0) not in (1.0, -1.0):  # -1: as the kind has it
            fields.refuse(f"rope.scaling.{name}", "only 1 is")
    if kind == "none" or (kind == "linear" and factor == 1):
        return None
    where = f"{fields.where}: rope.scaling"
    if kind == "linear":
        return as_type({"kind": kind, "factor": factor}, RopeScaling, where)
    if kind != "yarn":
        fields.refuse("rope.scaling.type", "none, linear and yarn are")
    scaling = {
        "kind": kind,
        "factor": factor,
        "original_length": length,
        "beta_fast": fields.get("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": fields.get("rope.scaling.yarn_beta_slow", 1.0),
    }
    return as_type(scaling, RopeScaling, where)


def _llama3(divisors: np.ndarray, size: int, theta: float, where: str) -> RopeScaling | None:
    """Llama 3's scaling of rotary positions that divides frequencies by these divisors."""
    factor = float(divisors.max())
    if np.all(divisors == 1):
        return None
    llama3_fields = {"kind": "llama3", "factor": factor, "original_length": LLAMA3_LENGTH}
    scaling = as_type(llama3_fields, RopeScaling, f"{where}: rope_freqs.weight")
    expected = frequencies(size, theta, None) / frequencies(size, theta, scaling)
    # The file's are computed in float32: 1e-4 is far above their rounding and below any other rule.
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-4, atol=0):
        raise UserError(
            f"{where}: rope_freqs.weight does not divide frequencies as Llama 3.1 does (factor "
            f"{factor:g}, trained on {LLAMA3_LENGTH} tokens); no other rule is supported"
        )
    return scaling


ARCHITECTURES: dict[str, Callable[[Fields, Shapes], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
}
