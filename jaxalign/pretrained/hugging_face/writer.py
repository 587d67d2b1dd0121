"""Our models as Hugging Face has them: `config.json`, and tensors under their names, in shards."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.rope import RopeScaling
from jaxalign.pretrained.hugging_face.config import family_of, read_config
from jaxalign.pretrained.hugging_face.family import FULL, SLIDING
from jaxalign.pretrained.hugging_face.names import stored_as, to_theirs
from jaxalign.pretrained.hugging_face.rope_fields import SCALING_FIELDS

ACTIVATIONS = {
    "swiglu": "silu",
    "geglu": "gelu_pytorch_tanh",
    "geglu_exact": "gelu",
    "reglu": "relu",
    "gelu": "gelu_new",
    "gelu_exact": "gelu",
    "relu": "relu",
    "silu": "silu",
    "tanh": "tanh",
}
CLASSES = {  # model_type: what the classes of transformers start with
    "gpt2": ("GPT2LMHeadModel", "GPT2ForSequenceClassification"),
    "llama": ("LlamaForCausalLM", "LlamaForSequenceClassification"),
    "mistral": ("MistralForCausalLM", "MistralForSequenceClassification"),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2ForSequenceClassification"),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2ForSequenceClassification"),
    "gemma3_text": ("Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"),
}
# Not of the function that the parameters make: how it is trained and computed, and its heads.
APART = {
    "dropout",
    "token_ranges",
    "compute_dtype",
    "remat",
    "scan_layers",
    "heads_out",
    "value_trunk",
}
THEIRS = {ours: theirs for theirs, ours in SCALING_FIELDS.items()}


def config_of(config: TransformerConfig) -> dict[str, Any]:
    """The `config.json` of that model, of the kind that has its features.

    It is read back: what comes out must be the same function.

    Raises:
      UserError: names the field that no kind of model there has.
    """
    family = _family(config)
    scored = "score" in config.heads_out
    fields = {"model_type": family, "architectures": [CLASSES[family][scored]]}
    if scored:
        fields |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    fields |= _gpt2(config) if family == "gpt2" else _llama_like(config, family)
    _check(config, fields)
    return fields | {"torch_dtype": "float32"}


def _family(c: TransformerConfig) -> str:
    if c.positions == "learned":
        return "gpt2"
    if c.post_norms:
        return "gemma3_text" if c.qk_norm else "gemma2"
    if c.qk_norm:
        return "qwen3"
    if c.qkv_biases and not c.output_biases:
        return "qwen2"
    return "mistral" if any(c.windows) else "llama"


def _gpt2(c: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "n_positions": c.max_length,
        "n_embd": c.width,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_inner": c.mlp_width,
        "activation_function": ACTIVATIONS[c.activation],
        "layer_norm_epsilon": c.norm_epsilon,
        "tie_word_embeddings": c.tie_embeddings,
        "scale_attn_weights": c.attention_scale is None,
        "scale_attn_by_inverse_layer_idx": c.attention_scale_by_layer,
    }


def _llama_like(c: TransformerConfig, family: str) -> dict[str, Any]:
    gemma = family.startswith("gemma")
    fields = {
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_length,
        "hidden_size": c.width,
        "intermediate_size": c.mlp_width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "rms_norm_eps": c.norm_epsilon,
        "tie_word_embeddings": c.tie_embeddings,
        "hidden_activation" if gemma else "hidden_act": ACTIVATIONS[c.activation],
        "rope_theta": c.rope_theta,
    }
    if family == "qwen2" and c.width == c.heads * c.head_width:
        del fields["head_dim"]  # no field of its class, though its code reads it
    if c.rope_scaling is not None:
        fields["rope_scaling"] = _scaling(c.rope_scaling)
    if family not in ("mistral", "qwen2"):
        fields["attention_bias"] = c.qkv_biases
    if family == "llama":
        fields["mlp_bias"] = c.mlp_biases
    if gemma:
        fields |= {
            "query_pre_attn_scalar": round(_scale(c) ** -2),
            "attn_logit_softcapping": c.attention_softcap,
            "final_logit_softcapping": c.logit_softcap,
        }
    return fields | _windows(c, family) | (_near_rope(c) if family == "gemma3_text" else {})


def _windows(c: TransformerConfig, family: str) -> dict[str, Any]:
    window = max(c.windows, default=0)
    if family == "mistral":
        return {"sliding_window": window}
    if family == "llama":
        return {}
    kinds = [SLIDING if window else FULL for window in c.windows or [0] * c.layers]
    fields: dict[str, Any] = {"layer_types": kinds}
    if window:
        fields["sliding_window"] = window
    if family.startswith("qwen"):
        fields["use_sliding_window"] = bool(window)
    return fields


def _near_rope(c: TransformerConfig) -> dict[str, Any]:
    """Rotary positions of Gemma 3's layers with a window."""
    plain = _canonical(c)
    near, scaling = plain["window_rope_theta"], plain["window_rope_scaling"]
    if scaling is None:
        return {} if near is None else {"rope_local_base_freq": near}
    far = _scaling(c.rope_scaling) if c.rope_scaling else {"rope_type": "default"}
    return {
        "rope_scaling": None,  # both kinds of layers stand in one object, which is newer
        "rope_parameters": {
            FULL: far | {"rope_theta": c.rope_theta},
            SLIDING: scaling | {"rope_theta": near},
        },
    }


def _scaling(scaling: RopeScaling) -> dict[str, Any]:
    """The fields that this kind of scaling reads."""
    read = {
        "linear": ("factor",),
        "llama3": ("factor", "original_length", "low_frequency_factor", "high_frequency_factor"),
        "yarn": ("factor", "original_length", "beta_fast", "beta_slow", "truncate"),
    }[scaling.kind]
    fields = {THEIRS[name]: getattr(scaling, name) for name in read}
    if scaling.kind == "yarn" and scaling.attention_factor is not None:
        fields["attention_factor"] = scaling.attention_factor
    return {"rope_type": scaling.kind} | fields


def _scale(c: TransformerConfig) -> float:
    return c.head_width**-0.5 if c.attention_scale is None else c.attention_scale


def _canonical(c: TransformerConfig) -> dict[str, Any]:
    """The fields of the function, with what is left to a default or changes nothing spelled out."""
    fields = dataclasses.asdict(c)
    fields = {k: v for k, v in fields.items() if k not in APART and not k.startswith("score_")}
    fields |= {"head_size": c.head_width, "attention_scale": _scale(c)}
    fields |= {"rope_scaling": c.rope_scaling, "window_rope_scaling": c.window_rope_scaling}
    if c.positions == "learned":
        fields |= {"rope_theta": None, "rope_scaling": None}
    if not any(c.windows) or c.positions == "learned":
        fields |= {"window_rope_theta": None, "window_rope_scaling": None}
    elif c.window_rope_theta is None:
        fields |= {"window_rope_theta": c.rope_theta, "window_rope_scaling": c.rope_scaling}
    for name in ("rope_scaling", "window_rope_scaling"):
        if fields[name] is not None:
            fields[name] = _scaling(fields[name])
    return fields | {"windows": c.windows if any(c.windows) else ()}


def _check(config: TransformerConfig, fields: dict[str, Any]) -> None:
    """What is written must be read as the same function."""
    wanted, family = _canonical(config), fields["model_type"]
    written = _canonical(read_config(fields, "config.json"))
    for name, value in wanted.items():
        found = written[name]
        numbers = isinstance(value, float) and isinstance(found, float)
        if not (math.isclose(value, found, rel_tol=1e-12) if numbers else value == found):
            raise UserError(
                f"{name} = {value} has no equivalent in a Hugging Face {family}, the kind of model "
                f"that comes nearest (there it is {found})"
            )
    if family in ("llama", "gemma2", "gemma3_text") and config.width % config.heads:
        raise UserError(
            f"width {config.width} must be a multiple of heads {config.heads} in a Hugging Face "
            f"{family}"
        )


def shards_of(
    params: dict[str, np.ndarray], fields: dict[str, Any], *, shard_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Tensors of theirs in files of at most that many bytes, or of one tensor that is larger.

    Args:
      params: path to array.
      fields: of `config.json`.
      shard_bytes: size of a file.
    """
    family, places = family_of(fields, "config.json"), {}
    for path in params:
        places.setdefault(stored_as(path, family).name, []).append(path)
    shard, size = [], 0
    for paths in places.values():
        more = sum(4 * params[path].size for path in paths)
        if shard and size + more > shard_bytes:
            yield to_theirs(((path, params[path]) for path in shard), family)
            shard, size = [], 0
        shard, size = shard + paths, size + more
    yield to_theirs(((path, params[path]) for path in shard), family)
