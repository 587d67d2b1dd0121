"""The metadata of a GGUF file and our `TransformerConfig`.

Where a file says nothing, what llama.cpp takes holds. Whatever a file says below its architecture's
name is either read, known to change nothing, or an error that names the key.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.rope import RopeScaling, frequencies
from jaxalign.pretrained.hugging_face.fields import Fields
from jaxalign.system.files import shown, typed

Shapes = Mapping[str, tuple[int, ...]]
# Gemma's largest models, by layers: their scale is 1 / sqrt(width / heads), not of a head's width.
GEMMA_27B = {"gemma2": 46, "gemma3": 62}
GEMMA3_WINDOW_THETA = 10_000.0
LLAMA3_LENGTH = 8192  # tokens that Llama 3 was trained on before its positions were stretched


def read_gguf_config(
    fields: dict[str, Any], shapes: Shapes, divisors: np.ndarray | None, where: str
) -> TransformerConfig:
    """Our configuration of a GGUF file.

    Args:
      fields: its metadata.
      shapes: of its tensors, rows first.
      divisors: `[H / 2]` of the rotary frequencies, the tensor `rope_freqs.weight` if it has one.
      where: its name, for messages.

    Raises:
      UserError: another kind of model, a key that is missing, or one that is not supported.
    """
    name = fields.get("general.architecture")
    if fields.get("general.type", "model") != "model":
        raise UserError(
            f"{where}: general.type {shown(fields['general.type'])} is not a whole model"
        )
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UserError(
            f"{where}: general.architecture {shown(name)} is none of {', '.join(ARCHITECTURES)}"
        )
    below = {k.removeprefix(f"{name}."): v for k, v in fields.items() if k.startswith(f"{name}.")}
    found = Fields(below, f"{where}, {name}.*")
    if not found.get("attention.causal", True):
        found.refuse("attention.causal", "only true is")
    if len(shapes.get("token_embd.weight", ())) != 2:
        raise UserError(f"{where}: no tensor token_embd.weight of rows and columns")
    config = ARCHITECTURES[name](found, shapes)
    if config.get("positions") != "learned":
        config |= _rope(found, divisors, config, where)
    found.finish()
    return typed(config, TransformerConfig, where)


def _common(found: Fields, shapes: Shapes) -> dict[str, Any]:
    heads, width = found.need("attention.head_count"), found.need("embedding_length")
    size = found.get("attention.key_length")
    found.check_multiple("attention.head_count", "attention.head_count_kv")
    if size is None:
        found.check_multiple("embedding_length", "attention.head_count")
    for name in ("attention.value_length", "rope.dimension_count"):
        if found.get(name, size or width // heads) != (size or width // heads):
            found.refuse(name, f"only the width of a head, {size or width // heads}, is")
    rows = shapes["token_embd.weight"][0]
    if found.get("vocab_size", rows) != rows:
        found.refuse("vocab_size", f"token_embd.weight has {rows} rows")
    return {
        "vocab_size": rows,
        "max_length": found.need("context_length"),
        "width": width,
        "layers": found.need("block_count"),
        "heads": heads,
        "kv_heads": found.get("attention.head_count_kv", heads),
        "head_size": size,
        "mlp_width": found.need("feed_forward_length"),
        "tie_embeddings": "output.weight" not in shapes,
        "attention_scale": found.get("attention.scale") or None,
    }


def _gpt2(found: Fields, shapes: Shapes) -> dict[str, Any]:
    return _common(found, shapes) | {
        "norm": "layer",
        "norm_epsilon": found.need("attention.layer_norm_epsilon"),
        "positions": "learned",
        "activation": "gelu",
        "qkv_biases": True,
        "output_biases": True,
        "mlp_biases": True,
    }


def _llama_like(found: Fields, shapes: Shapes) -> dict[str, Any]:
    return _common(found, shapes) | {
        "norm_epsilon": found.need("attention.layer_norm_rms_epsilon"),
        "qkv_biases": "blk.0.attn_q.bias" in shapes,
        "output_biases": "blk.0.attn_output.bias" in shapes,
        "mlp_biases": "blk.0.ffn_up.bias" in shapes,
    }


def _llama(found: Fields, shapes: Shapes) -> dict[str, Any]:
    if found.get("tensor_data_layout", "Meta AI original pth") != "Meta AI original pth":
        found.refuse("tensor_data_layout", "only 'Meta AI original pth' is")
    # Mistral: where the file names a window and no pattern, all layers have it.
    return _llama_like(found, shapes) | {"windows": _windows(found, found.get(WINDOW, 0), 0)}


def _qwen2(found: Fields, shapes: Shapes) -> dict[str, Any]:
    window = found.get(WINDOW, 0)
    if window and found.get(PATTERN) is None:
        found.refuse(WINDOW, f"it needs {PATTERN}, which says what layers have it")
    return _llama_like(found, shapes) | {"windows": _windows(found, window, 0)}


def _qwen3(found: Fields, shapes: Shapes) -> dict[str, Any]:
    return _qwen2(found, shapes) | {"qk_norm": True}


def _gemma2(found: Fields, shapes: Shapes) -> dict[str, Any]:
    return _gemma(found, shapes, "gemma2") | {
        "windows": _windows(found, found.get(WINDOW, 4096), 2),
        "attention_softcap": found.get("attn_logit_softcapping", 50.0),
        "logit_softcap": found.get("final_logit_softcapping", 30.0),
    }


def _gemma3(found: Fields, shapes: Shapes) -> dict[str, Any]:
    found.need("rope.freq_base")
    return _gemma(found, shapes, "gemma3") | {
        "windows": _windows(found, found.get(WINDOW, 0), 6),
        "window_rope_theta": found.get("rope.freq_base_swa", GEMMA3_WINDOW_THETA),
        "qk_norm": True,
        "logit_softcap": found.get("final_logit_softcapping"),
    }


def _gemma(found: Fields, shapes: Shapes, name: str) -> dict[str, Any]:
    config = _llama_like(found, shapes)
    share = config["width"] // config["heads"]
    divisor = share if config["layers"] == GEMMA_27B[name] else config["head_size"] or share
    return config | {
        "activation": "geglu",
        "attention_scale": config["attention_scale"] or divisor**-0.5,
        "embedding_scale": config["width"] ** 0.5,
        "post_norms": True,
    }


WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


def _windows(found: Fields, window: int, period: int) -> tuple[int, ...]:
    """Of each layer: the last of every `period` layers sees all; 0: none does."""
    layers = found.need("block_count")
    pattern = found.get(PATTERN, period)
    if not isinstance(pattern, list):
        if (pattern := found.of(PATTERN, int, period)) < 0:
            found.refuse(PATTERN, "a number from 0 is")
        pattern = [pattern == 0 or i % pattern < pattern - 1 for i in range(layers)]
    if len(pattern) != layers or not all(x in (0, 1) for x in pattern):
        found.refuse(PATTERN, f"one for each of {layers} layers is")
    windows = tuple(window if windowed else 0 for windowed in pattern)
    return windows if any(windows) else ()


def _rope(
    found: Fields, divisors: np.ndarray | None, config: Mapping[str, Any], where: str
) -> dict[str, Any]:
    theta, scaling = found.get("rope.freq_base", 10_000.0), _scaling(found)
    if divisors is None:
        return {"rope_theta": theta, "rope_scaling": scaling}
    if scaling is not None:
        raise UserError(
            f"{where}: rope_freqs.weight and rope.scaling.factor both stretch positions"
        )
    size = config["head_size"] or config["width"] // config["heads"]
    return {"rope_theta": theta, "rope_scaling": _llama3(divisors, size, theta, where)}


def _scaling(found: Fields) -> RopeScaling | None:
    kind = found.of("rope.scaling.type", str, "linear")
    new, old = found.get("rope.scaling.factor"), found.get("rope.scale_linear")
    if new and old and new != old:
        found.refuse("rope.scale_linear", f"rope.scaling.factor is {new}")
    factor = new or old or 1.0
    length = found.get("rope.scaling.original_context_length") or found.need("context_length")
    found.get("rope.scaling.finetuned")  # whether the model was trained with it
    for name in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):
        if found.get(f"rope.scaling.{name}", 1.0) not in (1.0, -1.0):  # -1: as the kind has it
            found.refuse(f"rope.scaling.{name}", "only 1 is")
    if kind == "none" or (kind == "linear" and factor == 1):
        return None
    where = f"{found.where}: rope.scaling"
    if kind == "linear":
        return typed({"kind": kind, "factor": factor}, RopeScaling, where)
    if kind != "yarn":
        found.refuse("rope.scaling.type", "none, linear and yarn are")
    fields = {
        "kind": kind,
        "factor": factor,
        "original_length": length,
        "beta_fast": found.get("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": found.get("rope.scaling.yarn_beta_slow", 1.0),
    }
    return typed(fields, RopeScaling, where)


def _llama3(divisors: np.ndarray, size: int, theta: float, where: str) -> RopeScaling | None:
    """The scaling that divides frequencies by these numbers."""
    factor = float(divisors.max())
    if np.all(divisors == 1):
        return None
    fields = {"kind": "llama3", "factor": factor, "original_length": LLAMA3_LENGTH}
    scaling = typed(fields, RopeScaling, f"{where}: rope_freqs.weight")
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
