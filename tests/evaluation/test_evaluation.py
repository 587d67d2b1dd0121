"""Evaluation: every estimator against a closed form, brute force or SciPy."""

import ast
import collections
import io
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import recall_score
from threadpoolctl import threadpool_limits

from jaxalign import evaluation
from jaxalign.errors import UserError
from jaxalign.evaluation import agreement, best_of_n, bootstrap, frontier, tables, win_rates
from jaxalign.evaluation import text_statistics as texts


def seeded(seed):
    return np.random.default_rng(seed)


# bootstrap


def test_resample_counts_draw_with_replacement():
    counts = bootstrap.resample_counts(50, repeats=4000, seed=1)
    assert counts.shape == (4000, 50)
    assert (counts.sum(axis=1) == 50).all()
    # Binomial(50, 1/50): variance 0.98; 200,000 draws, so five standard errors are 0.02.
    assert counts.mean() == 1.0
    assert abs(counts.var() - 0.98) < 0.03


def test_resample_counts_draw_blocks_together():
    blocks = np.array([7, 7, 7, 2, 2, 2, 9, 9, 9])
    counts = bootstrap.resample_counts(9, repeats=200, seed=0, blocks=blocks)
    for label in (2, 7, 9):
        members = counts[:, blocks == label]
        assert (members == members[:, :1]).all()
    assert (counts.sum(axis=1) == 9).all()
    assert len(np.unique(counts, axis=0)) > 5


def test_same_seed_same_interval_other_seed_other_interval():
    values = seeded(0).normal(size=100)
    first, again, other = (bootstrap.mean_estimate(values, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_mean_interval_is_that_of_the_normal_limit():
    values = seeded(5).normal(size=1000)
    number = bootstrap.mean_estimate(values, repeats=4000)
    margin = 1.96 * values.std() / math.sqrt(len(values))
    # A 2.5% quantile of 4,000 replicates has a standard error of 0.042 sd, 2% of the margin.
    assert number.low == pytest.approx(values.mean() - margin, abs=0.1 * margin)
    assert number.high == pytest.approx(values.mean() + margin, abs=0.1 * margin)


def test_block_interval_is_wider_where_blocks_share_an_error():
    generator = seeded(2)
    blocks = np.repeat(np.arange(40), 25)
    values = generator.normal(size=40)[blocks] + 0.1 * generator.normal(size=1000)
    single = bootstrap.mean_estimate(values)
    block = bootstrap.mean_estimate(values, blocks=blocks)
    # The truth: standard deviation 1/sqrt(40) by blocks, about 1/sqrt(1000) if they are ignored.
    assert (block.high - block.low) == pytest.approx(2 * 1.96 / math.sqrt(40), rel=0.3)
    assert (single.high - single.low) < 0.3 * (block.high - block.low)


def test_interval_of_nothing_is_nan_and_of_one_is_a_point():
    empty = bootstrap.mean_estimate(np.zeros(0))
    assert math.isnan(empty.value) and math.isnan(empty.low) and math.isnan(empty.high)
    one = bootstrap.mean_estimate(np.array([0.25]))
    assert (one.value, one.low, one.high) == (0.25, 0.25, 0.25)


def test_pairs_of_one_prompt_are_drawn_together():
    """Against a loop that draws prompts, each with all its pairs, by another generator."""
    generator = seeded(3)
    prompts = [f"prompt {i}" for i in range(30) for _ in range(1 + i % 4)]
    right = (generator.random(30)[[int(p.split()[1]) for p in prompts]] > 0.4).astype(float)
    means, members = [], [np.flatnonzero([p == f"prompt {i}" for p in prompts]) for i in range(30)]
    for _ in range(4000):
        drawn = [right[members[generator.integers(30)]] for _ in range(30)]
        means.append(np.concatenate(drawn).mean())
    low, high = np.quantile(means, [0.025, 0.975])
    blocks = bootstrap.prompt_blocks(prompts)
    found = bootstrap.mean_estimate(right, blocks=blocks, repeats=4000)
    assert found.value == pytest.approx(right.mean())
    # An end's standard error is about 0.042 sd = 0.01 of the width; two ends, four of them.
    width = high - low
    assert found.low == pytest.approx(low, abs=0.06 * width)
    assert found.high == pytest.approx(high, abs=0.06 * width)
    alone = bootstrap.mean_estimate(right, repeats=4000)
    assert alone.high - alone.low < 0.75 * width


def test_rows_of_a_prompt_are_one_block_and_rows_without_one_none():
    talk = [{"role": "user", "content": "Why?"}]
    turned = [{"content": "Why?", "role": "user"}]
    rows = ["", talk, "Why?", turned, "", [], "Why?", talk + talk]
    assert bootstrap.prompt_blocks(rows).tolist() == [0, 1, 2, 1, 3, 4, 2, 5]
    assert bootstrap.prompt_blocks([]).tolist() == []
    # without prompts all is as it was for single items
    values = seeded(4).random(50)
    apart = bootstrap.mean_estimate(values, blocks=bootstrap.prompt_blocks([""] * 50))
    alone = bootstrap.mean_estimate(values)
    assert (apart.low, apart.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_one_prompt_alone_has_no_interval():
    found = bootstrap.mean_estimate(np.array([1.0, 0.0]), blocks=np.zeros(2))
    assert found.value == 0.5 and math.isnan(found.low) and math.isnan(found.high)
    columns = {"pair_accuracy": 0.5, "pair_accuracy_low": None, "pair_accuracy_high": None}
    assert found.columns("pair_accuracy") == columns
    one = bootstrap.mean_estimate(np.array([0.5]), blocks=np.zeros(1))
    assert (one.low, one.high) == (0.5, 0.5)


def test_wrong_number_of_block_labels():
    with pytest.raises(UserError, match="3 labels for 4 items"):
        bootstrap.mean_estimate(np.zeros(4), blocks=np.zeros(3))


# win rates


def test_win_rate_by_hand():
    # Prompt 1: both samples beat 1 and tie with or lose to 3: (1 + 0.5 + 1 + 0) / 4 = 0.625.
    scores, baseline = np.array([[3.0, 2.0], [0.0, 0.0]]), np.array([[1.0, 3.0], [1.0, 1.0]])
    assert win_rates.wins(scores, baseline).tolist() == [0.625, 0.0]
    assert win_rates.win_rate(scores, baseline).value == 0.3125


def test_the_same_score_but_for_rounding_is_a_tie():
    scores = np.array([np.float32(0.1) + np.float32(0.6), 1.0001, -1e-9, 1e6 + 1])
    baseline = np.array([np.float32(0.7), 1.0, 1e-9, 1e6])
    assert win_rates.wins(scores, baseline).tolist() == [0.5, 1, 0, 1]


def test_win_rate_is_antisymmetric_and_half_for_the_same_samples():
    scores, baseline = seeded(0).integers(0, 4, (2, 60, 3)).astype(float)
    forward, back = win_rates.wins(scores, baseline), win_rates.wins(baseline, scores)
    np.testing.assert_allclose(forward + back, 1, atol=1e-15)
    assert win_rates.win_rate(scores, scores).value == 0.5


def test_win_rate_does_not_depend_on_the_order_of_prompts_or_samples():
    generator = seeded(1)
    scores, baseline = generator.normal(size=(2, 30, 4))
    order = generator.permutation(30)
    moved = win_rates.win_rate(scores[order][:, ::-1], baseline[order])
    assert moved.value == pytest.approx(win_rates.win_rate(scores, baseline).value, abs=1e-15)


def test_win_rate_interval_covers_the_truth():
    # True win rate of N(0.3, 1) against N(0, 1): Phi(0.3 / sqrt 2). Binomial(300, 0.95) stays
    # within [0.90, 0.99] except with probability 1e-4.
    truth = scipy.stats.norm.cdf(0.3 / math.sqrt(2))
    generator = seeded(11)
    covered = 0
    for seed in range(300):
        scores, baseline = generator.normal(size=(2, 120))
        number = win_rates.win_rate(scores + 0.3, baseline, repeats=300, seed=seed)
        covered += number.low <= truth <= number.high
    assert 0.90 <= covered / 300 <= 0.99


def test_more_samples_per_prompt_do_not_count_as_prompts():
    scores, baseline = seeded(3).normal(size=(2, 80))
    once = win_rates.win_rate(scores, baseline)
    copied = win_rates.win_rate(np.tile(scores[:, None], (1, 5)), baseline)
    assert copied == once


@pytest.mark.parametrize(
    ("scores", "baseline", "message"),
    [
        (np.zeros(3), np.zeros(4), "3 scored for the method, 4 for the baseline"),
        (np.array([1.0, np.nan]), np.zeros(2), "NaN"),
        (np.zeros((2, 2, 2)), np.zeros(2), r"\(2, 2, 2\)"),
    ],
)
def test_win_rate_refuses(scores, baseline, message):
    with pytest.raises(UserError, match=message):
        win_rates.win_rate(scores, baseline)


def test_win_rate_of_no_prompts_is_nan():
    assert math.isnan(win_rates.win_rate(np.zeros(0), np.zeros(0)).value)


# best-of-n


def subset_mean(scores, values, n):
    """The definition: average over all subsets of the value of the best, ties shared."""
    totals = []
    for subset in itertools.combinations(range(len(scores)), n):
        top = max(scores[i] for i in subset)
        totals.append(np.mean([values[i] for i in subset if scores[i] == top]))
    return np.mean(totals)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_best_of_n_mean_is_the_average_over_all_subsets(n):
    generator = seeded(n)
    scores, values = generator.normal(size=(2, 7))
    estimate = best_of_n.best_of_n_mean(scores, n=n, values=values)
    assert estimate == pytest.approx(subset_mean(scores, values, n), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_best_of_n_mean_with_ties(n):
    scores = np.array([0.0, 1.0, 1.0, 2.0, 1.0, 0.0])
    own = best_of_n.best_of_n_mean(scores, n=n)
    assert own == pytest.approx(subset_mean(scores, scores, n), abs=1e-12)
    # Random tie-breaking, averaged over every order of the tied samples.
    values = np.array([5.0, 1.0, 2.0, 4.0, 9.0, 7.0])
    broken = []
    for order in itertools.permutations(range(6)):
        nudged = scores + 1e-3 * np.array(order)
        broken.append(best_of_n.best_of_n_mean(nudged, n=n, values=values))
    estimate = best_of_n.best_of_n_mean(scores, n=n, values=values)
    assert estimate == pytest.approx(np.mean(broken), abs=1e-10)


def test_best_of_n_mean_is_unbiased_for_normal_scores():
    # E max of 2 standard normals = 1 / sqrt(pi). 40,000 rows of sd below 1: 5 se < 0.02.
    scores = seeded(0).normal(size=(40_000, 5))
    estimate = best_of_n.best_of_n_mean(scores, n=2).mean()
    assert estimate == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)


def test_best_of_n_mean_refuses_more_than_it_has():
    with pytest.raises(UserError, match="best-of-5 cannot be estimated from 4 samples"):
        best_of_n.best_of_n_mean(np.zeros(4), n=5)
    with pytest.raises(UserError, match="must be equal"):
        best_of_n.best_of_n_mean(np.zeros(4), n=2, values=np.zeros(3))


def test_best_of_n_kl_published_values():
    # Stiennon et al. 2020, table of appendix G.3, rounded to one decimal there.
    kl = best_of_n.best_of_n_kl(np.array([8, 64, 128]))
    assert kl.round(1).tolist() == [1.2, 3.2, 3.9]
    assert best_of_n.best_of_n_kl(1) == 0
    with pytest.raises(UserError, match="at least 1"):
        best_of_n.best_of_n_kl(0)


def exact_best_of_n_kl(probabilities, n):
    """For outcomes in increasing order of score: pi_n(i) = F(i)^n - F(i - 1)^n."""
    upper = np.cumsum(probabilities)
    chosen = upper**n - (upper - probabilities) ** n
    used = chosen > 0
    return float((chosen[used] * np.log(chosen[used] / probabilities[used])).sum())


@pytest.mark.parametrize("n", [2, 4, 16])
def test_best_of_n_kl_bounds_the_exact_one_and_is_its_continuous_limit(n):
    bound = best_of_n.best_of_n_kl(n)
    for seed in range(20):
        assert exact_best_of_n_kl(seeded(seed).dirichlet(np.ones(6)), n) < bound
    fine = exact_best_of_n_kl(np.full(200_000, 1 / 200_000), n)
    assert fine == pytest.approx(bound, abs=1e-3)


# agreement with people


def point(statistic, scores, human, **arguments):
    counts = np.ones((1, np.asarray(human).shape[-1]))
    return statistic(np.asarray(scores, float), np.asarray(human, float), counts, **arguments)[0]


def test_pair_accuracy_by_hand():
    # Human order 3 > 2 > 1 > 0. Pairs of scores [1, 0, 2, 2]: (0,1) wrong, (0,2) right,
    # (0,3) right, (1,2) right, (1,3) right, (2,3) tied: 4.5 of 6.
    assert point(agreement.pair_accuracy, [1, 0, 2, 2], [0, 1, 2, 3]) == 0.75
    # Means more than 1 apart: (0,2), (0,3), (1,3), all right.
    assert point(agreement.pair_accuracy, [1, 0, 2, 2], [0, 1, 2, 3], min_gap=1.0) == 1.0
    # Same label only: (0,1) wrong and (2,3) tied.
    labels = np.array([5, 5, 8, 8])
    assert point(agreement.pair_accuracy, [1, 0, 2, 2], [0, 1, 2, 3], within=labels) == 0.25
    # Human ties are no pairs.
    assert math.isnan(point(agreement.pair_accuracy, [1, 0], [2, 2]))


def test_pair_accuracy_without_ties_is_kendalls_tau():
    scores, human = seeded(0).normal(size=(2, 700))
    scores = scores + human
    tau = scipy.stats.kendalltau(scores, human).statistic
    assert point(agreement.pair_accuracy, scores, human) == pytest.approx((tau + 1) / 2, abs=1e-12)


def test_replicates_are_the_statistics_of_the_resampled_texts():
    generator = seeded(4)
    scores = generator.integers(0, 9, 60).astype(float)
    human = scores + generator.integers(-4, 5, 60)
    counts = bootstrap.resample_counts(60, repeats=5, seed=0)
    pairs = agreement.pair_accuracy(scores, human, counts)
    ranks = agreement.spearman(scores, human, counts)
    for replicate, pair, rank in zip(counts, pairs, ranks, strict=True):
        drawn = np.repeat(np.arange(60), replicate.astype(int))
        assert pair == pytest.approx(point(agreement.pair_accuracy, scores[drawn], human[drawn]))
        expected = scipy.stats.spearmanr(scores[drawn], human[drawn]).statistic
        assert rank == pytest.approx(expected, abs=1e-12)


def test_spearman_of_a_constant_is_undefined():
    assert math.isnan(point(agreement.spearman, [1, 1, 1], [0, 1, 2]))
    assert math.isnan(point(agreement.spearman, [], []))


def test_recalls_against_scikit_learn():
    generator = seeded(9)
    human = generator.uniform(-4, 4, 500)
    scores = human + generator.normal(0, 3, 500)
    clear = np.abs(human) > 0.5
    for sign in (1, -1):
        expected = recall_score(human[clear] > 0, scores[clear] > 0, pos_label=sign == 1)
        recall = point(agreement.sign_recall, scores, human, sign=sign)
        assert recall == pytest.approx(expected, abs=1e-12)
    assert point(agreement.sign_recall, [0.0, 2.0], [1, 1], sign=1) == 0.75  # 0 is undecided
    assert point(agreement.sign_recall, [2.0, 5.0], [1, 1], sign=1, cut=3) == 0.5
    assert math.isnan(point(agreement.sign_recall, [1.0], [0.0], sign=1))


def test_pair_accuracy_interval_covers_the_truth():
    # Bivariate normal with correlation rho: P(same order) = 1/2 + asin(rho) / pi.
    truth = 0.5 + math.asin(0.6) / math.pi
    generator = seeded(21)
    covered = 0
    with threadpool_limits(1):  # threads cost more than such small products
        for seed in range(200):
            human = generator.normal(size=100)
            scores = 0.6 * human + 0.8 * generator.normal(size=100)
            counts = bootstrap.resample_counts(100, repeats=200, seed=seed)
            pairs = agreement.pair_accuracy(
                scores, human, np.concatenate([np.ones((1, 100)), counts])
            )
            number = bootstrap.estimate(pairs[0], pairs[1:])
            covered += number.low <= truth <= number.high
    # Binomial(200, 0.95); a percentile interval of 100 texts loses about two points.
    assert 0.87 <= covered / 200 <= 0.99


def test_agreement_of_the_truth_and_of_its_opposite():
    human = seeded(0).uniform(-4, 4, 80)
    blocks = np.repeat(np.arange(8), 10)
    right = agreement.scorer_agreement(human, human, blocks=blocks, repeats=50)
    wrong = agreement.scorer_agreement(-human, human, blocks=blocks, repeats=50)
    assert set(right) == {
        "pair_accuracy",
        "pair_accuracy_gap1",
        "pair_accuracy_within",
        "recall_positive",
        "recall_negative",
        "macro_recall",
        "spearman",
    }
    for name, number in right.items():
        assert number.value == pytest.approx(1) and number.low == pytest.approx(1)
        assert wrong[name].value == pytest.approx(-1 if name == "spearman" else 0)


def test_agreement_refuses():
    with pytest.raises(UserError, match="must be equal"):
        agreement.scorer_agreement(np.zeros(3), np.zeros(4))
    with pytest.raises(UserError, match="NaN"):
        agreement.scorer_agreement(np.array([0.0, np.nan]), np.array([0.0, 1.0]))


def test_one_against_rest_never_counts_a_missing_mark():
    ratings = np.array([[1, 3, -99], [4, -99, -99], [2, 2, 5], [-99, -99, -99]])
    present = ratings > -99
    one, rest = agreement.one_against_rest(ratings, present, draws=50, seed=0)
    # Text 0: the pair is (1, 3) or (3, 1). Text 2: (2, 3.5) or (5, 2). Others cannot be judged.
    assert set(zip(one[:, 0], rest[:, 0], strict=True)) == {(1, 3), (3, 1)}
    assert set(zip(one[:, 2], rest[:, 2], strict=True)) == {(2, 3.5), (5, 2)}
    assert np.isnan(one[:, [1, 3]]).all() and np.isnan(rest[:, [1, 3]]).all()


def test_human_ceiling_of_noisy_raters():
    # Rater = truth + noise, both N(0, 1), rest = truth nearly: correlation sqrt(1/2), so the
    # probability of the same order is 1/2 + asin(sqrt(1/2)) / pi = 0.75.
    generator = seeded(8)
    ratings = generator.normal(size=(800, 1)) + generator.normal(size=(800, 40))
    ceiling = agreement.human_ceiling(ratings, np.ones((800, 40), bool), repeats=100)
    assert ceiling["pair_accuracy"].value == pytest.approx(0.75, abs=0.015)
    assert ceiling["pair_accuracy"].low < 0.75 < ceiling["pair_accuracy"].high


def test_scorer_row_names_what_the_table_shows():
    row = agreement.scorer_row("mine", agreement.scorer_agreement(np.arange(9.0), np.arange(9.0)))
    assert row["scorer"] == "mine"
    assert {"pair_accuracy", "pair_accuracy_low", "pair_accuracy_high", "spearman"} <= set(row)


# frontier


def test_gao_fits_recover_their_coefficients():
    d = np.linspace(0, 6, 20)
    best = frontier.fit_best_of_n(d**2, d * (0.9 - 0.11 * d))
    assert (best.alpha, best.beta) == pytest.approx((0.9, 0.11))
    log_d = np.log(np.where(d > 0, d, 1))
    reinforced = frontier.fit_reinforced(d**2, d * (0.8 - 0.3 * log_d))
    assert (reinforced.alpha, reinforced.beta) == pytest.approx((0.8, 0.3))
    assert reinforced.residual == pytest.approx(0, abs=1e-12)


def test_gao_fit_is_the_least_squares_solution():
    generator = seeded(0)
    kl, gains = generator.uniform(0.5, 30, 15), generator.normal(size=15)
    fit = frontier.fit_reinforced(kl, gains)
    d = np.sqrt(kl)
    residuals = gains - fit.reinforced(d)
    # The residual is orthogonal to both features.
    assert residuals @ d == pytest.approx(0, abs=1e-9)
    assert residuals @ (d * np.log(d)) == pytest.approx(0, abs=1e-9)


def test_gao_fit_skips_missing_points_and_refuses_too_few():
    fit = frontier.fit_best_of_n(np.array([1, 4, np.nan, 9]), np.array([2, 2, 5, np.nan]))
    assert (fit.alpha, fit.beta) == pytest.approx((3, 1))
    with pytest.raises(UserError, match="two distances"):
        frontier.fit_best_of_n(np.array([0.0, 4.0, 4.0]), np.zeros(3))


# text statistics


def test_distinct_and_repeated_by_hand():
    samples = [[1, 2, 1, 2, 1], [3]]
    assert texts.distinct(samples, 1) == 3 / 6
    assert texts.distinct(samples, 2) == 2 / 4
    assert texts.repeated(samples, 2) == 2 / 4
    assert texts.repeated(samples, 3) == 1 / 3
    assert math.isnan(texts.distinct([[1]], 2)) and math.isnan(texts.distinct([], 1))


def test_distinct_against_a_counter():
    samples = seeded(0).integers(0, 9, (20, 12)).tolist()
    grams = collections.Counter(
        tuple(sample[i : i + 2]) for sample in samples for i in range(len(sample) - 1)
    )
    assert texts.distinct(samples, 2) == len(grams) / sum(grams.values())


def test_copies_are_found_inside_one_text_only():
    training = [[1, 2, 3], [4, 5, 6]]
    assert texts.copied_whole([[2, 3], [3, 4], [1, 3], [6], []], training) == 2 / 5
    assert texts.copied_ngrams([[2, 3, 4, 5]], training, 2) == 2 / 3
    # 12, 3 is not 1, 23, and tokens that are digits of others do not match.
    assert texts.copied_whole([[12, 3]], [[1, 23], [1, 2, 3]]) == 0
    assert math.isnan(texts.copied_whole([], training))
    assert math.isnan(texts.copied_ngrams([[1]], training, 2))


def test_text_statistics_row():
    row = texts.sample_statistics([[1, 2], [1, 2, 3, 4]], ended=[True, False], training=[[1, 2]])
    assert row["length"] == 3 and row["ended"] == 0.5 and row["copied_whole"] == 0.5
    assert row["distinct_1"] == 4 / 6
    known = {c.key for c in tables.METHOD_COLUMNS + tables.MORE_METHOD_COLUMNS}
    assert set(row) <= known
    bare = texts.sample_statistics([])
    assert bare["ended"] is None and bare["copied"] is None
    assert math.isnan(bare["length"])


# judges


def test_ridge_judge_learns_which_words_people_like():
    generator = seeded(0)
    words = {"great": 2.0, "dull": -2.0, "film": 0.0, "the": 0.0, "plot": 0.0}
    samples = [generator.choice(list(words), 6).tolist() for _ in range(300)]
    ratings = np.array([sum(words[word] for word in sample) for sample in samples])
    judge = evaluation.RidgeJudge().fit(
        [" ".join(sample) for sample in samples[:200]], ratings[:200]
    )
    scores = judge.scores([" ".join(sample) for sample in samples[200:]])
    assert np.corrcoef(scores, ratings[200:])[0, 1] > 0.9
    assert judge.scores(["unheard words"]).shape == (1,)
    assert judge.scores([]).shape == (0,)
    with pytest.raises(UserError, match="2 texts and 1 mean"):
        evaluation.RidgeJudge().fit(["a", "b"], np.zeros(1))


def test_rule_based_scorer_knows_the_sign():
    scores = evaluation.rule_based_scorer()(["A great, wonderful film!", "", "A horrible mess."])
    assert scores[0] > 0.5 and scores[1] == 0 and scores[2] < -0.3


# tables


def test_rich_table_prints_text_as_it_is():
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    rows = [{"scorer": "[bold]ridge", "spearman": np.float32(-0.5)}]
    console.print(evaluation.rich_table(rows, evaluation.SCORER_COLUMNS))
    printed = console.export_text()
    assert "[bold]ridge" in printed and "−0.50" in printed


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "x", True])
def test_what_is_no_number_is_a_dash(value):
    assert tables.SCORER_COLUMNS[-1].text({"spearman": value}) == "–"


def test_import_is_light():
    heavy = {"sklearn", "vaderSentiment", "matplotlib", "rich"}
    code = "import sys, jaxalign.evaluation; print(sorted(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not heavy & set(ast.literal_eval(printed.stdout))
