"""Agreement between human raters, counted exactly: the ceiling of every preference model.

All pairs and all people enter, nothing is sampled. A pair that somebody rated equal is left out for
that person.
"""

from collections.abc import Iterator

import numpy as np

from jaxalign.data.preferences import LEVELS, rated_blocks, rating_shares
from jaxalign.data.ratings import Ratings


def _block_signs(ratings: Ratings) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Signs of the rating differences of each block, `[pairs i < j, people]`, and of the means'."""
    for texts, scores in rated_blocks(ratings):
        i, j = np.triu_indices(len(texts), 1)
        signs = np.sign(scores[i].astype(np.int64) - scores[j])
        sums = scores.sum(1, dtype=np.int64)
        yield signs, np.sign(sums[i] - sums[j])


def same_rater_agreement(ratings: Ratings) -> dict[str, float]:
    """Agreement between people who all rated the same two texts (of one block).

    Returns:
      comparisons: strict preferences in all.
      two_people: share of pairs of people with the same preference, of those who both have one.
      one_against_majority: share of preferences that the majority of the others shares (ties left
      out).
      one_against_mean: share of preferences that have the order of the mean ratings.
      ties: share of the comparisons that are no preference.
    """
    both = agree = strict = compared = with_majority = majorities = with_mean = means = 0
    for signs, mean_signs in _block_signs(ratings):
        net, expressed = signs.sum(1), np.abs(signs).sum(1)
        both += (expressed * (expressed - 1) // 2).sum()
        agree += ((net**2 - expressed) // 2 + expressed * (expressed - 1) // 2).sum() // 2
        others = np.sign(net[:, None] - signs) * np.abs(signs)
        majorities += np.abs(others).sum()
        with_majority += (others * signs > 0).sum()
        against = mean_signs[:, None] * signs
        means += np.abs(against).sum()
        with_mean += (against > 0).sum()
        strict += expressed.sum()
        compared += signs.size
    return {
        "comparisons": float(strict),
        "two_people": float(agree / both),
        "one_against_majority": float(with_majority / majorities),
        "one_against_mean": float(with_mean / means),
        "ties": float(1 - strict / compared),
    }


def cross_agreement(ratings: Ratings) -> dict[str, float]:
    """Agreement between independent draws, of one random rating each of two texts of two blocks.

    With p, q the probabilities that the rating of i is above, below that of j, two draws that both
    decide agree with probability (p^2 + q^2) / (p + q)^2; these are averaged over pairs by how
    often both decide.

    Returns:
      two_draws: probability that two independent draws agree, given that both decide.
      one_against_mean: probability that a draw that decides has the order of the mean ratings.
      ties: probability that a draw does not decide.
    """
    shares, means = rating_shares(ratings), ratings.means
    block = np.where(ratings.block < 0, -1 - np.arange(len(ratings)), ratings.block)
    above = shares @ (LEVELS[:, None] > LEVELS)  # [N, 9] share of ratings above each level
    sums = np.zeros(6)
    for rows in np.array_split(np.arange(len(ratings)), -(-len(ratings) // 512)):
        p = above[rows] @ shares.T
        q = shares[rows] @ above.T
        apart = block[rows, None] != block
        order = np.sign(means[rows, None] - means) * apart
        decided = (p + q) * apart
        sums += [
            ((p**2 + q**2) * apart).sum(),
            (decided**2).sum(),
            (p * (order > 0) + q * (order < 0)).sum(),
            (decided * (order != 0)).sum(),
            decided.sum(),
            apart.sum(),
        ]
    return {
        "two_draws": float(sums[0] / sums[1]),
        "one_against_mean": float(sums[2] / sums[3]),
        "ties": float(1 - sums[4] / sums[5]),
    }
