"""Reward models: token rows and preferences in, a trained and standardised model out."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxalign import objectives
from jaxalign.config.reward import RewardSettings
from jaxalign.data.batching import (
    batch_indices,
    comparison_batch,
    evaluation_batches,
    token_batch,
)
from jaxalign.data.chat import TokenRow
from jaxalign.data.preferences import Groups
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.layouts.layout import pad_rows
from jaxalign.models.architecture import TransformerConfig
from jaxalign.models.functions import (
    head_scores,
    pooled_texts,
    text_scores,
)
from jaxalign.models.heads import character_features, token_features
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import SCORING_ROWS, by_rows, longest, score_rows
from jaxalign.recipes.text_models import TextModel, shallow, with_heads

BAG = ("tokens", "pairs", "runs")  # the trained weights of the score head's bag


TRAINED = (*BAG, "readout", "bias")


SPACE = "Ġ"  # how byte-level vocabularies spell a space


def train_reward(
    run: Run,
    name: str,
    base: TextModel,
    rows: Sequence[TokenRow],
    groups: Groups,
    settings: RewardSettings,
) -> tuple[TextModel, float]:
    """Bradley-Terry on compared texts: `train_scores` on groups.

    Args:
      groups: who was preferred to whom; `groups.texts` are positions in `rows`.
    """
    groups_per_batch = settings.fit.rows // groups.texts.shape[1]
    length = longest(rows)

    def batch(number: int):
        chosen = batch_indices(number, len(groups.texts), groups_per_batch, run.seed)
        return comparison_batch(
            [[rows[i] for i in group] for group in groups.texts[chosen]],
            groups.preferences[chosen],
            margins=None if groups.margins is None else groups.margins[chosen],
            pad_id=base.tokenizer.pad_id,
            length=length,
            index=groups.texts[chosen],
        )

    return train_scores(run, name, base, rows, settings, objective=objectives.reward, batches=batch)


def train_scores(
    run: Run,
    name: str,
    base: TextModel,
    rows: Sequence[TokenRow],
    settings: RewardSettings,
    *,
    objective: Callable,
    batches: Callable[[int], Any],
) -> tuple[TextModel, float]:
    """A model of the scores of whole texts, scaled to mean 0 and deviation 1 over `rows`.

    Args:
      base: where trunk and vocabulary come from.
      rows: all texts.
      settings: of head, loss and loop.
      objective: `objectives.reward` or `objectives.ranking`.
      batches: batch number -> what the objective takes.

    Returns:
      The reward model, and the deviation that its scores had before: times that, a difference of
      scores is the log-odds of a preference again.
    """
    model = with_heads(
        base if settings.layers is None else shallow(base, settings.layers),
        ("score",),
        run.key(f"{name}/init"),
        score_pooling=settings.pooling,
        score_bag=settings.bag,
        score_characters=settings.bag_characters if settings.bag else 0,
        score_bag_buckets=settings.bag_buckets,
        score_bag_power=settings.bag_power,
        dropout=settings.dropout,
    )
    if settings.bag:
        model = with_rarity(model, rows)
    scores_of, params, frozen = text_scores(model.model), model.trained, model.frozen
    if settings.trunk == "frozen":
        pooled = by_rows(run, pooled_texts(model.model), model.params, rows, base.tokenizer.pad_id)
        scores_of, frozen = head_scores(model.model.config), {"pooled": pooled}
        params = {"score": model.params["score"]}
    loss = objective(
        scores_of,
        centering=settings.centering,
        l2=settings.bag_l2 if settings.bag else 0.0,
        penalised=lambda params: {k: v for k, v in params["score"].items() if k in BAG},
    )
    params = run.fit(name, loss, params, batches, settings.fit, frozen=frozen)
    trained = dataclasses.replace(model, params={**model.params, **params})
    scores = score_rows(run, trained, rows)
    return standardised(trained, scores), float(scores.std())


def with_rarity(reward: TextModel, rows: Sequence[TokenRow]) -> TextModel:
    """The bag's frozen factors: inverse document frequencies, and how tokens are spelled.

      log((1 + N) / (1 + number of texts with the feature)) + 1

    BOS and EOS are spelled as a space: they are borders of words.

    Source: Sparck Jones 1972, https://doi.org/10.1108/eb026526, smoothed as in scikit-learn.
    """
    config, tokenizer, head = reward.model.config, reward.tokenizer, dict(reward.params["score"])
    counts = {name: np.zeros(head[name].shape) for name in BAG if name in head}
    if config.score_characters:
        head["spelling"] = spelling(tokenizer, config.score_characters, config.vocab_size)
    for index in evaluation_batches(len(rows), SCORING_ROWS):
        part = token_batch([rows[i] for i in index], pad_id=tokenizer.pad_id, length=longest(rows))
        features = bag_features(config, head, pad_rows(part, SCORING_ROWS)[0])
        for name, (buckets, present) in jax.device_get(features).items():
            for found, real in zip(buckets[: len(index)], present, strict=False):
                counts[name][np.unique(found[real])] += 1
    for name, count in counts.items():
        head[f"{name}_rarity"] = np.float32(np.log((1 + len(rows)) / (1 + count)) + 1)
    return dataclasses.replace(reward, params=reward.params | {"score": head})


@functools.partial(jax.jit, static_argnums=0)
def bag_features(config: TransformerConfig, head: dict, batch) -> dict:
    """What the bag of that score head counts in the texts."""
    features = token_features(batch.tokens, batch.mask, config.score_bag_buckets)
    if not config.score_characters:
        return features
    codes = head["spelling"].astype(np.uint32)[batch.tokens]
    return features | character_features(codes, batch.mask, config.score_bag_buckets)


def spelling(tokenizer: Tokenizer, longest_token: int, vocab_size: int) -> np.ndarray:
    """`[V, longest_token]` float32 characters of every token, 0 after its last.

    The model's V may be larger than the tokenizer's: what it lacks is spelled as nothing.
    """
    codes = np.zeros((vocab_size, longest_token), np.float32)
    borders = (tokenizer.bos_id, *tokenizer.stop_ids)
    for number in range(tokenizer.vocab_size):
        text = SPACE if number in borders else tokenizer.token(number)[:longest_token]
        codes[number, : len(text)] = [ord(character) for character in text]
    codes[tokenizer.pad_id] *= tokenizer.pad_id in borders
    return codes


def standardised(reward: TextModel, scores: np.ndarray) -> TextModel:
    """The same ranking with mean 0 and deviation 1 over the texts that got these scores.

    The score is linear in every trained weight of its head, so the scale goes into all of them and
    the shift into the bias.
    """
    deviation = scores.std() or 1.0  # a model that tells no texts apart stays as it is
    head = {
        name: value if name not in TRAINED else jax.tree.map(lambda x: x / deviation, value)
        for name, value in reward.params["score"].items()
    }
    shift = np.float32(scores.mean() / deviation)
    if "readout" in head:
        head["readout"] = head["readout"] | {"bias": head["readout"]["bias"] - shift}
    else:
        head["bias"] = head["bias"] - shift
    return dataclasses.replace(reward, params=reward.params | {"score": head})
