"""Validated access to the fields of a `config.json`, none of which may stay unread."""

from typing import Any, NoReturn

from jaxalign.errors import UserError
from jaxalign.models.ranges import FROM_ZERO, LENGTH, POSITIVE, RANGES, Range
from jaxalign.system.files import Kind, as_type, quote, short_path

# Bookkeeping, defaults of sampling, dropout: without effect on a forward pass without noise.
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
# Field to ours, whose range holds for both.
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
COUNT = Range(least=0, most=2**31 - 1, whole=True)
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


class Fields:
    """Fields of a configuration file; `finish` refuses those that were never read.

    where: name of the file, for messages.
    """

    def __init__(
        self, fields: dict[str, Any], where: str, defaults: dict[str, Any] | None = None
    ) -> None:
        """Check numbers and types.

        Args:
          fields: content of the file.
          where: name of the file, for messages.
          defaults: of fields that it lacks.

        Raises:
          UserError: a number out of its range, or a value of another type.
        """
        self._given, self._fields = fields, (defaults or {}) | fields
        self._read, self.where = set(), where
        for name, value in self._fields.items():
            if value is None:
                continue
            if name in NUMBERS and value not in NUMBERS[name]:
                self.refuse(name, f"it must be {NUMBERS[name]}")
            if name in TYPES:
                as_type(value, TYPES[name], f"{where}: {name}")

    def get(self, name: str, default: Any = None) -> Any:
        """Value of a field, or the default where the file has none (null counts as none)."""
        self._read.add(name)
        value = self._fields.get(name)
        return default if value is None else value

    def need(self, name: str) -> Any:
        """Value of a field that must be there."""
        if (value := self.get(name)) is None:
            raise UserError(f"{self.where}: field {name} is missing")
        return value

    def of(self, name: str, kind: type[Kind], default: Kind) -> Kind:
        """Value of a field, validated against a type, or the default where the file has none."""
        return as_type(self.get(name, default), kind, f"{self.where}: {name}")

    def agree(self, name: str, other: str, value: Any) -> None:
        """Refuse a field that repeats another one, under another name, with another value."""
        repeated = self.get(name)
        if repeated is not None and value is not None and repeated != value:
            self.refuse(name, f"{other} is {quote(value)}")

    def check_multiple(self, name: str, other: str) -> None:
        """Refuse a size that is no multiple of another field, by which it is divided."""
        if (number := self.get(other)) and self.need(name) % number:
            self.refuse(name, f"it must be a multiple of {other}, which is {number}")

    def choose(self, name: str, choices: dict[str, str], default: str) -> str:
        """Our name for the choice of a field."""
        if (value := self.of(name, str, default)) not in choices:
            self.refuse(name, f"choose one of {', '.join(choices)}")
        return choices[value]

    def refuse(self, name: str, hint: str) -> NoReturn:
        """Raise the error that the value of a field is not supported."""
        value = quote(self._fields.get(name))
        raise UserError(f"{self.where}: {short_path(name)} = {value} is not supported; {hint}")

    def finish(self) -> None:
        """Refuse fields of the file that were not read, unless they change nothing."""
        for name, value in self._given.items():
            known = name in self._read or name in WITHOUT_EFFECT
            if not known and not any(value is x or value == x for x in NEUTRAL):
                self.refuse(name, "if it does not change the mathematics, take it out of the file")
