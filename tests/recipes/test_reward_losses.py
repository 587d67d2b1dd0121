"""Reward models from rankings and from labelled steps: objectives against loops, the same update
wherever it is computed, and the command line on rows that somebody might bring.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign import objectives
from jaxalign.batches.preferences import ComparisonBatch
from jaxalign.cli import dispatch, main
from jaxalign.commands.reward import RECORDS
from jaxalign.config.names import RewardLossName
from jaxalign.config.reward import ProcessSettings, RewardConfig, RewardSettings
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.data.chat import step_row, token_row
from jaxalign.data.preference_batches import ranking_batch, step_batch
from jaxalign.data.tokenizer_training import train_tokenizer
from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.layouts.layout import pad_rows
from jaxalign.losses import BRADLEY_TERRY, PLACKETT_LUCE, PROCESS, REWARD_LOSSES
from jaxalign.train.metrics import read_metrics
from jaxalign.train.step import initial_state, train_step

V = 7  # tokens; the score of a text is the sum of its tokens' weights, that of a step of all so far
TABLE = np.array([0.25, -1.0, 0.75, 2.0, -0.5, 0.125, 1.25])  # sums are exact: ties are ties
KEY = jax.random.key(0)


def bag_scores(params, batch, keys):
    return jnp.where(batch.mask, params[batch.tokens], 0).sum(axis=1)


def running_scores(params, batch, keys):
    return jnp.cumsum(jnp.where(batch.mask, params[batch.tokens], 0), axis=1)


def rankings(seed, sizes):
    """Rows of random tokens, `sizes[i]` of them in ranking i."""
    rng = np.random.default_rng(seed)

    def text():
        length = rng.integers(1, 5)
        return token_row((rng.integers(0, V, 1), False), (rng.integers(0, V, length), True))

    return [[text() for _ in range(size)] for size in sizes]


def solutions(seed, counts):
    """Rows of random tokens in which `counts[i]` of row i end a step, and labels in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for count in counts:
        steps = [(rng.integers(0, V, rng.integers(1, 4)), False) for _ in range(2 * count)]
        ends = [(step[-1:], True) for step, _ in steps[1::2]]
        rows.append(token_row(*[part for k in range(count) for part in (steps[2 * k], ends[k])]))
        labels.append(np.array(rng.choice([0, 1, 0.25], count), np.float32))
    return rows, labels


def ranking_sums(given, centering=0.0):
    """Loss, gradient and pair sums of rankings, by loops over the definition."""
    loss, gradient, right, margin, mean, pairs = 0.0, np.zeros(V), 0.0, 0.0, 0.0, 0
    for ranking in given:
        counts = np.array([np.bincount(row.tokens, minlength=V) for row in ranking])
        scores = counts @ TABLE
        for k in range(len(ranking)):
            rest = np.exp(scores[k:])
            loss += math.log(rest.sum()) - scores[k]
            gradient += (rest / rest.sum()) @ counts[k:] - counts[k]
        of_ranking = len(ranking) * (len(ranking) - 1) / 2
        for i in range(len(ranking)):
            for j in range(i + 1, len(ranking)):
                difference, total = scores[i] - scores[j], scores[i] + scores[j]
                right += 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0
                margin, mean, pairs = margin + difference, mean + total / 2, pairs + 1
                loss += centering * total**2 / of_ranking
                gradient += centering * 2 * total * (counts[i] + counts[j]) / of_ranking
    sums = {"rewards/accuracy": right, "rewards/margin": margin, "rewards/mean": mean}
    return loss, gradient, {name: (value, pairs) for name, value in sums.items()}


def step_sums(rows, labels):
    """Loss, gradient, metric sums and number of steps, by loops over the definition."""
    loss, gradient, right, chances, steps = 0.0, np.zeros(V), 0.0, 0.0, 0
    for row, given in zip(rows, labels, strict=True):
        ends = [t for t in range(len(row)) if row.is_response[t]]
        for t, y in zip(ends, given.astype(float), strict=True):
            counts = np.bincount(row.tokens[: t + 1], minlength=V)
            chance = 1 / (1 + math.exp(-(counts @ TABLE)))
            loss -= y * math.log(chance) + (1 - y) * math.log(1 - chance)
            gradient += (chance - y) * counts
            right += (chance > 0.5) == (y > 0.5)
            chances, steps = chances + chance, steps + 1
    return loss, gradient, {"steps/accuracy": right, "steps/chance": chances}, steps


SIZES, COUNTS = (3, 2, 4, 2, 3, 2, 2, 4), (1, 3, 2, 1, 2, 4, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("centering", [0.0, 0.3])
def test_rankings_against_loops(x64, centering):
    given = rankings(0, SIZES)
    loss_fn = objectives.ranking(bag_scores, PLACKETT_LUCE, centering=centering)
    batch = ranking_batch(given, pad_id=0)
    loss, (weight, metrics) = jax.jit(loss_fn)(jnp.array(TABLE), batch, KEY)
    expected, _, sums = ranking_sums(given, centering)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert float(weight) == len(given)
    for name, pair in sums.items():
        np.testing.assert_allclose(metrics[name], pair, rtol=1e-12)


@pytest.mark.slow
def test_a_ranking_of_two_is_a_preference(x64):
    """Loss, metrics and gradient are those of Bradley-Terry, penalties included."""
    given = rankings(1, (2,) * 6)
    options = {"centering": 0.2, "l2": 0.1, "penalised": lambda params: params}
    ranked = ranking_batch(given, pad_id=0)
    first_wins = np.tile([[0.0, 1.0], [0.0, 0.0]], (6, 1, 1))
    pairs = ComparisonBatch(texts=ranked.texts, preferences=first_wins, margins=0 * first_wins)
    results = [
        jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(jnp.array(TABLE), batch, KEY)
        for loss_fn, batch in (
            (objectives.ranking(bag_scores, PLACKETT_LUCE, **options), ranked),
            (objectives.reward(bag_scores, BRADLEY_TERRY, **options), pairs),
        )
    ]
    ((loss, (weight, metrics)), grads), ((bt_loss, (bt_weight, bt_metrics)), bt_grads) = results
    assert float(weight) == float(bt_weight) == 6
    np.testing.assert_allclose(loss, bt_loss, rtol=1e-14)
    np.testing.assert_allclose(grads, bt_grads, rtol=1e-13, atol=1e-14)
    for name, (total, pair_count) in metrics.items():
        assert pair_count == 6
        np.testing.assert_allclose(total, bt_metrics[name], rtol=1e-14)


@pytest.mark.slow
def test_steps_against_loops(x64):
    rows, labels = solutions(0, COUNTS)
    loss_fn = objectives.process_reward(running_scores, PROCESS)
    batch = step_batch(rows, labels, pad_id=0)
    loss, (weight, metrics) = jax.jit(loss_fn)(jnp.array(TABLE), batch, KEY)
    expected, _, sums, steps = step_sums(rows, labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert float(weight) == steps == sum(COUNTS)
    for name, total in sums.items():
        np.testing.assert_allclose(metrics[name], total, rtol=1e-12)


def padded(kind, wide):
    """The rows as a batch, or the same with more columns, more candidates and more rows."""
    length = 40 if wide else None
    if kind == "ranking":
        given = rankings(0, SIZES)
        loss, gradient, _ = ranking_sums(given)
        batch = ranking_batch(given, pad_id=5, length=length, size=6 if wide else None)
        weight, loss_fn = len(given), objectives.ranking(bag_scores, PLACKETT_LUCE)
    else:
        rows, labels = solutions(0, COUNTS)
        loss, gradient, _, weight = step_sums(rows, labels)
        batch = step_batch(rows, labels, pad_id=5, length=length)
        loss_fn = objectives.process_reward(running_scores, PROCESS)
    batch = pad_rows(batch, 16)[0] if wide else batch
    return batch, loss_fn, loss / weight, gradient / weight


PLACES = [("device", 1, 1), ("device", 1, 4), ("pmap", 4, 2), ("shards", 8, 1), ("mesh", 8, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("name", "devices", "parts"), PLACES)
@pytest.mark.parametrize("kind", ["ranking", "process"])
def test_the_same_update_everywhere(x64, kind, name, devices, parts, wide):
    batch, loss_fn, loss, gradient = padded(kind, wide)
    layout, optimizer = make_layout(name, devices=devices), optax.sgd(1.0)
    step = functools.partial(train_step, loss_fn=loss_fn, optimizer=optimizer, micro_batches=parts)
    state = layout.place(initial_state(jnp.array(TABLE), optimizer, KEY))
    state, metrics = layout.step(step)(state, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-12)
    np.testing.assert_allclose(TABLE - state.params, gradient, rtol=1e-12, atol=1e-14)


def test_a_ranking_of_one_weighs_nothing():
    given = [*rankings(0, (3, 2)), *rankings(1, (1,))]
    loss_fn = objectives.ranking(bag_scores, PLACKETT_LUCE, centering=0.1)
    batch = ranking_batch(given, pad_id=0)
    loss, (weight, _) = jax.jit(loss_fn)(jnp.array(TABLE), batch, KEY)
    assert float(weight) == 2
    np.testing.assert_allclose(loss, ranking_sums(given[:2], 0.1)[0], rtol=1e-5)


def test_batches_of_rankings_and_steps_hold_their_rows():
    given = rankings(2, (2, 3))
    batch = ranking_batch(given, pad_id=0, size=4, length=8, index=np.arange(8).reshape(2, 4))
    assert batch.texts.tokens.shape == (2, 4, 8)
    assert batch.mask.tolist() == [[True, True, False, False], [True, True, True, False]]
    for b, ranking in enumerate(given):
        for k, row in enumerate(ranking):
            real = batch.texts.mask[b, k]
            np.testing.assert_array_equal(batch.texts.tokens[b, k][real], row.tokens)
    assert not batch.texts.mask[~batch.mask].any()
    with pytest.raises(UserError, match="ranking of 3 texts does not fit size 2"):
        ranking_batch(given, pad_id=0, size=2)
    rows = [token_row(([1, 2], False), ([3], True), ([4], True)), token_row(([5], True))]
    steps = step_batch(rows, [np.array([1, 0.25]), np.array([0.5])], pad_id=0)
    assert steps.labels.tolist() == [[0, 0, 1, 0.25], [0.5, 0, 0, 0]]


def test_every_step_ends_with_the_token_of_the_line_end():
    tokenizer = train_tokenizer(["1 + 1 = 2\n\nSo 2."] * 3, vocab_size=280)
    row = step_row("Add:", ["1 + 1 = 2", "So 2.\n"], tokenizer)
    text = tokenizer.decode(row.tokens.tolist())
    assert text.endswith("Add:1 + 1 = 2\nSo 2.\n\n")
    (line_end,) = tokenizer.encode("\n")
    assert row.tokens[row.is_response].tolist() == [line_end] * 2
    ends = np.flatnonzero(row.is_response)
    assert tokenizer.decode(row.tokens[: ends[0] + 1].tolist()).endswith("Add:1 + 1 = 2\n")
    assert ends[1] == len(row) - 1


def test_names_agree():
    assert {loss.kind for loss in REWARD_LOSSES.values()} == RECORDS.keys()
    assert get_args(RewardLossName) == tuple(REWARD_LOSSES)
    assert RewardSettings().loss == "bradley_terry"


def other(loss, function):
    """A loss of the same kind with another formula."""
    return dataclasses.replace(loss, function=function, formula=function)


def test_the_declared_loss_trains():
    """Not the one that an objective is mostly used with."""
    index = np.arange(2)[None]
    ranked = ranking_batch(rankings(0, [2]), pad_id=0, size=2, length=5, index=index)
    better = jnp.array([[[0.0, 1.0], [0.0, 0.0]]])
    compared = ComparisonBatch(texts=ranked.texts, preferences=better, margins=4 * better)
    for objective, loss, batch, expected in (
        (objectives.reward, other(BRADLEY_TERRY, lambda differences: differences), compared, 2),
        (objectives.reward, other(BRADLEY_TERRY, lambda *, margins: margins), compared, 4),
        (objectives.ranking, other(PLACKETT_LUCE, lambda scores: scores[:, 0]), ranked, 3),
    ):
        total, _ = objective(lambda *_: jnp.array([3.0, 1.0]), loss)(None, batch, KEY)
        assert float(total) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RewardConfig(reward=RewardSettings(loss="process", bag=True, bag_l2=0.0)),
            "loss process does not read reward.bag, reward.bag_l2; its settings are those of",
        ),
        (
            lambda: RewardConfig(process=ProcessSettings(dropout=0.0)),
            "loss bradley_terry does not read process.dropout",
        ),
        (lambda: RewardSettings(centering=-0.1), "centering is -0.1; it must not be negative"),
        (lambda: ProcessSettings(dropout=1.0), r"dropout is 1.0; it must lie in \[0, 1\)"),
        (lambda: RLHFConfig(reward=RewardSettings(loss="plackett_luce")), "use bradley_terry"),
    ],
)
def test_settings_that_are_not_read_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


TINY = ["--model.width", "16", "--model.layers", "1", "--model.heads", "2"]
ROOM = ["--tokenizer.vocab_size", "300", "--data.max_length", "64"]
ONE = ["--place.layout", "device"]


def fit(section, steps, rate):
    prefix = f"--{section}.fit"
    return [
        *(f"{prefix}.steps", str(steps), f"{prefix}.batch_size", "16", f"{prefix}.log_every", "1"),
        *(f"{prefix}.optimizer.learning_rate", str(rate)),
        *(f"{prefix}.optimizer.warmup_steps", "0"),
    ]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def review(rng, good):
    words = ["fine"] * good + ["dull"] * (4 - good)
    return " " + " ".join(rng.permutation([*words, *rng.choice(["film", "plot", "cast"], 2)]))


@pytest.fixture
def no_report(monkeypatch):
    """The page is written by one of the runs here; plots take seconds."""
    monkeypatch.setattr("jaxalign.recipes.finish.write_report", lambda directory: None)


@pytest.mark.slow
def test_rankings_from_the_command_line(tmp_path, no_report):
    rng = np.random.default_rng(0)

    def rows(count):
        orders = [sorted(rng.permutation(5)[: rng.integers(2, 5)])[::-1] for _ in range(count)]
        return [{"prompt": "It:", "responses": [review(rng, n) for n in o]} for o in orders]

    train, test = (write_rows(tmp_path / f"{n}.jsonl", rows(n)) for n in (48, 20))
    data = ["--data.path", train, "--data.evaluation_path", test]
    arguments = ["reward", "--loss", "plackett_luce", "--output", str(tmp_path / "run"), *data]
    small = ["--reward.pooling", "none", "--reward.bag", "True", "--reward.bag_characters", "0"]
    small += ["--reward.centering", "0.01"]
    results = dispatch([*arguments, *TINY, *ROOM, *ONE, *small, *fit("reward", 12, 0.05)])
    (row,) = results["reward_model"]
    assert row["scorer"] == "reward model (plackett_luce)"
    assert row["pair_accuracy"] > 0.95 and row["kendall_tau"] > 0.9
    *_, training, held_out = read_metrics(tmp_path / "run")
    assert training["rewards/accuracy"] > 0.95
    assert held_out["eval/rewards/accuracy"] == pytest.approx(row["pair_accuracy"], abs=1e-6)
    on = ["evaluate", "--model", str(tmp_path / "run"), "--data.path", test, *ONE]
    measured = dispatch([*on, "--on", "rankings"])
    assert measured == {name: row[name] for name in measured} and len(measured) == 6
    with pytest.raises(UserError, match="has the heads score; --on steps needs a step_score head"):
        dispatch([*on, "--on", "steps"])


@pytest.mark.slow
def test_steps_from_the_command_line(tmp_path, capsys):
    """A step is right if it says so: whether the head reads the step's own tokens shows at once."""
    rng = np.random.default_rng(0)

    def rows(count):
        labels = [rng.random(rng.integers(1, 4)) < 0.6 for _ in range(count)]
        return [
            {
                "prompt": "Q\n",
                "completions": [f"so {'yes' if y else 'no'} {rng.integers(3)}" for y in given],
                "labels": given.tolist(),
            }
            for given in labels
        ]

    train, test = (write_rows(tmp_path / f"{n}.jsonl", rows(n)) for n in (48, 20))
    data = ["--data.path", train, "--data.evaluation_path", test]
    arguments = ["reward", "--loss", "process", "--output", str(tmp_path / "run"), *data, *ONE]
    results = dispatch([*arguments, *TINY, *ROOM, *fit("process", 60, 0.01)])
    (row,) = results["reward_model"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "wrong steps found" in page and "predicted chance that a step is right" in page
    assert row["step_accuracy"] > 0.95 and row["wrong_steps_found"] > 0.9
    chances = str(tmp_path / "chances.jsonl")
    on = ["evaluate", "--on", "steps", "--model", str(tmp_path / "run"), "--data.path", test, *ONE]
    measured = dispatch([*on, "--chances", chances])
    assert measured == {name: row[name] for name in measured} and len(measured) == 9
    found, wanted = (
        [json.loads(line) for line in Path(name).read_text().splitlines()]
        for name in (chances, test)
    )
    given = [row["labels"] for row in wanted]
    assert [len(row) for row in found] == [len(row) for row in given]
    right = (np.concatenate(found) > 0.5) == np.concatenate(given)
    assert right.mean() == pytest.approx(measured["step_accuracy"])
    with pytest.raises(SystemExit):
        main(["ppo", "--policy", str(tmp_path / "run"), "--data.path", train])
    assert "a model with a logits head is needed" in capsys.readouterr().err


@pytest.mark.slow
def test_margins_and_centering_from_the_command_line(tmp_path, no_report):
    """All scores are 0 before the first update; with one pair, metrics give the scores after it."""
    pair = {"prompt": "It:", "chosen": " a fine film", "rejected": " dull", "margin": 2}
    path = write_rows(tmp_path / "pairs.jsonl", [pair] * 4)
    arguments = ["reward", "--output", str(tmp_path / "run"), "--data.path", path, *TINY, *ROOM]
    small = ["--reward.pooling", "none", "--reward.bag", "True", "--reward.bag_characters", "0"]
    small += ["--reward.bag_l2", "0", "--reward.centering", "0.5"]
    dispatch([*arguments, *ONE, *small, *fit("reward", 2, 0.05)])
    first, second = read_metrics(tmp_path / "run")
    assert first["loss"] == pytest.approx(math.log1p(math.exp(2)), rel=1e-6)
    total, margin = 2 * second["rewards/mean"], second["rewards/margin"]
    expected = math.log1p(math.exp(2 - margin)) + 0.5 * total**2
    assert margin > 0 and 0.5 * total**2 > 1e-4
    assert second["loss"] == pytest.approx(expected, rel=1e-5)
