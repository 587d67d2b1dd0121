"""`config.json` of a Hugging Face folder and our `TransformerConfig`, in both directions.

Whatever a file says is either read, known to change nothing, or an error that names the field.
"""

import math
from collections.abc import Callable
from typing import Any

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.rope import RopeScaling

# Bookkeeping, defaults of sampling, and dropout: nothing that a forward pass without noise reads.
WITHOUT_EFFECT = {
    "_attn_implementation", "_commit_hash", "_name_or_path", "_num_labels",
    "_sliding_window_pattern", "architectures", "attention_dropout", "attn_implementation",
    "attn_pdrop", "bos_token_id", "cache_implementation", "chunk_size_feed_forward", "do_sample",
    "dtype", "embd_pdrop", "eos_token_id", "finetuning_task", "gradient_checkpointing", "id2label",
    "initializer_range", "is_decoder", "is_llama_config", "label2id", "max_length",
    "max_new_tokens", "max_sequence_length", "model_type", "num_beams", "num_labels",
    "output_attentions", "output_hidden_states", "output_past", "pad_token_id",
    "predict_special_tokens", "pretraining_tp", "problem_type", "reorder_and_upcast_attn",
    "repetition_penalty", "resid_pdrop", "return_dict", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    "task_specific_params", "temperature", "tokenizer_class", "top_k", "top_p", "torch_dtype",
    "transformers.js_config", "transformers_version", "unk_token_id", "unsloth_fixed",
    "unsloth_version", "use_cache",
}  # fmt: skip
NEUTRAL = (None, False, 0, "", [], {})
TANH_GELU = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate", "gelu_python_tanh")
PLAIN = {
    **dict.fromkeys(TANH_GELU, "gelu"),
    **dict.fromkeys(("gelu", "gelu_python"), "gelu_exact"),
    **dict.fromkeys(("silu", "swish"), "silu"),
    "relu": "relu",
    "tanh": "tanh",
}
OF_GATES = {"gelu": "geglu", "gelu_exact": "geglu_exact", "silu": "swiglu", "relu": "reglu"}
GATED = {name: OF_GATES[ours] for name, ours in PLAIN.items() if ours in OF_GATES}
# What transformers takes where a file leaves the field out; a null is not left out.
LLAMA = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
MISTRAL = LLAMA | {
    "intermediate_size": 14_336,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "sliding_window": 4096,
}
QWEN2 = LLAMA | {
    "vocab_size": 151_936,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "sliding_window": 4096,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
GEMMA2 = {
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
GEMMA3 = GEMMA2 | {
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "sliding_window_pattern": 6,
}
GPT2 = {
    "vocab_size": 50_257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "qwen3": QWEN2 | {"head_dim": 128},
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "gemma3": GEMMA3,
}
# Of what kind these are where a file has them; without them something else decides.
KINDS = {
    "head_dim": 64,
    "n_inner": 3072,
    "num_key_value_heads": 8,
    "rope_local_base_freq": 1e4,
    "rope_theta": 1e4,
}
# Other names of the fields of GPT-2, which transformers reads too.
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
MAY_BE_ZERO = ("max_window_layers",)
SLIDING, FULL = "sliding_attention", "full_attention"


class Fields:
    """A `config.json` that knows which of its fields were read."""

    def __init__(self, fields: dict[str, Any], where: str, defaults: dict[str, Any] | None = None):
        """fields: the file's content; where: its name; defaults: of fields that it lacks."""
        self._fields, self._read, self._where = (defaults or {}) | fields, set(), where
        for name, default in (KINDS | (defaults or {})).items():
            self._check(name, self._fields.get(name), default)

    def _check(self, name: str, value: Any, default: Any) -> None:
        """Sizes are whole numbers from 1, other numbers numbers, and what is yes or no is so."""
        if value is None:
            return
        if isinstance(default, bool):
            fits = isinstance(value, bool)
        elif isinstance(default, int):
            least = 0 if name in MAY_BE_ZERO else 1
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
        else:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits:
            kind = {bool: "true or false", int: "a whole number from 1"}.get(type(default))
            self.refuse(name, f"it must be {kind or 'a number'}")

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or what it is when the file has none (null counts as none)."""
        self._read.add(name)
        value = self._fields.get(name)
        return default if value is None else value

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
        fields = text_part(fields)
    if family == "gpt2":
        fields = {GPT2_NAMES.get(name, name): value for name, value in fields.items()}
    found = Fields(fields, where, DEFAULTS[family])
    if not found.get("is_causal", True):
        found.refuse("is_causal", "only causal attention is")
    config = FAMILIES[family](found)
    found.finish()
    classifies = any("SequenceClassification" in x for x in fields.get("architectures") or [])
    if classifies and len(fields.get("id2label") or ("",)) != 1:
        raise UserError(f"{where}: a reward model has one label, this has {fields['id2label']}")
    return TransformerConfig(**config, heads_out=("score",) if classifies else ("logits",))


def family_of(fields: dict[str, Any], where: str) -> str:
    """The kind of model that a `config.json` says it is of."""
    family = fields.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{where}: model_type {family!r} is none of {', '.join(FAMILIES)}")
    if family == "gemma3" and not isinstance(fields.get("text_config"), dict):
        raise UserError(f"{where}: a gemma3 without text_config; gemma3_text is the plain kind")
    return family


def text_part(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of the text model of a Gemma 3 that also reads images."""
    beside = {k: fields[k] for k in ("tie_word_embeddings", "quantization_config") if k in fields}
    return beside | fields["text_config"]


def _gpt2(found: Fields) -> dict[str, Any]:
    width, heads = found.need("n_embd"), found.need("n_head")
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


def _llama_like(found: Fields, **more):
    """What Llama and its descendants have in common; `more` replaces it."""
    heads = found.need("num_attention_heads")
    if found.get("partial_rotary_factor", 1) != 1:
        found.refuse("partial_rotary_factor", "positions turn the whole width of a head")
    return {
        "vocab_size": found.need("vocab_size"),
        "max_length": found.need("max_position_embeddings"),
        "width": found.need("hidden_size"),
        "layers": found.need("num_hidden_layers"),
        "heads": heads,
        "kv_heads": found.get("num_key_value_heads", heads),
        "head_size": found.get("head_dim"),
        "mlp_width": found.need("intermediate_size"),
        "norm_epsilon": found.need("rms_norm_eps"),
        "tie_embeddings": found.need("tie_word_embeddings"),
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
    layers, window = found.need("num_hidden_layers"), found.get("sliding_window")
    kinds = [SLIDING if window else FULL] * layers
    if found.get("layer_types", kinds) != kinds:  # no reader of Mistral asks it
        found.refuse("layer_types", "all layers of a mistral have its sliding_window")
    return _llama_like(
        found,
        activation=found.choose("hidden_act", GATED, "silu"),
        windows=(window,) * layers if window else (),
        **_rope(found),
    )


def _qwen2(found: Fields) -> dict[str, Any]:
    return _qwen(found, qkv_biases=True)


def _qwen3(found: Fields) -> dict[str, Any]:
    biases = found.get("attention_bias", False)
    return _qwen(found, qkv_biases=biases, output_biases=biases, qk_norm=True)


def _qwen(found: Fields, **more) -> dict[str, Any]:
    layers, window = found.need("num_hidden_layers"), found.get("sliding_window")
    first, windowed = found.need("max_window_layers"), found.need("use_sliding_window")
    window = window if windowed else None
    default = [SLIDING if window and i >= first else FULL for i in range(layers)]
    return _llama_like(
        found,
        activation=found.choose("hidden_act", GATED, "silu"),
        windows=_windows(found, default, window),
        **_rope(found),
        **more,
    )


def _gemma2(found: Fields) -> dict[str, Any]:
    every_other = [FULL if i % 2 else SLIDING for i in range(found.need("num_hidden_layers"))]
    window = found.get("sliding_window")
    if found.get("sliding_window_size", window) != window:  # an older name beside today's
        found.refuse("sliding_window_size", f"sliding_window is {window}")
    return _gemma(
        found,
        windows=_windows(found, every_other, window),
        attention_softcap=found.get("attn_logit_softcapping"),
        logit_softcap=found.get("final_logit_softcapping"),
        **_rope(found),
    )


def _gemma3(found: Fields) -> dict[str, Any]:
    pattern, layers = found.get("sliding_window_pattern", 6), found.need("num_hidden_layers")
    default = [SLIDING if (i + 1) % pattern else FULL for i in range(layers)]
    found.get("attn_logit_softcapping")  # the reference implementation reads it and never caps
    return _gemma(
        found,
        windows=_windows(found, default, found.get("sliding_window")),
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
        activation=found.choose("hidden_activation", GATED, "gelu_pytorch_tanh"),
        qkv_biases=biases,
        output_biases=biases,
        attention_scale=found.need("query_pre_attn_scalar") ** -0.5,
        embedding_scale=width**0.5,
        post_norms=True,
        **more,
    )


def _windows(found: Fields, default: list[str], window: int | None) -> tuple[int, ...]:
    kinds = found.get("layer_types", default)
    if not isinstance(kinds, list) or len(kinds) != len(default):
        found.refuse("layer_types", f"it must be a list of {len(default)}, one a layer")
    if unknown := [kind for kind in kinds if kind not in (SLIDING, FULL)]:
        found.refuse("layer_types", f"{unknown[0]} is no kind of layer known here")
    if SLIDING in kinds and window is None:
        found.refuse("layer_types", "a layer with a window needs a sliding_window in use")
    windows = tuple(window or 0 if kind == SLIDING else 0 for kind in kinds)
    return windows if any(windows) else ()


def _rope(found: Fields) -> dict[str, Any]:
    """Base and scaling of the rotary positions, in today's spelling or the older one."""
    new, old = found.get("rope_parameters", {}), found.get("rope_scaling", {})
    name, given = ("rope_scaling", old) if old else ("rope_parameters", new)
    theta, scaling = _scaling(found, name, given, found.get("rope_theta", 10_000.0))
    return {"rope_theta": theta, "rope_scaling": scaling}


def _two_ropes(found: Fields) -> dict[str, Any]:
    """The same for layers that see all and those with a window."""
    both, old = found.get("rope_parameters", {}), found.get("rope_scaling", {})
    for key in set(both) - {FULL, SLIDING}:  # transformers writes such beside the two, and no more
        if both[key] not in (None, "default"):
            found.refuse("rope_parameters", f"{key} stands in no kind of layer")
    name = "rope_scaling" if old else "rope_parameters"
    far = (both.get(FULL) or {}) | old
    theta, scaling = _scaling(found, name, far, found.get("rope_theta", 1e6))
    near, near_scaling = _scaling(
        found, "rope_parameters", both.get(SLIDING) or {}, found.get("rope_local_base_freq", 1e4)
    )
    return {
        "rope_theta": theta,
        "rope_scaling": scaling,
        "window_rope_theta": near,
        "window_rope_scaling": near_scaling,
    }


def _scaling(found: Fields, name: str, given: dict[str, Any], theta: float):
    """`(theta, RopeScaling or None)` of one dictionary."""
    if not isinstance(given, dict):
        found.refuse(name, "it must be an object with rope_type")
    kind = given.get("rope_type", given.get("type", "default"))
    theta = given.get("rope_theta") or theta
    known = {"rope_type", "type", "rope_theta", "mscale", "mscale_all_dim", *SCALING_FIELDS}
    if kind not in ("default", "linear", "dynamic", "llama3", "yarn"):
        found.refuse(name, "rope_type default, linear, dynamic, llama3 and yarn are")
    unknown = [key for key in given if key not in known]
    if unknown and not (unknown == ["partial_rotary_factor"] and given[unknown[0]] in (None, 1)):
        found.refuse(name, f"{unknown[0]} is not known here")
    length = found.need("max_position_embeddings")
    # "dynamic" stretches nothing up to max_position_embeddings, and beyond a model reads nothing
    if kind in ("default", "dynamic"):
        return theta, None
    fields = {ours: given[theirs] for theirs, ours in SCALING_FIELDS.items()
              if given.get(theirs) is not None}  # fmt: skip
    if kind == "linear":
        fields = {name: value for name, value in fields.items() if name == "factor"}
    else:  # a field of its own goes before that in the object
        own = found.get("original_max_position_embeddings")
        fields["original_length"] = own or fields.get("original_length", length)
    if kind == "yarn":
        fields.setdefault("factor", length / fields["original_length"])
        fields |= _mscale(given, fields)
    if "factor" not in fields:
        found.refuse(name, "factor is missing")
    return theta, RopeScaling(kind=kind, **fields)


def _mscale(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """YaRN's amplitude where two other fields give it, as in DeepSeek's models."""
    own, all_dimensions = given.get("mscale"), given.get("mscale_all_dim")
    if "attention_factor" in fields or not (own and all_dimensions):
        return {}
    log = math.log(max(fields["factor"], 1))
    return {"attention_factor": (0.1 * own * log + 1) / (0.1 * all_dimensions * log + 1)}


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
