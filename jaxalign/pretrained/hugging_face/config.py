"""`config.json` of a Hugging Face folder and our `TransformerConfig`, in both directions.

Whatever a file says is either read, known to change nothing, or an error that names the field.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from jaxalign.errors import UserError
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.ranges import FROM_ZERO, LENGTH, POSITIVE, RANGES
from jaxalign.models.rope import RopeScaling
from jaxalign.numerics.bounds import Range, whole
from jaxalign.system.files import Kind, shown, shown_path, typed

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
# Ours of the fields that are numbers: what they may be stands in one table.
OURS = {
    "attn_logit_softcapping": "attention_softcap",
    "final_logit_softcapping": "logit_softcap",
    "head_dim": "head_size",
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "layer_norm_epsilon": "norm_epsilon",
    "max_position_embeddings": "max_length",
    "n_embd": "width",
    "n_head": "heads",
    "n_inner": "mlp_width",
    "n_layer": "layers",
    "n_positions": "max_length",
    "num_attention_heads": "heads",
    "num_hidden_layers": "layers",
    "num_key_value_heads": "kv_heads",
    "original_max_position_embeddings": "original_length",
    "rms_norm_eps": "norm_epsilon",
    "rope_local_base_freq": "window_rope_theta",
    "rope_theta": "rope_theta",
    "vocab_size": "vocab_size",
    # as files of llama.cpp call them
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_size",
    "attention.layer_norm_epsilon": "norm_epsilon",
    "attention.layer_norm_rms_epsilon": "norm_epsilon",
    "block_count": "layers",
    "context_length": "max_length",
    "embedding_length": "width",
    "feed_forward_length": "mlp_width",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "window_rope_theta",
}
COUNT = whole(2**31 - 1, least=0)
NUMBERS = {name: RANGES[ours] for name, ours in OURS.items()} | {
    "max_window_layers": COUNT,
    "partial_rotary_factor": Range(least=0, most=1),
    "query_pre_attn_scalar": POSITIVE,
    "sliding_window": LENGTH,
    "sliding_window_pattern": LENGTH,
    "sliding_window_size": LENGTH,
    # as files of llama.cpp call them, where 0 is none
    "attention.scale": FROM_ZERO,
    "attention.sliding_window": COUNT,
    "rope.scale_linear": FROM_ZERO,
    "rope.scaling.factor": FROM_ZERO,
    "rope.scaling.original_context_length": COUNT,
    "rope.scaling.yarn_beta_fast": POSITIVE,
    "rope.scaling.yarn_beta_slow": POSITIVE,
}
TYPES: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("add_cross_attention", "attention_bias", "is_causal", "mlp_bias"),
            *("scale_attn_by_inverse_layer_idx", "scale_attn_weights", "tie_word_embeddings"),
            *("use_bidirectional_attention", "use_sliding_window", "attention.causal"),
        ),
        bool,
    ),
    "architectures": list[str],
    "id2label": dict[str, Any],
    "layer_types": list[str],
    "rope_parameters": dict[str, Any],
    "rope_scaling": dict[str, Any],
}
# Other names of the fields of GPT-2, which transformers reads too.
GPT2_NAMES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
# A class of transformers that is of one of these kinds of models, and of no other kind.
CLASS = re.compile(r"(GPT2|Llama|Mistral|Qwen2|Qwen3|Gemma2|Gemma3)(?:For|LMHead|Model|Text)")
SLIDING, FULL = "sliding_attention", "full_attention"


class Fields:
    """A `config.json` that knows which of its fields were read."""

    def __init__(self, fields: dict[str, Any], where: str, defaults: dict[str, Any] | None = None):
        """fields: the file's content; where: its name; defaults: of fields that it lacks."""
        self._fields, self._read, self.where = (defaults or {}) | fields, set(), where
        for name, value in self._fields.items():
            if value is None:
                continue
            if name in NUMBERS and value not in NUMBERS[name]:
                self.refuse(name, f"it must be {NUMBERS[name]}")
            if name in TYPES:
                typed(value, TYPES[name], f"{where}: {name}")

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or what it is when the file has none (null counts as none)."""
        self._read.add(name)
        value = self._fields.get(name)
        return default if value is None else value

    def need(self, name: str) -> Any:
        """The field; one that is missing is an error."""
        if (value := self.get(name)) is None:
            raise UserError(f"{self.where}: field {name} is missing")
        return value

    def of(self, name: str, kind: type[Kind], default: Kind) -> Kind:
        """The field, which must be of that type, or what it is when the file has none."""
        return typed(self.get(name, default), kind, f"{self.where}: {name}")

    def agree(self, name: str, other: str, value: Any) -> None:
        """A field that is said a second time, by another name, says the same."""
        said = self.get(name)
        if said is not None and value is not None and said != value:
            self.refuse(name, f"{other} is {shown(value)}")

    def check_multiple(self, name: str, other: str) -> None:
        """A size that is shared out among so many."""
        if (number := self.get(other)) and self.need(name) % number:
            self.refuse(name, f"it must be a multiple of {other}, which is {number}")

    def choose(self, name: str, choices: dict[str, str], default: str) -> str:
        """Our name of what the field chooses."""
        if (value := self.of(name, str, default)) not in choices:
            self.refuse(name, f"choose one of {', '.join(choices)}")
        return choices[value]

    def refuse(self, name: str, hint: str):
        """Raise the error that names a field."""
        value = shown(self._fields.get(name))
        raise UserError(f"{self.where}: {shown_path(name)} = {value} is not supported; {hint}")

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
        fields = text_part(fields, where)
    if family == "gpt2":
        fields = _gpt2_names(fields, where)
    found = Fields(fields, where, DEFAULTS[family])
    if not found.get("is_causal", True):
        found.refuse("is_causal", "only causal attention is")
    config = FAMILIES[family](found)
    found.finish()
    classes, labels = found.get("architectures", []), found.get("id2label", {"0": ""})
    for name in classes:
        if (kind := CLASS.match(name)) and not family.startswith(kind[1].lower()):
            found.refuse("architectures", f"model_type is {family}")
    classifies = any("SequenceClassification" in name for name in classes)
    if classifies and len(labels) != 1:
        raise UserError(f"{where}: a reward model has one label, this has {shown(labels)}")
    heads = ("score",) if classifies else ("logits",)
    return typed(config | {"heads_out": heads}, TransformerConfig, where)


def family_of(fields: dict[str, Any], where: str) -> str:
    """The kind of model that a `config.json` says it is of."""
    family = fields.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"{where}: model_type {shown(family)} is none of {', '.join(FAMILIES)}")
    if family == "gemma3" and not isinstance(fields.get("text_config"), dict):
        raise UserError(f"{where}: a gemma3 without text_config; gemma3_text is the plain kind")
    return family


def text_part(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of the text model of a Gemma 3 that also reads images.

    Raises:
      UserError: a field stands beside `text_config` too, and says something else.
    """
    text = fields["text_config"]
    read = {*GEMMA3, *NUMBERS, *TYPES} - {"architectures", "id2label"}
    for name in sorted(read & fields.keys()):
        inner = text.get(name, GEMMA3.get(name) if name != "tie_word_embeddings" else fields[name])
        if fields[name] not in (None, inner):
            raise UserError(
                f"{where}: {name} is {shown(fields[name])}, and in text_config {shown(inner)}"
            )
    beside = {k: fields[k] for k in ("tie_word_embeddings", "quantization_config") if k in fields}
    classes = {"architectures": fields.get("architectures"), "id2label": fields.get("id2label")}
    return beside | classes | text


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


def _llama_like(found: Fields, **more):
    """What Llama and its descendants have in common; `more` replaces it."""
    heads = found.need("num_attention_heads")
    found.check_multiple("num_attention_heads", "num_key_value_heads")
    if found.get("head_dim") is None:
        found.check_multiple("hidden_size", "num_attention_heads")
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
    found.agree("sliding_window_size", "sliding_window", window)  # an older name
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
    if len(kinds) != len(default):
        found.refuse("layer_types", f"it must be a list of {len(default)}, one a layer")
    if unknown := [kind for kind in kinds if kind not in (SLIDING, FULL)]:
        found.refuse("layer_types", f"{shown(unknown[0])} is no kind of layer known here")
    if SLIDING in kinds and window is None:
        found.refuse("layer_types", "a layer with a window needs a sliding_window in use")
    windows = tuple(window or 0 if kind == SLIDING else 0 for kind in kinds)
    return windows if any(windows) else ()


def _rope(found: Fields) -> dict[str, Any]:
    """Base and scaling of the rotary positions, in today's spelling or the older one."""
    new, old = found.get("rope_parameters", {}), found.get("rope_scaling", {})
    _check_agree(found, new, old)
    name = "rope_scaling" if old else "rope_parameters"
    theta, scaling = _scaling(found, name, _united(new, old), "rope_theta", 10_000.0)
    return {"rope_theta": theta, "rope_scaling": scaling}


def _two_ropes(found: Fields) -> dict[str, Any]:
    """The same for layers that see all and those with a window."""
    both, old = found.get("rope_parameters", {}), found.get("rope_scaling", {})
    for key in set(both) - {FULL, SLIDING}:  # transformers writes such beside the two, and no more
        if both[key] not in (None, "default"):
            found.refuse("rope_parameters", f"{shown_path(key)} stands in no kind of layer")
    parts = {kind: {} if both.get(kind) is None else both[kind] for kind in (FULL, SLIDING)}
    for kind, part in parts.items():
        if not isinstance(part, dict):
            found.refuse("rope_parameters", f"{kind} must be an object with rope_type")
    _check_agree(found, parts[FULL], old)
    name = "rope_scaling" if old else "rope_parameters"
    theta, scaling = _scaling(found, name, _united(parts[FULL], old), "rope_theta", 1e6)
    near, near_scaling = _scaling(
        found, "rope_parameters", parts[SLIDING], "rope_local_base_freq", 1e4
    )
    return {
        "rope_theta": theta,
        "rope_scaling": scaling,
        "window_rope_theta": near,
        "window_rope_scaling": near_scaling,
    }


def _united(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Today's object with what the older one adds to it."""
    kind = {"type", "rope_type"} if {"type", "rope_type"} & old.keys() else set()
    return {key: value for key, value in new.items() if key not in kind} | old


def _check_agree(found: Fields, new: dict[str, Any], old: dict[str, Any]) -> None:
    """What stands in today's object and in the older one is the same.

    "default" says nothing there: people add a `rope_scaling` beside it to stretch a model.
    """
    new = {key: value for key, value in new.items() if value != "default"}
    for key in new.keys() & old.keys():
        if None not in (new[key], old[key]) and new[key] != old[key]:
            found.refuse("rope_scaling", f"{key} differs from that of rope_parameters")


def _scaling(found: Fields, name: str, given: dict[str, Any], base: str, default: float):
    """`(theta, RopeScaling or None)` of one object; `base` is the field of the theta outside it."""
    given = {key: value for key, value in given.items() if value is not None}
    kind = given.get("rope_type", given.get("type", "default"))
    if given.get("type", kind) != kind:
        found.refuse(name, "type and rope_type differ")
    if kind not in ("default", "linear", "dynamic", "llama3", "yarn"):
        found.refuse(name, "rope_type default, linear, dynamic, llama3 and yarn are")
    _check_scaling(found, name, given)
    found.agree(base, f"rope_theta in {name}", given.get("rope_theta"))
    theta = given.get("rope_theta", found.get(base, default))
    length = found.need("max_position_embeddings")
    # "dynamic" stretches nothing up to max_position_embeddings, and beyond a model reads nothing
    if kind in ("default", "dynamic"):
        return theta, None
    fields = {ours: given[theirs] for theirs, ours in SCALING_FIELDS.items() if theirs in given}
    if kind == "linear":
        fields = {name: value for name, value in fields.items() if name == "factor"}
    else:
        found.agree(ORIGINAL, f"that in {name}", given.get(ORIGINAL))
        fields["original_length"] = fields.get("original_length", found.get(ORIGINAL, length))
    if kind == "yarn":
        fields.setdefault("factor", length / fields["original_length"])
        fields |= _mscale(given, fields)
    if "factor" not in fields:
        found.refuse(name, "factor is missing")
    return theta, typed({"kind": kind, **fields}, RopeScaling, f"{found.where}: {name}")


def _check_scaling(found: Fields, name: str, given: dict[str, Any]) -> None:
    """Every number of the object is one, and nothing is unknown."""
    for key, value in given.items():
        if key in SCALING_NUMBERS and value not in SCALING_NUMBERS[key]:
            found.refuse(name, f"{key} must be {SCALING_NUMBERS[key]}")
        if key not in SCALING_NUMBERS and key not in ("rope_type", "type", "truncate"):
            found.refuse(name, f"{shown_path(key)} is not known here")


def _mscale(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """YaRN's amplitude where two other fields give it, as in DeepSeek's models."""
    own, all_dimensions = given.get("mscale"), given.get("mscale_all_dim")
    if "attention_factor" in fields or not (own and all_dimensions):
        return {}
    log = math.log(max(fields["factor"], 1))
    return {"attention_factor": (0.1 * own * log + 1) / (0.1 * all_dimensions * log + 1)}


ORIGINAL = "original_max_position_embeddings"
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
SCALING_NUMBERS = {
    **{theirs: RANGES[ours] for theirs, ours in SCALING_FIELDS.items() if ours in RANGES},
    "mscale": FROM_ZERO,
    "mscale_all_dim": FROM_ZERO,
    "partial_rotary_factor": Range(least=1, most=1),
    "rope_theta": RANGES["rope_theta"],
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
