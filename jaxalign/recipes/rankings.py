"""Reward models from rankings: training, and agreement of scores with rankings."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign import objectives
from jaxalign.config.reward import RewardSettings
from jaxalign.data.chat import TokenRow
from jaxalign.data.preference_batches import ranking_batch
from jaxalign.diagnostics import concordance
from jaxalign.evaluation.bootstrap import mean_estimate
from jaxalign.recipes.reward import Compared, train_scores
from jaxalign.recipes.run import Run
from jaxalign.recipes.scoring import longest, score_rows
from jaxalign.recipes.text_models import TextModel

Rankings = Sequence[tuple[TokenRow, ...]]


def train_ranking(
    run: Run,
    name: str,
    base: TextModel,
    rankings: Rankings,
    *,
    settings: RewardSettings,
    held_out: Rankings = (),
) -> TextModel:
    """A reward model of ranked texts, by `train_scores`.

    Args:
      base: where trunk and vocabulary come from.
      rankings: texts, the best first.
      settings: of head, loss and loop.
      held_out: other rankings, on which the loss is evaluated along the way.
    """
    pad_id = base.tokenizer.pad_id
    return train_scores(
        run,
        name,
        base,
        in_rankings(rankings, pad_id),
        size=settings.fit.rows,
        settings=settings,
        objective=objectives.ranking,
        held_out=in_rankings(held_out, pad_id) if held_out else None,
    )[0]


def in_rankings(rankings: Rankings, pad_id: int) -> Compared:
    """Texts that are ranked, in batches of one shape."""
    rows = [row for ranking in rankings for row in ranking]
    starts = np.cumsum([0, *(len(ranking) for ranking in rankings)])
    size, length = max(len(ranking) for ranking in rankings), longest(rows)

    def batch(chosen: np.ndarray):
        return ranking_batch(
            [rankings[i] for i in chosen],
            pad_id=pad_id,
            size=size,
            length=length,
            index=starts[chosen][:, None] + np.arange(size),
        )

    return Compared(rows=rows, count=len(rankings), batch=batch)


def ranking_accuracy(
    run: Run, reward: TextModel, rankings: Rankings, *, blocks: np.ndarray
) -> dict[str, Any]:
    """Share of the pairs that the scores put in the order of the rankings, and Kendall's tau.

    Ties of scores count half.

    Args:
      blocks: `[N]` which of the rankings belong to one prompt; intervals are over prompts.
    """
    scores = score_rows(run, reward, [row for ranking in rankings for row in ranking])
    ends = np.cumsum([len(ranking) for ranking in rankings])[:-1]
    right = [shares_in_order(part) for part in np.split(scores, ends)]
    of_pairs = np.repeat(blocks, [len(part) for part in right])
    pairs = mean_estimate(np.concatenate(right), blocks=of_pairs)
    kendall = mean_estimate(np.array([2 * part.mean() - 1 for part in right]), blocks=blocks)
    return pairs.columns("pair_accuracy") | kendall.columns("kendall_tau")


def shares_in_order(scores: np.ndarray) -> np.ndarray:
    """`[K (K - 1) / 2]`: 1 for every pair whose better text, which comes first, scores higher.

    >>> shares_in_order(np.array([2.0, 0.0, 0.0])).tolist()  # pairs 01, 02, 12
    [1.0, 1.0, 0.5]
    """
    pairs = itertools.combinations(scores, 2)
    return np.array([concordance(better, worse) for better, worse in pairs])
