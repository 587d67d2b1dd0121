"""Reward models of whole texts: trained on comparisons, with standardised scores."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.batches.functions import LossFn
from jaxalign.config.reward import RewardSettings
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import TokenRow
from jaxalign.data.example_order import batch_indices, evaluation_batches
from jaxalign.data.preference_batches import comparison_batch
from jaxalign.data.preferences import Groups
from jaxalign.data.scoring_batches import MOST_ROWS
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.layouts.layout import pad_rows
from jaxalign.models.functions import (
    head_scores,
    pooled_texts,
    reads_last,
    text_end_scores,
    text_scores,
)
from jaxalign.models.heads import standardised_head
from jaxalign.models.ngram_reward import (
    FEATURES,
    NGRAMS,
    NgramConfig,
    inverse_document_frequency,
    ngrams,
    spelling,
)
from jaxalign.recipes.fit_loop import Evaluation
from jaxalign.recipes.held_out import (
    HeldOut,
    WholeScores,
    held_out_evaluation,
    scored_evaluation,
)
from jaxalign.recipes.learner import Learner
from jaxalign.recipes.packed_step import PackedLoss, can_be_packed, packed_loss
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import by_rows, longest
from jaxalign.recipes.stage import fit_batches
from jaxalign.recipes.step_model import stacked_layers, step_model
from jaxalign.recipes.text_models import TextModel, shallow, with_heads

LEAST = 16  # held-out texts that tell a deviation of scores to within a fifth, 1 / sqrt(2 N)
SHOWN = ("loss", "rewards/accuracy")  # metrics that the progress shows
SPACE = "Ġ"  # how byte-level vocabularies spell a space


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """Texts that are compared, in groups or rankings.

    rows: all texts.
    count: how many groups there are.
    batch: positions of groups -> their batch, always of one shape; its index says which of the rows
      they hold.
    """

    rows: Sequence[TokenRow]
    count: int
    batch: Callable[[np.ndarray], Any]


def train_reward(
    run: Run,
    name: str,
    base: TextModel,
    rows: Sequence[TokenRow],
    *,
    groups: Groups,
    settings: RewardSettings,
    held_out: tuple[Sequence[TokenRow], Groups] | None = None,
) -> tuple[TextModel, float]:
    """A reward model of compared texts, by `train_scores`.

    Args:
      base: where trunk and vocabulary come from.
      rows: all texts.
      groups: who was preferred to whom; `groups.texts` are positions in `rows`.
      settings: of head, loss and loop.
      held_out: other rows and groups, on which the loss is evaluated along the way.
    """
    pad_id = base.tokenizer.pad_id
    return train_scores(
        run,
        name,
        base,
        in_groups(rows, groups, pad_id),
        size=settings.fit.rows // groups.texts.shape[1],
        settings=settings,
        objective=objectives.reward,
        held_out=None if held_out is None else in_groups(*held_out, pad_id),
    )


def in_groups(rows: Sequence[TokenRow], groups: Groups, pad_id: int) -> Compared:
    """Texts that are compared in groups, each with each."""
    length = longest(rows)

    def batch(chosen: np.ndarray):
        return comparison_batch(
            [[rows[i] for i in group] for group in groups.texts[chosen]],
            groups.preferences[chosen],
            margins=None if groups.margins is None else groups.margins[chosen],
            pad_id=pad_id,
            length=length,
            index=groups.texts[chosen],
        )

    return Compared(rows=rows, count=len(groups.texts), batch=batch)


def train_scores(
    run: Run,
    name: str,
    base: TextModel,
    compared: Compared,
    *,
    size: int,
    settings: RewardSettings,
    objective: Callable[..., LossFn],
    held_out: Compared | None = None,
) -> tuple[TextModel, float]:
    """A reward model with scores of mean 0 and standard deviation 1 over the held-out texts; where
    they are fewer than `LEAST`, over those that it was trained on.

    Args:
      base: where trunk and vocabulary come from.
      compared: what it learns from.
      size: groups of a batch.
      settings: of head, loss and loop.
      objective: `objectives.reward` or `objectives.ranking`.
      held_out: on which the loss is evaluated along the way.

    Returns:
      The reward model, and the deviation that its scores had before: times that, a difference of
      scores is the log-odds of a preference again.
    """
    rows, fit, evaluated = compared.rows, settings.fit, None
    model = new_reward_model(base, rows, settings, run.key(f"{name}/init"))
    computed = step_model(model, run.layout, fit.updates) if settings.trunk == "trained" else model
    make_loss = _maker(objective, settings)
    if held_out is not None and held_out.count:
        groups = {"batch": held_out.batch, "rows": held_out.count, "size": size}
        evaluated = HeldOut(**groups, every=fit.eval_every)
    scores = WholeScores(run=run, model=computed)
    if settings.trunk == "trained":
        learner = _of_all(run, model, computed, make_loss)
        evaluation = evaluated and scored_evaluation(run, make_loss, evaluated, scores)
    else:
        learner = _above_trunk(model, make_loss, pooled_rows(run, model, rows))
        evaluation = None
        if evaluated is not None and held_out is not None:
            pooled = pooled_rows(run, model, held_out.rows)
            evaluation = _evaluation_above_trunk(run, learner, evaluated, pooled)

    def batch_of_step(number: int):
        return compared.batch(batch_indices(number, compared.count, size, run.seed))

    loop = {"settings": fit, "steps_per_epoch": compared.count / size, "evaluation": evaluation}
    params = fit_batches(run, name, learner, batch_of_step, **loop)
    trained = dataclasses.replace(model, params={**model.params, **params})
    looped = step_model(trained, run.layout, fit.updates) if learner.layers else trained
    others = [] if evaluated is None else evaluated.texts
    if len(others) < LEAST:
        return _standardised(trained, scores.of(looped, name, rows))
    found = scores.of(looped, name, others)
    scaled, deviation = _standardised(trained, found)
    standard = (found - found.mean()) / (deviation or 1.0)
    known = {row.key: score for row, score in zip(others, standard, strict=True)}
    return scaled.knowing(known, "scores"), deviation


def _maker(objective: Callable[..., LossFn], settings: RewardSettings) -> Callable[..., LossFn]:
    """`read -> loss_fn`: the objective with the numbers of the settings."""
    return functools.partial(
        objective,
        loss=settings.declared_loss,
        centering=settings.centering,
        l2=settings.bag_l2 if settings.bag else 0.0,
        penalised=lambda params: {k: v for k, v in params["score"].items() if k in NGRAMS},
    )


def _standardised(trained: TextModel, scores: np.ndarray) -> tuple[TextModel, float]:
    """The reward model with scores of mean 0 and deviation 1, and the deviation before.

    Args:
      trained: the model.
      scores: `[N]` that it gives to some texts.
    """
    mean, deviation = scores.mean(), scores.std()
    head = standardised_head(trained.params["score"], mean=mean, deviation=deviation)
    scaled = dataclasses.replace(trained, params=trained.params | {"score": head})
    return scaled, float(deviation)


def _of_all(
    run: Run, model: TextModel, computed: TextModel, make_loss: Callable[..., LossFn]
) -> Learner:
    """Learner of the head and the trunk below it."""
    packed = None
    if reads_last(computed.model) and can_be_packed(computed, run.layout):
        of_ends = packed_loss(make_loss, text_end_scores(computed.model))
        packed = PackedLoss(loss_fn=of_ends, of_texts=True)
    reads_trunk = model.model.ngrams is None
    return Learner(
        model=model,
        params=computed.trained,
        frozen=computed.frozen,
        loss_fn=make_loss(text_scores(computed.model)),
        packed=packed,
        shown=SHOWN,
        layers=stacked_layers(model, computed),
        reads_all=reads_trunk,
    )


def _above_trunk(model: TextModel, make_loss: Callable[..., LossFn], pooled: np.ndarray) -> Learner:
    """Learner of the head above a trunk that stays as it is, which has read the texts."""
    features = {name: tree for name, tree in model.params.items() if name == FEATURES}
    return Learner(
        model=model,
        params={"score": model.params["score"]},
        frozen={"pooled": pooled, **features},
        loss_fn=make_loss(head_scores(model.model.config, model.model.ngrams)),
        shown=SHOWN,
    )


def _evaluation_above_trunk(
    run: Run, learner: Learner, held_out: HeldOut, pooled: np.ndarray
) -> Evaluation:
    """Evaluation of a head on held-out texts that the trunk below it has read."""
    return held_out_evaluation(
        run,
        learner.loss_fn,
        held_out,
        params_of=lambda state: {**state.all_params, "pooled": pooled},
    )


def pooled_rows(run: Run, model: TextModel, rows: Sequence[TokenRow]) -> np.ndarray:
    """`[N, D]` of the trunk that a score head reads, for a trunk that stays as it is."""
    read = pooled_texts(model.model)
    return by_rows(run, read, model.params, rows, pad_id=model.tokenizer.pad_id)


def new_reward_model(
    base: TextModel, rows: Sequence[TokenRow], settings: RewardSettings, key: jax.Array
) -> TextModel:
    """An untrained reward model: the base's trunk, or its first layers, under a new score head.

    Args:
      base: where trunk and vocabulary come from.
      rows: texts that say how rare n-grams are.
      settings: of the head.
      key: of its first weights.
    """
    base = base if settings.layers is None else shallow(base, settings.layers)
    alone = settings.pooling == "none"
    changes: dict[str, Any] = {} if alone else {"score_pooling": settings.pooling}
    changes["dropout"] = settings.dropout
    if not settings.bag:
        return with_heads(base, ("score",), key, **changes)
    read = NgramConfig(
        hidden_states=not alone,
        token_characters=settings.bag_characters,
        buckets=settings.bag_buckets,
        power=settings.bag_power,
    )
    model = with_heads(base, ("score",), key, ngrams=read, **changes)
    features = ngram_features(read, model, rows)
    return dataclasses.replace(model, params=model.params | {FEATURES: features})


def ngram_features(
    config: NgramConfig, model: TextModel, rows: Sequence[TokenRow]
) -> dict[str, np.ndarray]:
    """Fixed features of an n-gram reward model: idf over the rows, and spelling of the tokens."""
    vocab_size, pad_id = model.model.config.vocab_size, model.tokenizer.pad_id
    features: dict[str, np.ndarray] = {}
    if config.token_characters:
        texts = token_texts(model.tokenizer)
        spelled = {"longest": config.token_characters, "vocab_size": vocab_size}
        features["spelling"] = spelling(texts, **spelled)
    counts = {name: np.zeros(size) for name, size in config.sizes(vocab_size).items()}
    read = jax.jit(functools.partial(ngrams, config))
    size = min(len(rows), MOST_ROWS)
    for index in evaluation_batches(len(rows), size):
        part = token_batch([rows[i] for i in index], pad_id=pad_id, length=longest(rows))
        part = pad_rows(part, size)[0]
        count_texts(counts, jax.device_get(read(part.tokens, part.mask, features)), len(index))
    idf = {f"{n}_idf": inverse_document_frequency(c, len(rows)) for n, c in counts.items()}
    return features | idf


def count_texts(counts: Mapping[str, np.ndarray], features: Mapping[str, Any], texts: int) -> None:
    """Add to the counts the number of the first `texts` rows that have each n-gram."""
    for name, (ids, present) in features.items():
        for row, real in zip(ids[:texts], present, strict=False):
            counts[name][np.unique(row[real])] += 1


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """Spelling of each token; BOS and the ends of texts are a space, for they border words."""
    borders = (tokenizer.bos_id, *tokenizer.stop_ids)
    texts = [tokenizer.token(number) for number in range(tokenizer.vocab_size)]
    texts[tokenizer.pad_id] = ""
    return [SPACE if number in borders else text for number, text in enumerate(texts)]
