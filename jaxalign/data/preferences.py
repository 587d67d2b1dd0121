"""Preferences between texts derived from human ratings: a person prefers what they rated higher.

Nobody was asked to compare; a person who rated one sentence 3 and another 1 is taken to prefer the
first. Two kinds of pair:

- *same rater*: two sentences of one block and one person's ratings of both. Real disagreement
  between people, and hard: sentences of a block are alike in sentiment.
- *across blocks*: two sentences of different blocks, a random rating of each, so mostly by
  different people.

A pair that got equal ratings is no preference and is left out of the pairs; in the soft preferences
of groups a tie counts half for either side, so that p[i, j] + p[j, i] = 1 for every two texts.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.data.chat import TokenRow
from jaxalign.data.ratings import Ratings
from jaxalign.errors import UserError

LEVELS = np.arange(-4, 5)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """P strict preferences between two texts, each of one person (or of two, across blocks).

    chosen, rejected: `[P]` positions of the two texts.
    gaps: `[P]` rating of the chosen text minus that of the rejected one, 1 to 8.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    gaps: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, order: np.ndarray) -> "Pairs":
        """The pairs at these positions."""
        return Pairs(self.chosen[order], self.rejected[order], self.gaps[order])


def all_pairs(parts: list[Pairs]) -> Pairs:
    """The pairs of all parts, one part after the other."""
    none = np.zeros(0, np.int64)
    return Pairs(
        np.concatenate([none, *(part.chosen for part in parts)]),
        np.concatenate([none, *(part.rejected for part in parts)]),
        np.concatenate([none.astype(np.int8), *(part.gaps for part in parts)]),
    )


@dataclasses.dataclass(frozen=True)
class Groups:
    """G groups of K texts with the preferences of people between all of them.

    texts: `[G, K]` positions.
    preferences: `[G, K, K]` float32, the share of people (or pairs of people) who prefer text i to
      text j, a tie counting half; 0 on the diagonal.
    margins: `[G, K, K]` float32, by how much text i should score above text j; None: 0.
    """

    texts: np.ndarray
    preferences: np.ndarray
    margins: np.ndarray | None = None


def blocks_of(ratings: Ratings) -> list[np.ndarray]:
    """Positions of each block's texts; where raters are unknown, each text is a block."""
    labels = np.where(ratings.block < 0, -1 - np.arange(len(ratings)), ratings.block)
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def rated_blocks(ratings: Ratings) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions `[n]` and ratings `[n, people]` of each block, column r being one person."""
    if (ratings.block < 0).any():
        raise UserError("it is not known who rated what here: same-rater comparisons need movies")
    return [(b, ratings.ratings[b, : ratings.num_ratings[b[0]]]) for b in blocks_of(ratings)]


def all_same_rater_pairs(ratings: Ratings) -> Pairs:
    """Pairs of every strict preference of every person within a block, in a fixed order."""
    parts = []
    for texts, scores in rated_blocks(ratings):
        gaps = scores[:, None] - scores[None]  # [text i, text j, person]
        i, j, person = np.nonzero(gaps > 0)
        parts.append(Pairs(texts[i], texts[j], gaps[i, j, person]))
    return all_pairs(parts)


def same_rater_pairs(ratings: Ratings, num_pairs: int, seed: int) -> Pairs:
    """A random selection of `all_same_rater_pairs`, none twice.

    Raises:
      UserError: there are fewer pairs, or the raters are unknown (products).
    """
    pairs = all_same_rater_pairs(ratings)
    if num_pairs > len(pairs):
        raise UserError(f"asked for {num_pairs} same-rater pairs, there are {len(pairs)}")
    return pairs.take(np.random.default_rng(seed).choice(len(pairs), num_pairs, replace=False))


def cross_block_pairs(ratings: Ratings, num_pairs: int, seed: int) -> Pairs:
    """Pairs of texts of two blocks (two different texts, for products), by a random rating of each.

    Raises:
      UserError: hardly any two ratings differ.
    """
    labels = np.where(ratings.block < 0, -1 - np.arange(len(ratings)), ratings.block)
    rng, parts, num_missing, attempts = np.random.default_rng(seed), [], num_pairs, 0
    while num_missing > 0:
        if (attempts := attempts + 1) > 1000:
            raise UserError("hardly any two blocks have different ratings: no pairs across blocks")
        texts = rng.integers(len(ratings), size=(2, 2 * num_missing + 16))
        first, second = ratings.ratings[texts, rng.integers(ratings.num_ratings[texts])]
        apart = labels[texts[0]] != labels[texts[1]]
        rows = np.flatnonzero(apart & (first != second))[:num_missing]
        higher = (first < second)[rows].astype(np.int64)
        gaps = np.abs(first - second)[rows]
        parts.append(Pairs(texts[higher, rows], texts[1 - higher, rows], gaps))
        num_missing -= len(rows)
    return all_pairs(parts)


def mixed_pairs(
    ratings: Ratings, num_pairs: int, seed: int, *, same_rater_share: float = 0.5
) -> Pairs:
    """Pairs of both kinds, shuffled: a share of same-rater pairs, the others across blocks.

    Args:
      ratings: of the texts.
      num_pairs: of both kinds together.
      seed: of the selection.
      same_rater_share: in [0, 1].
    """
    num_same = round(num_pairs * same_rater_share)
    parts = [cross_block_pairs(ratings, num_pairs - num_same, seed)] if num_same < num_pairs else []
    if num_same:
        parts.append(same_rater_pairs(ratings, num_same, seed))
    pairs = all_pairs(parts)
    return pairs.take(np.random.default_rng(seed).permutation(len(pairs)))


def paired_preferences(scores: np.ndarray) -> np.ndarray:
    """Share `[..., K, K]` of the people who rated text i above text j, a tie counting half.

    Args:
      scores: `[..., K, people]` ratings, column r of all K texts being one person.

    >>> paired_preferences(np.array([[3, 1, 2], [1, 1, 4]]))  # one for, one tie, one against
    array([[0. , 0.5],
           [0.5, 0. ]], dtype=float32)
    """
    signs = np.sign(scores[..., :, None, :].astype(np.int64) - scores[..., None, :, :])
    shares = (0.5 + 0.5 * signs.mean(-1)).astype(np.float32)
    return shares * (1 - np.eye(shares.shape[-1], dtype=np.float32))


def rating_shares(ratings: Ratings) -> np.ndarray:
    """Share `[N, 9]` of each text's ratings at -4, -3, ... 4."""
    hits = (ratings.ratings[..., None] == LEVELS) & ratings.rated[..., None]
    return hits.sum(1) / ratings.num_ratings[:, None]


def unpaired_preferences(shares: np.ndarray) -> np.ndarray:
    """Probability `[..., K, K]` that a random rating of text i is above one of text j.

    A tie counts half.

    Args:
      shares: `[..., K, 9]` from `rating_shares`.
    """
    beats = (LEVELS[:, None] > LEVELS) + 0.5 * (LEVELS[:, None] == LEVELS)
    preferences = (shares @ beats @ np.swapaxes(shares, -1, -2)).astype(np.float32)
    return preferences * (1 - np.eye(preferences.shape[-1], dtype=np.float32))


def same_block_groups(ratings: Ratings, num_groups: int, group_size: int, seed: int) -> Groups:
    """Random groups of texts of one block, with the preferences of the people who rated all."""
    rng = np.random.default_rng(seed)
    blocks = [block for block in rated_blocks(ratings) if len(block[0]) >= group_size]
    if not blocks:
        raise UserError(f"no block has {group_size} texts")
    texts, preferences = [], []
    for number in rng.integers(len(blocks), size=num_groups):
        positions, scores = blocks[number]
        members = rng.choice(len(positions), group_size, replace=False)
        texts.append(positions[members])
        preferences.append(paired_preferences(scores[members]))
    shape = (num_groups, group_size)
    return Groups(
        np.array(texts, np.int64).reshape(shape),
        np.array(preferences, np.float32).reshape(*shape, group_size),
    )


def cross_block_groups(ratings: Ratings, num_groups: int, group_size: int, seed: int) -> Groups:
    """Random groups of texts of different blocks, with preferences between independent raters."""
    rng, blocks = np.random.default_rng(seed), blocks_of(ratings)
    if len(blocks) < group_size:
        raise UserError(f"groups of {group_size} need as many blocks, there are {len(blocks)}")
    chosen = [rng.choice(len(blocks), group_size, replace=False) for _ in range(num_groups)]
    members = [rng.choice(blocks[number]) for group in chosen for number in group]
    texts = np.array(members, np.int64).reshape(num_groups, group_size)
    return Groups(texts, unpaired_preferences(rating_shares(ratings)[texts]))


def pairs_as_groups(
    pairs: Sequence[tuple[TokenRow, ...]], margins: np.ndarray
) -> tuple[list[TokenRow], Groups]:
    """Token sequences of pairs, and groups of two in which everybody prefers the first."""
    rows = [row for pair in pairs for row in pair]
    first_wins = np.array([[0.0, 1.0], [0.0, 0.0]], np.float32)
    return rows, Groups(
        np.arange(len(rows)).reshape(-1, 2),
        np.tile(first_wins, (len(pairs), 1, 1)),
        margins[:, None, None] * first_wins,
    )
