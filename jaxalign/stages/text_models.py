"""Text models with their vocabularies: made, given other heads, saved and loaded."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.config import ModelConfig
from jaxalign.data.tokenizer import Tokenizer, load_tokenizer
from jaxalign.errors import UserError
from jaxalign.models.lora import ADAPTERS, Adapted, split
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.train.checkpoints import load_model, save_model

ALSO = {"reward": " or FILE.py:NAME, a function"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextModel:
    """A transformer, with adapters or without, its parameters and the vocabulary that it reads."""

    model: Transformer | Adapted
    params: Any
    tokenizer: Tokenizer

    @property
    def trained(self) -> Any:
        """The parameters that training changes."""
        return split(self.model, self.params)[0]

    @property
    def frozen(self) -> dict | None:
        """Those beside them that it leaves as they are; None: there are none."""
        return split(self.model, self.params)[1]

    def with_trained(self, trained) -> "TextModel":
        """The model with other values of what is trained."""
        return dataclasses.replace(self, params={**(self.frozen or {}), **trained})

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self.model.config.max_length


def new_text_model(
    config: ModelConfig, tokenizer: Tokenizer, max_length: int, heads: tuple[str, ...], key
) -> TextModel:
    """A model with random parameters for that vocabulary."""
    fields = dataclasses.asdict(config)
    fields["kv_heads"] = config.kv_heads or config.heads
    fields["mlp_width"] = config.mlp_width or _mlp_width(config)
    transformer = TransformerConfig(
        vocab_size=tokenizer.vocab_size, max_length=max_length, heads_out=heads, **fields
    )
    return _initialised(transformer, tokenizer, key)


def with_heads(text_model: TextModel, heads: tuple[str, ...], key, **changes) -> TextModel:
    """The same trunk under other heads; what the old model had is kept, the rest is new.

    Args:
      text_model: where parameters come from.
      heads: of the new model.
      key: for new parameters.
      changes: other fields of `TransformerConfig` to replace (pooling, dropout, ...).
    """
    config = dataclasses.replace(text_model.model.config, heads_out=heads, **changes)
    fresh = _initialised(config, text_model.tokenizer, key)
    names = (*fresh.params, ADAPTERS)
    kept = {name: text_model.params[name] for name in names if name in text_model.params}
    model = text_model.model.clone(config=config)
    return dataclasses.replace(fresh, model=model, params=fresh.params | kept)


def save_text_model(directory: Path, text_model: TextModel) -> None:
    """Write `model.safetensors`, `config.json` and `tokenizer.json`."""
    text_model.tokenizer.save(directory)
    save_model(directory, text_model.params, dataclasses.asdict(text_model.model.config))


def load_text_model(directory: str | Path, option: str, *, head: str | None = None) -> TextModel:
    """The model of a run directory (its `model` folder) or of the folder itself.

    Args:
      directory: what the user gave.
      option: name of the option that gave it, for the error message.
      head: a head that it must have: "logits" for a policy, "score" for a reward model.

    Raises:
      UserError: no directory, no model in it, or a model without that head.
    """
    if not directory:
        also = ALSO.get(option, "")
        raise UserError(f"--{option} is empty; give the run directory of a trained model{also}")
    folder = Path(directory)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    params, fields = load_model(folder)
    config = TransformerConfig.from_json(fields)
    if head is not None and head not in config.heads_out:
        raise UserError(
            f"--{option} {directory} has the heads {', '.join(config.heads_out)}; "
            f"a model with a {head} head is needed"
        )
    return TextModel(model=Transformer(config), params=params, tokenizer=load_tokenizer(folder))


def _initialised(config: TransformerConfig, tokenizer: Tokenizer, key) -> TextModel:
    model = Transformer(config)
    tokens = jnp.zeros((1, 2), jnp.int32)
    params = jax.jit(model.init)(key, tokens, jnp.ones_like(tokens, bool))["params"]
    return TextModel(model=model, params=jax.device_get(params), tokenizer=tokenizer)


def _mlp_width(config: ModelConfig) -> int:
    """4 D, or 8/3 D (to a multiple of 8) for SwiGLU's three matrices: the same parameter count."""
    return 4 * config.width if config.activation == "gelu" else round(config.width / 3) * 8
