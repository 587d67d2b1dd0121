"""`config.json` of a Hugging Face folder and our `TransformerConfig`, in both directions.

Whatever a file says is either read, known to change nothing, or an error that names the field.
"""

from collections.abc import Callable
from typing import Any

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.rope import RopeScaling

# Bookkeeping, defaults of sampling, and dropout: nothing that a forward pass without noise reads.
WITHOUT_EFFECT = {
    "_attn_implementation", "_name_or_path", "_sliding_window_pattern", "architectures",
    "attention_dropout", "attn_implementation", "attn_pdrop", "bos_token_id",
    "cache_implementation", "chunk_size_feed_forward", "dtype", "embd_pdrop", "eos_token_id",
    "id2label", "initializer_range", "is_llama_config", "label2id", "model_type", "num_labels",
    "pad_token_id", "pretraining_tp", "problem_type", "reorder_and_upcast_attn", "resid_pdrop",
    "return_dict", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj", "task_specific_params", "tokenizer_class", "torch_dtype",
    "transformers.js_config", "transformers_version", "unk_token_id", "use_cache",
}  # fmt: skip
NEUTRAL = (None, False, 0, "", [], {})
GATED = {
    "silu": "swiglu",
    "swish": "swiglu",
    "gelu": "geglu_exact",
    "gelu_new": "geglu",
    "gelu_pytorch_tanh": "geglu",
    "relu": "reglu",
}
PLAIN = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
# What the text part of a published Gemma 3 leaves out of its `text_config`.
GEMMA3_TEXT = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "max_position_embeddings": 131_072,
}
SLIDING, FULL = "sliding_attention", "full_attention"


class Fields:
    """A `config.json` that knows which of its fields were read."""

    def __init__(self, fields: dict[str, Any], where: str):
        """fields: the file's content; where: its name, for messages."""
        self._fields, self._read, self._where = fields, set(), where

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or what it is when the file has none (null counts as none)."""
        self._read.add(name)
        value = self._fields.get(name)
        return default if value is None else value

    def nullable(self, name: str, default: Any) -> Any:
        """The field, null too, or what it is when the file has none."""
        self._read.add(name)
        return self._fields.get(name, default)

    def need(self, name: str) -> Any:
        """The field; one that is missing is an error."""
        if (value := self.get(name)) is None:
            raise UserError(f"{self._where}: field {name} is missing")
        return value

    def choose(self, name: str, choices: dict[str, str], default: str) -> str:
        """Our name of what the field chooses."""
        if (value := self.get(name, default)) not in choices:
            self.refuse(name, f"choose one of {', '.join(choices)}")
        return choices[value]

    def refuse(self, name: str, hint: str):
        """Raise the error that names a field."""
        raise UserError(f"{self._where}: {name} = {self._fields[name]!r} is not supported; {hint}")

    def finish(self) -> None:
        """Every field has been read, or changes nothing."""
        for name, value in self._fields.items():
            known = name in self._read or name in WITHOUT_EFFECT
            if not known and not any(value is x or value == x for x in NEUTRAL):
                self.refuse(name, "if it does not change the mathematics, take it out of the file")


def read_config(fields: dict[str, Any], where: str) -> TransformerConfig:
    """Our configuration of a `config.json`.

    Raises:
      UserError: another kind of model, a field that is missing, or one that is not supported.
    """
    family = family_of(fields, where)
    if family == "gemma3":
        fields = GEMMA3_TEXT | fields["text_config"]
    found = Fields(fields, where)
    config = FAMILIES[family](found)
    found.finish()
    classifies = any("SequenceClassification" in x for x in fields.get("architectures") or [])
    if classifies and len(fields.get("id2label", ("",))) != 1:
        raise UserError(f"{where}: a reward model has one label, this has {fields['id2label']}")
    return TransformerConfig(**config, heads_out=("score",) if classifies else ("logits",))


def family_of(fields: dict[str, Any], where: str) -> str:
    """The kind of model that a `config.json` says it is of."""
    family = fields.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{where}: model_type {family!r} is none of {', '.join(FAMILIES)}")
    if family == "gemma3" and "text_config" not in fields:
        raise UserError(f"{where}: a gemma3 without text_config; gemma3_text is the plain kind")
    return family


def _gpt2(found: Fields) -> dict[str, Any]:
    width = found.get("n_embd", 768)
    heads = found.get("n_head", 12)
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if found.get(name, False):
            found.refuse(name, "only false is")
    return {
        "vocab_size": found.need("vocab_size"),
        "max_length": found.get("n_positions", found.get("n_ctx", 1024)),
        "width": width,
        "layers": found.get("n_layer", 12),
        "heads": heads,
        "kv_heads": heads,
        "mlp_width": found.get("n_inner", 4 * width),
        "norm": "layer",
        "norm_epsilon": found.get("layer_norm_epsilon", 1e-5),
        "positions": "learned",
        "activation": found.choose("activation_function", PLAIN, "gelu_new"),
        "tie_embeddings": found.get("tie_word_embeddings", True),
        "qkv_biases": True,
        "output_biases": True,
        "mlp_biases": True,
        "attention_scale": None if found.get("scale_attn_weights", True) else 1.0,
    }


def _llama_like(found: Fields, *, tied: bool = False, kv_heads: int | None = None, **more):
    """What Llama and its descendants have in common; `more` replaces it."""
    heads = found.need("num_attention_heads")
    return {
        "vocab_size": found.need("vocab_size"),
        "max_length": found.need("max_position_embeddings"),
        "width": found.need("hidden_size"),
        "layers": found.need("num_hidden_layers"),
        "heads": heads,
        "kv_heads": found.get("num_key_value_heads", kv_heads or heads),
        "head_size": found.get("head_dim"),
        "mlp_width": found.need("intermediate_size"),
        "norm_epsilon": found.get("rms_norm_eps", 1e-6),
        "tie_embeddings": found.get("tie_word_embeddings", tied),
    } | more


def _llama(found: Fields) -> dict[str, Any]:
    biases = found.get("attention_bias", False)
    return _llama_like(
        found,
        activation=found.choose("hidden_act", GATED, "silu"),
        qkv_biases=biases,
        output_biases=biases,
        mlp_biases=found.get("mlp_bias", False),
        **_rope(found),
    )


def _mistral(found: Fields) -> dict[str, Any]:
    layers = found.need("num_hidden_layers")
    window = found.nullable("sliding_window", 4096)
    return _llama_like(
        found,
        kv_heads=8,
        activation=found.choose("hidden_act", GATED, "silu"),
        windows=(window,) * layers if window else (),
        **_rope(found),
    )


def _qwen2(found: Fields) -> dict[str, Any]:
    return _qwen(found, qkv_biases=True)


def _qwen3(found: Fields) -> dict[str, Any]:
    biases = found.get("attention_bias", False)
    size = found.get("head_dim", 128)
    return _qwen(found, qkv_biases=biases, output_biases=biases, qk_norm=True, head_size=size)


def _qwen(found: Fields, **more) -> dict[str, Any]:
    layers, window = found.need("num_hidden_layers"), found.get("sliding_window", 4096)
    first = found.get("max_window_layers", 28)
    windowed = found.get("use_sliding_window", False)
    default = [SLIDING if windowed and i >= first else FULL for i in range(layers)]
    return _llama_like(
        found,
        activation=found.choose("hidden_act", GATED, "silu"),
        windows=_windows(found, default, window if windowed else 0),
        **_rope(found),
        **more,
    )


def _gemma2(found: Fields) -> dict[str, Any]:
    every_other = [FULL if i % 2 else SLIDING for i in range(found.need("num_hidden_layers"))]
    return _gemma(
        found,
        windows=_windows(found, every_other, found.get("sliding_window", 4096)),
        attention_softcap=found.nullable("attn_logit_softcapping", 50.0),
        logit_softcap=found.nullable("final_logit_softcapping", 30.0),
        **_rope(found),
    )


def _gemma3(found: Fields) -> dict[str, Any]:
    pattern, layers = found.get("sliding_window_pattern", 6), found.need("num_hidden_layers")
    default = [SLIDING if (i + 1) % pattern else FULL for i in range(layers)]
    found.get("attn_logit_softcapping")  # the reference implementation reads it and never caps
    return _gemma(
        found,
        windows=_windows(found, default, found.get("sliding_window", 4096)),
        qk_norm=True,
        logit_softcap=found.get("final_logit_softcapping"),
        **_two_ropes(found),
    )


def _gemma(found: Fields, **more) -> dict[str, Any]:
    width = found.need("hidden_size")
    biases = found.get("attention_bias", False)
    if found.get("use_bidirectional_attention", False):
        found.refuse("use_bidirectional_attention", "only causal attention is")
    found.get("hidden_act")  # an older name, which the reference implementation does not read
    return _llama_like(
        found,
        tied=True,
        kv_heads=4,
        activation=found.choose("hidden_activation", GATED, "gelu_pytorch_tanh"),
        qkv_biases=biases,
        output_biases=biases,
        head_size=found.get("head_dim", 256),
        attention_scale=found.get("query_pre_attn_scalar", 256) ** -0.5,
        embedding_scale=width**0.5,
        post_norms=True,
        **more,
    )


def _windows(found: Fields, default: list[str], window: int) -> tuple[int, ...]:
    kinds = found.get("layer_types", default)
    if unknown := set(kinds) - {SLIDING, FULL}:
        found.refuse("layer_types", f"{sorted(unknown)[0]} is no kind of layer known here")
    if not window and SLIDING in kinds:
        found.refuse("layer_types", "a layer with a window needs a sliding_window")
    windows = tuple(window if kind == SLIDING else 0 for kind in kinds)
    return windows if any(windows) else ()


def _rope(found: Fields) -> dict[str, Any]:
    """Base and scaling of the rotary positions, in today's spelling or the older one."""
    theta = found.get("rope_theta", 10_000.0)
    given = found.get("rope_parameters") or found.get("rope_scaling") or {}
    name = "rope_parameters" if found.get("rope_parameters") else "rope_scaling"
    theta, scaling = _scaling(found, name, given, theta)
    return {"rope_theta": theta, "rope_scaling": scaling}


def _two_ropes(found: Fields) -> dict[str, Any]:
    """The same for layers that see all and those with a window."""
    theta, near = found.get("rope_theta", 1e6), found.get("rope_local_base_freq", 1e4)
    given = found.get("rope_parameters", {})
    name = "rope_parameters" if given else "rope_scaling"
    full = given.get(FULL) or found.get("rope_scaling") or {}
    theta, scaling = _scaling(found, name, full, theta)
    near, near_scaling = _scaling(found, name, given.get(SLIDING) or {}, near)
    if near_scaling is not None:
        found.refuse(name, "layers with a window are not stretched")
    return {"rope_theta": theta, "rope_scaling": scaling, "window_rope_theta": near}


def _scaling(found: Fields, name: str, given: dict[str, Any], theta: float):
    """`(theta, RopeScaling or None)` of one dictionary."""
    kind = given.get("rope_type", given.get("type", "default"))
    theta = given.get("rope_theta") or theta
    known = {"rope_type", "type", "rope_theta"} | set(SCALING_FIELDS) | {"mscale", "mscale_all_dim"}
    unknown = [key for key in given if key not in known]
    if unknown and not (unknown == ["partial_rotary_factor"] and given[unknown[0]] in (None, 1)):
        found.refuse(name, f"{unknown[0]} is not known here")
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3", "yarn"):
        found.refuse(name, "rope_type default, linear, llama3 and yarn are")
    if given.get("mscale") or given.get("mscale_all_dim"):
        found.refuse(name, "mscale is not known here")
    fields = {ours: given[theirs] for theirs, ours in SCALING_FIELDS.items()
              if given.get(theirs) is not None}  # fmt: skip
    length = found.get("max_position_embeddings")
    if kind != "linear":
        fields.setdefault("original_length", found.get("original_max_position_embeddings", length))
    return theta, RopeScaling(kind=kind, **fields)


SCALING_FIELDS = {
    "factor": "factor",
    "original_max_position_embeddings": "original_length",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "truncate": "truncate",
}
FAMILIES: dict[str, Callable[[Fields], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gemma3": _gemma3,
}
