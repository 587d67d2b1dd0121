"""Agreement of scorers with human ratings, and of one rater with the others."""

from collections.abc import Iterator

import numpy as np

from jaxalign.diagnostics import concordance
from jaxalign.errors import UserError
from jaxalign.evaluation.bootstrap import Estimate, estimate, ratio, resample_counts

# Rows of the pair matrix held at once. Credits are halves and counts whole, so float32 sums over
# this many rows are exact.
_CHUNK = 256


def pair_accuracy(
    scores: np.ndarray,
    human: np.ndarray,
    counts: np.ndarray,
    *,
    min_gap: float = 0.0,
    within: np.ndarray | None = None,
) -> np.ndarray:
    """Share of pairs of texts that the scorer orders as the human means do.

      sum_ij c_i c_j 1[h_i - h_j > gap] (1[s_i > s_j] + 1[s_i = s_j] / 2) / sum_ij c_i c_j 1[...]

    over *all* pairs, which is what random pairs estimate. Pairs that people tie are left out; pairs
    that the scorer ties count half.

    Args:
      scores: `[N]`, or `[K, N]` for K draws of a random scorer, pooled.
      human: `[N]` or `[K, N]` mean ratings; NaN leaves a text out of the draw.
      counts: `[R, N]` how often each text counts in each replicate.
      min_gap: only pairs whose means differ by more than this.
      within: `[N]` labels; only pairs of texts with the same label. None: all pairs.

    Returns:
      `[R]` in [0, 1], NaN where no pair is left.
    """
    scores, human = np.atleast_2d(scores), np.atleast_2d(human)
    right = total = np.zeros(len(counts))
    for rows in _chunks(scores.shape[1]):
        correct, compared = _pair_matrices(scores, human, rows, min_gap=min_gap, within=within)
        left = counts[:, rows].astype(np.float32)
        right = right + ((left @ correct) * counts).sum(axis=1)
        total = total + ((left @ compared) * counts).sum(axis=1)
    return ratio(right, total)


def sign_recall(
    scores: np.ndarray,
    human: np.ndarray,
    counts: np.ndarray,
    *,
    sign: int,
    threshold: float = 0.5,
    cut: float = 0.0,
) -> np.ndarray:
    """Share of clearly positive (`sign` 1) or negative (-1) texts the scorer puts on that side.

    Args:
      scores, human, counts: as in `pair_accuracy`.
      sign: 1 or -1.
      threshold: a text is clearly positive if its mean rating is above this.
      cut: the score between the scorer's sides; a score equal to it counts half.

    Returns:
      `[R]` in [0, 1], NaN where there is no such text.
    """
    scores, human = np.atleast_2d(scores), np.atleast_2d(human)
    of_class = np.nan_to_num(sign * human, nan=-np.inf) > threshold
    credit = of_class * concordance(sign * (np.nan_to_num(scores) - cut), 0.0)
    return ratio(counts @ credit.sum(axis=0), counts @ of_class.sum(axis=0).astype(float))


def spearman(scores: np.ndarray, human: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rank correlation with middle ranks for ties, averaged over draws, for each replicate.

    Args, Returns: as in `pair_accuracy`, in [-1, 1]; NaN where either side is constant.
    """
    draws = zip(np.atleast_2d(scores), np.atleast_2d(human), strict=True)
    return np.mean([_spearman(score, mean, counts) for score, mean in draws], axis=0)


def scorer_agreement(
    scores: np.ndarray,
    human: np.ndarray,
    *,
    blocks: np.ndarray | None = None,
    cut: float = 0.0,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Agreement of one scorer with people in every measure; 95% intervals over texts or blocks.

    Args:
      scores: `[N]` the scorer's scores (or `[K, N]`, K draws of a random scorer, pooled).
      human: `[N]` mean human ratings (or `[K, N]`).
      blocks: `[N]` labels of texts that were rated by the same people and are resampled together;
        None: texts are independent.
      cut: the score that stands between negative and positive.
      repeats: bootstrap replicates.
      seed: of the bootstrap.

    Returns:
      `pair_accuracy`, `pair_accuracy_gap1` (means differ by more than 1), with blocks also
      `pair_accuracy_within`; `recall_positive`, `recall_negative`, `macro_recall`; `spearman`.
    """
    scores, human = np.asarray(scores, np.float64), np.asarray(human, np.float64)
    if scores.shape != human.shape:
        raise UserError(f"{scores.shape} scores for {human.shape} human means: must be equal")
    if not np.isfinite(scores[np.isfinite(human)]).all():
        raise UserError("a score is NaN or infinite: agreement needs a score for every rated text")
    resampled = resample_counts(scores.shape[-1], repeats=repeats, seed=seed, blocks=blocks)
    counts = np.concatenate([np.ones((1, scores.shape[-1])), resampled])
    values = {
        "pair_accuracy": pair_accuracy(scores, human, counts),
        "pair_accuracy_gap1": pair_accuracy(scores, human, counts, min_gap=1.0),
        "recall_positive": sign_recall(scores, human, counts, sign=1, cut=cut),
        "recall_negative": sign_recall(scores, human, counts, sign=-1, cut=cut),
        "spearman": spearman(scores, human, counts),
    }
    values["macro_recall"] = (values["recall_positive"] + values["recall_negative"]) / 2
    if blocks is not None:
        values["pair_accuracy_within"] = pair_accuracy(scores, human, counts, within=blocks)
    return {name: estimate(value[0], value[1:]) for name, value in values.items()}


def one_against_rest(
    ratings: np.ndarray, present: np.ndarray, *, draws: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ratings of one random rater of each text, and the means of its other raters.

    Args:
      ratings: `[N, R]` single human ratings.
      present: `[N, R]` bool, False where there is no rating.
      draws: number of independent draws K of the rater.
      seed: of the draws.

    Returns:
      `[K, N]` the rater's rating and `[K, N]` the mean of the rest; NaN where fewer than two rated.
    """
    ratings, present = np.asarray(ratings, np.float64), np.asarray(present, bool)
    order = np.random.default_rng(seed).random((draws, *ratings.shape))
    chosen = np.where(present, order, -1.0).argmax(axis=-1)
    one = np.take_along_axis(ratings[None], chosen[..., None], axis=-1)[..., 0]
    rest = np.where(present, ratings, 0.0).sum(axis=-1) - one
    others = np.broadcast_to(present.sum(axis=-1) - 1.0, rest.shape)
    return np.where(others > 0, one, np.nan), ratio(rest, np.maximum(others, 0))


def human_ceiling(
    ratings: np.ndarray,
    present: np.ndarray,
    *,
    blocks: np.ndarray | None = None,
    draws: int = 4,
    repeats: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """`scorer_agreement` of one random person with the mean of the others: a yardstick.

    A person gives whole numbers and often the same one twice, which counts half, so a scorer that
    has learned the *mean* of many people may come out above this.

    Args, Returns: as in `one_against_rest` and `scorer_agreement`.
    """
    one, rest = one_against_rest(ratings, present, draws=draws, seed=seed)
    return scorer_agreement(one, rest, blocks=blocks, repeats=repeats, seed=seed)


def scorer_row(name: str, numbers: dict[str, Estimate]) -> dict[str, float | str]:
    """One row of the scorer table: the columns of each estimate beside the scorer's name."""
    row: dict[str, float | str] = {"scorer": name}
    for metric, number in numbers.items():
        row |= number.columns(metric)
    return row


def _chunks(num: int) -> Iterator[slice]:
    """Slices that together cover `num` rows."""
    return (slice(start, start + _CHUNK) for start in range(0, num, _CHUNK))


def _pair_matrices(
    scores: np.ndarray,
    human: np.ndarray,
    rows: slice,
    *,
    min_gap: float,
    within: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Credit `[rows, N]`, and whether row i is the better text of a compared pair; over draws."""
    scores, human = np.nan_to_num(scores), np.asarray(human)
    correct = compared = 0.0
    for score, mean in zip(scores, human, strict=True):
        gap = mean[rows, None] - mean[None, :]
        better = np.nan_to_num(gap, nan=-np.inf) > min_gap
        if within is not None:
            better &= within[rows, None] == within[None, :]
        compared = compared + better
        correct = correct + better * (0.5 + 0.5 * np.sign(score[rows, None] - score[None, :]))
    return np.asarray(correct, np.float32), np.asarray(compared, np.float32)


def _spearman(scores: np.ndarray, human: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation of weighted ranks: Spearman's of each resampled data set."""
    rated = np.isfinite(scores) & np.isfinite(human)
    counts = counts[:, rated]
    total = counts.sum(axis=1)
    x, y = (_centred_ranks(values[rated], counts) for values in (scores, human))
    covariance, variance_x, variance_y = (
        (counts * product).sum(axis=1) for product in (x * y, x * x, y * y)
    )
    scale = np.sqrt(variance_x * variance_y)
    return ratio(covariance, np.where(scale > 1e-9 * total, scale, 0.0))


def _centred_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`[R, N]` middle rank of each value among those drawn, minus the mean rank."""
    if not len(values):
        return np.zeros_like(counts)
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    group_counts = np.add.reduceat(counts[:, order], starts, axis=1)
    middle = (
        np.cumsum(group_counts, axis=1) - group_counts / 2 - counts.sum(axis=1, keepdims=True) / 2
    )
    group = np.cumsum(np.isin(np.arange(len(values)), starts)) - 1
    ranks = np.empty_like(counts)
    ranks[:, order] = middle[:, group]
    return ranks
