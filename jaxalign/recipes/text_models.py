"""Text models with their tokenizers: new ones, other heads, saving and loading."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxalign.config.defaults import Start
from jaxalign.config.lora import LoraConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.data.chat import TokenRow
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.data.tokenizer_loading import load_tokenizer
from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.models.lora import ADAPTERS, Adapted, merged, split
from jaxalign.models.ngram_reward import NgramConfig
from jaxalign.models.transformer import Transformer, TransformerConfig
from jaxalign.numerics.types import Params, Tree
from jaxalign.pretrained.folders import NGRAM_FIELD, is_hugging_face, load_folder, load_own
from jaxalign.pretrained.pickles import refuse_pickles
from jaxalign.pretrained.sources import local_model
from jaxalign.pretrained.weights import Put
from jaxalign.recipes.checkpoint_models import checkpoint_name, load_checkpoint, names_of
from jaxalign.system.console import phase
from jaxalign.system.files import exists, reason, short_path
from jaxalign.train.checkpoints import save_model

EMPTY = np.zeros((1, 2), np.int32), np.ones((1, 2), bool)  # a text that shapes do not depend on

Kind = str | tuple[str, float]  # of outputs
ALSO = {"reward": " or FILE.py:NAME, a function"}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KnownOutputs:
    """What a model was found to say of texts.

    params: of the model.
    kind: `"scores"`, or `("logps", temperature)`.
    outputs: by the key of a text: its score, or `[T]` log-probabilities of its tokens in nats.
    """

    params: Any
    kind: Kind
    outputs: Mapping[bytes, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextModel:
    """A transformer, with adapters or without, its parameters and its tokenizer.

    published: whether it was read from a Hugging Face folder, the hub or a GGUF file.
    known: what was computed of it, or of another policy that it came from; None: nothing.
    """

    model: Transformer | Adapted
    params: Any
    tokenizer: Tokenizer
    published: bool = False
    known: KnownOutputs | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def trained(self) -> Any:
        """The parameters that training changes."""
        return split(self.model, self.params)[0]

    @property
    def frozen(self) -> dict | None:
        """The parameters that training leaves as they are; None: there are none."""
        return split(self.model, self.params)[1]

    def with_trained(self, trained: Params) -> "TextModel":
        """The model with other values of the trained parameters."""
        return dataclasses.replace(self, params={**(self.frozen or {}), **trained})

    def knowing(self, outputs: Mapping[bytes, Any], kind: Kind) -> "TextModel":
        """The model with what it was found to say of texts, as in `KnownOutputs`."""
        known = KnownOutputs(params=self.params, kind=kind, outputs=outputs)
        return dataclasses.replace(self, known=known)

    def known_outputs(self, rows: Sequence[TokenRow], kind: Kind) -> list[Any]:
        """What the model says of each text, where that is known; None where it is not."""
        known = self.known
        if known is None or known.params is not self.params or known.kind != kind:
            return [None] * len(rows)
        return [known.outputs.get(row.key) for row in rows]

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self.model.config.max_length


def new_text_model(
    config: ModelConfig,
    tokenizer: Tokenizer,
    key: jax.Array,
    *,
    max_length: int,
    heads: tuple[str, ...] = ("logits",),
) -> TextModel:
    """A model with random parameters for a tokenizer."""
    fields = dataclasses.asdict(config)
    fields["kv_heads"] = config.kv_heads or config.heads
    fields["mlp_width"] = config.mlp_width or _mlp_width(config)
    transformer = TransformerConfig(
        vocab_size=tokenizer.vocab_size, max_length=max_length, heads_out=heads, **fields
    )
    check_memory(transformer)
    model = Transformer(transformer)
    with phase("drawing new parameters"):
        params = new_parameters(model, key)
    return TextModel(model=model, params=params, tokenizer=tokenizer)


def check_memory(config: TransformerConfig) -> None:
    """Raise a one-line `UserError` where the parameters alone are more than this machine holds."""
    block = 4 * config.width**2 + 3 * config.width * config.mlp_width
    positions = config.max_length if config.positions == "learned" else 0
    numbers = config.layers * block + (config.vocab_size + positions) * config.width
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * numbers > memory:
        raise UserError(
            f"model.layers {config.layers} of model.width {config.width} make {numbers:.2g} "
            f"parameters, {4 * numbers / 2**30:,.0f} GiB in float32, and this machine has "
            f"{memory / 2**30:,.0f} GiB of memory; lower them"
        )


def with_heads(
    text_model: TextModel,
    heads: tuple[str, ...],
    key: jax.Array,
    *,
    ngrams: NgramConfig | None = None,
    **changes: Any,
) -> TextModel:
    """The same trunk under other heads; parameters that both have are kept, the rest is new.

    A separate trunk for values starts as the policy's, adapters merged in.

    Args:
      text_model: where parameters come from.
      heads: of the new model.
      key: for new parameters.
      ngrams: what a score reads beside or instead of hidden states; None: nothing.
      changes: other fields of `TransformerConfig` to replace (pooling, dropout, ...).
    """
    config = dataclasses.replace(text_model.model.config, heads_out=heads, **changes)
    transformer, existing = Transformer(config, ngrams=ngrams), text_model.params
    names = jax.eval_shape(transformer.init, key, *EMPTY)["params"]
    kept = {name: existing[name] for name in (*names, ADAPTERS) if name in existing}
    if "value_trunk" in names and "value_trunk" not in existing:
        kept["value_trunk"] = plain_parameters(text_model)["trunk"]
    missing = tuple(name for name in names if name not in kept)
    return TextModel(
        model=text_model.model.clone(config=config, ngrams=ngrams),
        params=kept | new_parameters(transformer, key, missing),
        tokenizer=text_model.tokenizer,
        published=text_model.published,
    )


def plain_parameters(text_model: TextModel) -> dict[str, Any]:
    """Parameters of the transformer with adapters merged."""
    model, params = text_model.model, text_model.params
    return merged(model, params)[1] if isinstance(model, Adapted) else params


def shallow(text_model: TextModel, layers: int) -> TextModel:
    """The first layers of a model and its final norm, adapters included.

    Raises:
      UserError: it has fewer.
    """
    config = text_model.model.config
    if layers > config.layers:
        raise UserError(f"reward.layers is {layers}, but the model has {config.layers} layers")
    windows = config.windows[:layers]
    return dataclasses.replace(
        text_model,
        model=text_model.model.clone(
            config=dataclasses.replace(config, layers=layers, windows=windows)
        ),
        params=_first_layers(text_model.params, layers),
    )


def _first_layers(tree: Tree, layers: int):
    """Nested dicts without `layers_i` for i from that number on, and stacks cut to it."""
    if not isinstance(tree, dict):
        return tree
    return {
        name: jax.tree.map(lambda x: x[:layers], part)
        if name == "stack"
        else _first_layers(part, layers)
        for name, part in tree.items()
        if not (name.startswith("layers_") and int(name.removeprefix("layers_")) >= layers)
    }


def save_text_model(directory: Path, text_model: TextModel) -> None:
    """Write `model.safetensors`, `config.json` and `tokenizer.json`."""
    text_model.tokenizer.save(directory)
    save_model(directory, text_model.params, fields_of(text_model.model))


def fields_of(model: Transformer | Adapted) -> dict[str, Any]:
    """Architecture of a model as JSON types."""
    fields = dataclasses.asdict(model.config)
    return (
        fields if model.ngrams is None else fields | {NGRAM_FIELD: dataclasses.asdict(model.ngrams)}
    )


def load_text_model(
    source: str | Path, option: str, *, head: str | None = None, place: PlaceConfig | None = None
) -> TextModel:
    """A model with its tokenizer, from wherever `local_model` finds it.

    That is a run directory (its `model` folder), a checkpoint `RUN@STEP`, a folder that
    `save_text_model` or Hugging Face's `transformers` wrote, or a GGUF file. It has no dropout
    unless it was trained here with some.

    Args:
      source: what the user gave.
      option: name of the option that gave it, for the error message.
      head: a head that it must have: "logits" for a policy, "score" for a reward model.
      place: where it will be used: on a mesh, every parameter goes to its devices as it is read.

    Raises:
      UserError: no model there, or one without that head.
    """
    if not source:
        also = ALSO.get(option, "")
        raise UserError(
            f"--{option} is empty; give a run directory, a Hugging Face folder or hub id, "
            f"a .gguf file, or smollm2{also}"
        )
    put = np.asarray
    if place is not None:
        put = make_layout(place.layout, devices=place.devices).put
    try:
        with phase(f"loading {short_path(source)}"):
            made, params, tokenizer, published = _loaded(source, put)
    except UserError as error:
        raise UserError(f"--{option}: {error}") from None
    except OSError as error:
        raise UserError(f"--{option} {source} cannot be read: {reason(error)}") from None
    config = made.config
    if head is not None and head not in config.heads_out:
        raise UserError(
            f"--{option} {source} has the heads {', '.join(config.heads_out)}; "
            f"a model with a {head} head is needed"
        )
    tokenizer = _cut_to(tokenizer, config.vocab_size, f"--{option} {source}")
    whole = tokenizer.id_ranges == ((0, config.vocab_size),)
    ranges = () if whole else tokenizer.id_ranges  # what is no token is never sampled
    model = made.clone(config=dataclasses.replace(config, token_ranges=ranges))
    return TextModel(model=model, params=params, tokenizer=tokenizer, published=published)


def _cut_to(tokenizer: Tokenizer, vocab_size: int, given: str) -> Tokenizer:
    """The tokenizer without tokens beyond the model's vocabulary, if BOS and EOS are not there.

    Raises:
      UserError: they are; `given` names the model.
    """
    if max(tokenizer.eos_id, tokenizer.bos_id or 0) < vocab_size:
        tokenizer = tokenizer.with_ids_below(vocab_size)
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"{given} has a tokenizer of {tokenizer.vocab_size} ids, "
            f"but the model reads {vocab_size}"
        )
    return tokenizer


def start_of(base: TextModel | None, lora: LoraConfig) -> Start:
    """Kind of model that training starts from, for the defaults of its settings.

    Args:
      base: without adapters yet; None: a model that is yet to be made.
      lora: of the command.
    """
    if base is None:
        return Start()
    parameters = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(base.params))
    return Start(published=base.published, parameters=parameters, adapters=lora.rank > 0)


def _is_published(path: Path) -> bool:
    """Whether the model there has a published format, and not that of `save_text_model`."""
    folder = path / "model" if (path / "model").is_dir() else path
    return not path.is_dir() or is_hugging_face(folder)


def _loaded(source: str | Path, put: Put) -> tuple[Transformer, dict[str, Any], Tokenizer, bool]:
    """Model, parameters and tokenizer of any source, and whether it has a published format."""
    if checkpoint := checkpoint_name(source):
        return *load_checkpoint(checkpoint, load_base=_base_parameters, put=put), False
    path = local_model(source)
    if not exists(path / "model") and (names := names_of(path)):
        raise UserError(f"{short_path(path)} holds no model yet; its checkpoints are {names}")
    return *_at(path, put), _is_published(path)


def _base_parameters(path: Path, layers: int) -> Params:
    """Parameters of the first layers of a model, on the host."""
    model, params, tokenizer = _at(path, np.asarray)
    return shallow(TextModel(model=model, params=params, tokenizer=tokenizer), layers).params


def _at(path: Path, put: Put) -> tuple[Transformer, dict[str, Any], Tokenizer]:
    if path.is_dir():
        folder = path / "model" if (path / "model").is_dir() else path
        if is_hugging_face(folder):
            config, params = load_folder(folder, put=put)
            return Transformer(config), params, load_tokenizer(folder)
        return *load_own(folder, put=put), load_tokenizer(folder)
    refuse_pickles(path)
    if path.suffix != ".gguf":
        raise UserError(f"{short_path(path)} is no .gguf file; give that, or the folder of a model")
    from jaxalign.pretrained.gguf.tokenizer import load_gguf_tokenizer
    from jaxalign.pretrained.gguf.weights import load_gguf

    config, params = load_gguf(path, put=put)
    return Transformer(config), params, load_gguf_tokenizer(path)


def new_parameters(
    model: Transformer, key: jax.Array, names: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """New parameters on the host: all, or those of the named trees alone."""
    if names == ():
        return {}

    def init(key: jax.Array):
        params = model.init(key, *EMPTY)["params"]
        return params if names is None else {name: params[name] for name in names}

    return jax.device_get(jax.jit(init)(key))


def _mlp_width(config: ModelConfig) -> int:
    """Default MLP width: 4 D, or 8/3 D (to a multiple of 8) for SwiGLU, with as many parameters."""
    return 4 * config.width if config.activation == "gelu" else round(config.width / 3) * 8
