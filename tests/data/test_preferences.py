"""Preferences read off ratings, against counting by hand and by brute force."""

import itertools

import numpy as np
import pytest

from jaxalign.data.agreement import cross_agreement, same_rater_agreement
from jaxalign.data.preferences import (
    all_same_rater_pairs,
    cross_block_groups,
    cross_block_pairs,
    mixed_pairs,
    paired_preferences,
    rating_shares,
    same_block_groups,
    same_rater_pairs,
    unpaired_preferences,
)
from jaxalign.data.ratings import Ratings, load_ratings
from jaxalign.errors import UserError


def make(blocks):
    """Ratings from `[[texts, people], ...]` lists, a list a block; None marks unknown raters."""
    rows = [given for block in blocks for given in block]
    width = max(map(len, rows))
    return Ratings(
        ids=[str(n) for n in range(len(rows))],
        texts=[f"text {n}" for n in range(len(rows))],
        ratings=np.array([row + [0] * (width - len(row)) for row in rows], np.int8),
        num_ratings=np.array([len(row) for row in rows], np.int32),
        block=np.repeat(np.arange(len(blocks)), [len(block) for block in blocks]).astype(np.int32),
        split=np.repeat("policy", len(rows)),
    )


def without_raters(ratings):
    block = np.full(len(ratings), -1, np.int32)
    return Ratings(**(vars(ratings) | {"block": block}))


# Block 0: three texts, three people; block 1: two texts, two people.
SMALL = make([[[2, 1, -1], [1, 1, 0], [-3, 4, 0]], [[4, -4], [3, -4]]])


@pytest.fixture(scope="module")
def random_ratings():
    rng = np.random.default_rng(3)
    return make([rng.integers(-2, 3, size=(4, people)).tolist() for people in (3, 5, 4)])


@pytest.fixture(scope="module")
def movies(ratings_dir):
    return load_ratings("movies", ratings_dir)


def triples(pairs):
    columns = (pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.gaps.tolist())
    return sorted(zip(*columns, strict=True))


def test_same_rater_pairs_by_hand():
    # Person 0 of block 0 rated 2, 1, -3; person 1: 1, 1, 4; person 2: -1, 0, 0. Block 1: 4, 3 and a
    # tie.
    pairs = all_same_rater_pairs(SMALL)
    person_0 = [(0, 1, 1), (0, 2, 5), (1, 2, 4)]
    person_1 = [(2, 0, 3), (2, 1, 3)]
    person_2 = [(1, 0, 1), (2, 0, 1)]
    assert triples(pairs) == sorted([*person_0, *person_1, *person_2, (3, 4, 1)])


def test_a_rating_beyond_the_last_person_is_no_rating():
    # Block 1 has two people; its column 2 is padding (0) and must give no pair.
    assert all(gap == 1 for c, r, gap in triples(all_same_rater_pairs(SMALL)) if {c, r} == {3, 4})


def test_selected_pairs_are_among_all_none_twice_and_seeded():
    everything = all_same_rater_pairs(SMALL)
    chosen = same_rater_pairs(SMALL, len(everything), seed=0)
    assert triples(chosen) == triples(everything)
    picks = [triples(same_rater_pairs(SMALL, 4, seed)) for seed in (1, 1, 2, 3, 4)]
    assert picks[0] == picks[1] and len({tuple(pick) for pick in picks}) > 1
    with pytest.raises(UserError, match="asked for 9 same-rater pairs, there are 8"):
        same_rater_pairs(SMALL, 9, seed=0)


def test_pairs_across_blocks_are_of_two_blocks_and_of_real_ratings(random_ratings):
    ratings = random_ratings
    pairs = cross_block_pairs(ratings, 500, seed=0)
    assert len(pairs) == 500 and (pairs.gaps > 0).all()
    assert (ratings.block[pairs.chosen] != ratings.block[pairs.rejected]).all()
    for chosen, rejected, gap in triples(pairs):
        high = ratings.ratings[chosen, : ratings.num_ratings[chosen]]
        low = ratings.ratings[rejected, : ratings.num_ratings[rejected]]
        assert gap in np.subtract.outer(high, low)
    again = cross_block_pairs(ratings, 500, seed=0)
    assert again.chosen.tolist() == pairs.chosen.tolist()


def test_pairs_across_blocks_prefer_as_often_as_people_do(random_ratings):
    pairs = cross_block_pairs(random_ratings, 40_000, seed=1)
    means = random_ratings.means
    decided = means[pairs.chosen] != means[pairs.rejected]
    share = (means[pairs.chosen] > means[pairs.rejected])[decided].mean()
    # binomial standard error 0.0025: four of them
    assert share == pytest.approx(cross_agreement(random_ratings)["one_against_mean"], abs=0.01)


def test_products_pair_any_two_texts_but_not_the_same(random_ratings):
    unknown = without_raters(random_ratings)
    pairs = cross_block_pairs(unknown, 300, seed=0)
    assert (pairs.chosen != pairs.rejected).all()
    assert (random_ratings.block[pairs.chosen] == random_ratings.block[pairs.rejected]).any()
    for function in (all_same_rater_pairs, same_rater_agreement):
        with pytest.raises(UserError, match="not known who rated what"):
            function(unknown)


def test_pairs_that_cannot_be_are_refused():
    same = make([[[1, 1]], [[1, 1]]])
    with pytest.raises(UserError, match="no pairs across blocks"):
        cross_block_pairs(same, 1, seed=0)
    with pytest.raises(UserError, match="no pairs across blocks"):
        cross_block_pairs(make([[[1, 2], [3, 4]]]), 1, seed=0)


@pytest.mark.slow
def test_mixed_pairs_have_the_share_that_was_asked_for(movies):
    part = movies.part("policy_validation")
    for share, expected in [(0.5, 100), (0.0, 0), (1.0, 200), (0.25, 50)]:
        pairs = mixed_pairs(part, 200, seed=0, same_rater_share=share)
        same = part.block[pairs.chosen] == part.block[pairs.rejected]
        assert len(pairs) == 200 and same.sum() == expected
        if 0 < share < 1:  # shuffled, not one kind after the other
            assert 0 < same[:100].sum() < expected


def test_none_are_none():
    for pairs in (cross_block_pairs(SMALL, 0, 0), same_rater_pairs(SMALL, 0, 0)):
        assert triples(pairs) == []
    assert triples(mixed_pairs(SMALL, 0, 0)) == []
    for make_groups in (same_block_groups, cross_block_groups):
        groups = make_groups(SMALL, 0, 2, seed=0)
        assert groups.texts.shape == (0, 2) and groups.preferences.shape == (0, 2, 2)


def test_paired_preferences_by_hand():
    # Texts 0, 1: 2 > 1, 1 = 1, -1 < 0: one for, one tie, one against = 1/2.
    # Texts 0, 2: 2 > -3, 1 < 4, -1 < 0: 1/3. Texts 1, 2: 1 > -3, 1 < 4, 0 = 0: (1 + 1/2) / 3 = 1/2.
    found = paired_preferences(SMALL.ratings[:3])
    expected = [[0, 1 / 2, 1 / 3], [1 / 2, 0, 1 / 2], [2 / 3, 1 / 2, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.dtype == np.float32


def test_unpaired_preferences_by_hand():
    # Text 0 (2, 1, -1) against text 3 (4, -4): each of the three is above -4 and below 4: 1/2.
    # Text 1 (1, 1, 0) against text 4 (3, -4): 1/2. Text 0 against text 2 (-3, 4, 0): of the nine
    # pairs of # ratings 2 > -3, 2 > 0, 1 > -3, 1 > 0, -1 > -3: 5/9, no tie. Text 1 against 2: 1 >
    # -3, 1 > 0 twice, # 0 > -3 and the tie 0 = 0: 5.5/9.
    found = unpaired_preferences(rating_shares(SMALL))
    for i, j, share in [(0, 3, 1 / 2), (1, 4, 1 / 2), (0, 2, 5 / 9), (1, 2, 5.5 / 9)]:
        assert found[i, j] == pytest.approx(share, abs=1e-7)
        assert found[j, i] == pytest.approx(1 - share, abs=1e-7)
    assert not np.diag(found).any()


def brute_force_groups(ratings, groups, paired):
    for texts, preferences in zip(groups.texts, groups.preferences, strict=True):
        for a, b in itertools.permutations(range(len(texts)), 2):
            i, j = texts[a], texts[b]
            x = ratings.ratings[i, : ratings.num_ratings[i]].tolist()
            y = ratings.ratings[j, : ratings.num_ratings[j]].tolist()
            both = list(zip(x, y, strict=True)) if paired else list(itertools.product(x, y))
            points = sum(1.0 if r > s else 0.5 if r == s else 0.0 for r, s in both)
            assert preferences[a, b] == pytest.approx(points / len(both), abs=1e-6)


def test_groups_of_one_block_hold_what_its_people_think(random_ratings):
    groups = same_block_groups(random_ratings, 20, 3, seed=0)
    assert groups.texts.shape == (20, 3) and groups.preferences.shape == (20, 3, 3)
    assert all(len(set(texts)) == 3 for texts in groups.texts.tolist())
    assert (random_ratings.block[groups.texts] == random_ratings.block[groups.texts[:, :1]]).all()
    brute_force_groups(random_ratings, groups, paired=True)
    with pytest.raises(UserError, match="no block has 5 texts"):
        same_block_groups(random_ratings, 1, 5, seed=0)


def test_groups_across_blocks_hold_what_random_raters_think(random_ratings):
    groups = cross_block_groups(random_ratings, 20, 3, seed=0)
    assert all(len(set(random_ratings.block[texts])) == 3 for texts in groups.texts)
    brute_force_groups(random_ratings, groups, paired=False)
    with pytest.raises(UserError, match="groups of 4 need as many blocks, there are 3"):
        cross_block_groups(random_ratings, 1, 4, seed=0)
    anybody = cross_block_groups(without_raters(random_ratings), 20, 4, seed=0)
    assert all(len(set(texts)) == 4 for texts in anybody.texts.tolist())


@pytest.mark.slow
def test_groups_are_seeded_and_complementary(movies):
    part = movies.part("policy_validation")
    for make_groups in (same_block_groups, cross_block_groups):
        one, two, other = (make_groups(part, 30, 4, seed) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one.texts, two.texts)
        assert (one.texts != other.texts).any()
        both = one.preferences + one.preferences.swapaxes(1, 2)
        np.testing.assert_allclose(both, np.broadcast_to(1 - np.eye(4), both.shape), atol=1e-6)


def brute_force_same_rater(ratings):
    """Loops over blocks, pairs of texts and people."""
    strict, agree, both, majority, majorities, mean, means, asked = (0,) * 8
    for block in set(ratings.block.tolist()):
        rows = np.flatnonzero(ratings.block == block)
        for i, j in itertools.combinations(rows, 2):
            people = range(ratings.num_ratings[i])
            signs = [
                int(np.sign(int(ratings.ratings[i, p]) - ratings.ratings[j, p])) for p in people
            ]
            mean_sign = np.sign(ratings.means[i] - ratings.means[j])
            asked += len(signs)
            for a in people:
                strict += signs[a] != 0
                rest = np.sign(sum(signs) - signs[a])
                majorities += signs[a] != 0 and rest != 0
                majority += signs[a] != 0 and rest == signs[a]
                means += signs[a] != 0 and mean_sign != 0
                mean += signs[a] != 0 and mean_sign == signs[a]
            for a, b in itertools.combinations(people, 2):
                both += signs[a] != 0 and signs[b] != 0
                agree += signs[a] != 0 and signs[a] == signs[b]
    return {
        "comparisons": strict,
        "two_people": agree / both,
        "one_against_majority": majority / majorities,
        "one_against_mean": mean / means,
        "ties": 1 - strict / asked,
    }


def brute_force_cross(ratings):
    """Loops over pairs of texts and pairs of their ratings."""
    sums = np.zeros(6)
    for i, j in itertools.combinations(range(len(ratings)), 2):
        if ratings.block[i] == ratings.block[j]:
            continue
        x = ratings.ratings[i, : ratings.num_ratings[i]].tolist()
        y = ratings.ratings[j, : ratings.num_ratings[j]].tolist()
        both = list(itertools.product(x, y))
        p = sum(r > s for r, s in both) / len(both)
        q = sum(r < s for r, s in both) / len(both)
        order = np.sign(round(ratings.means[i] - ratings.means[j], 12))
        right = {1: p, -1: q, 0: 0}[order]
        sums += [p * p + q * q, (p + q) ** 2, right, (p + q) * (order != 0), p + q, 1]
    return {
        "two_draws": sums[0] / sums[1],
        "one_against_mean": sums[2] / sums[3],
        "ties": 1 - sums[4] / sums[5],
    }


def test_agreement_is_what_loops_count(random_ratings):
    assert same_rater_agreement(random_ratings) == pytest.approx(
        brute_force_same_rater(random_ratings), abs=1e-12
    )
    assert cross_agreement(random_ratings) == pytest.approx(
        brute_force_cross(random_ratings), abs=1e-12
    )


def test_people_agree_about_the_movies_as_much_as_we_say(movies):
    same = same_rater_agreement(movies)
    print("\nagreement about two sentences of a block:", same)
    assert same["comparisons"] == 1_973_841
    assert same["two_people"] == pytest.approx(0.798, abs=0.0005)
    assert same["one_against_majority"] == pytest.approx(0.835, abs=0.0005)
    assert same["one_against_mean"] == pytest.approx(0.853, abs=0.0005)
    cross = cross_agreement(movies.part("evaluation"))
    print("agreement about two sentences of different blocks:", cross)
    assert cross["two_draws"] == pytest.approx(0.88, abs=0.01)
    assert cross["one_against_mean"] == pytest.approx(0.90, abs=0.01)
    assert cross["ties"] == pytest.approx(0.145, abs=0.01)
