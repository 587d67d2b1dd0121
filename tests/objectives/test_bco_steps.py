"""BCO as a whole: what a training step makes of its running shift, against TRL's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random

from benchmarks.conformance.cases import read_cases
from jaxalign import PairLogps, objectives
from jaxalign.batches.preferences import PreferenceBatch, UnpairedBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.losses import BCO, BCO_PAIR
from jaxalign.losses.bco import no_shift
from jaxalign.train.step import initial_state, train_step
from tests.folders import FILES

KEY, BETA, RATE = random.key(0), 0.4, 0.7
CASES = [
    case for case in read_cases(FILES / "oracles", "bco_trl024") if "udm_weights" not in case.inputs
]
RUNS = sorted({case.info["run"] for case in CASES})


def texts(rows, first=0):
    """Responses of one token: row i says token i."""
    tokens = first + np.arange(rows, dtype=np.int32)[:, None]
    one = np.ones((rows, 1), bool)
    return TokenBatch(tokens=tokens, prompt_mask=~one, response_mask=one, index=tokens[:, 0])


def table(params, rows, keys):
    """A policy whose parameters are the log-probabilities of its tokens."""
    return params[rows.tokens]


def labelled(reference, labels):
    return UnpairedBatch(
        responses=texts(len(labels)),
        labels=np.asarray(labels),
        reference=jnp.asarray(reference),
        weights=np.ones(len(labels)),
    )


def step_of(loss_fn, measure, rate=RATE, micro_batches=1):
    """A step whose loss takes the shift from its own forward pass where it sees all rows."""
    sgd = optax.sgd(rate)
    step = functools.partial(
        train_step,
        loss_fn=loss_fn,
        optimizer=sgd,
        track=objectives.shift_after_batch,
        measure=measure if micro_batches > 1 else None,
        micro_batches=micro_batches,
    )
    return jax.jit(step), lambda params, shift: initial_state(params, sgd, KEY, statistics=shift)


@functools.cache
def step_at(beta):
    """A step of ours at the rate 1, compiled once for all batches of a run."""
    loss = BCO.given(beta=beta)
    return step_of(objectives.unpaired(table, loss), objectives.unpaired_sums(table, loss), 1.0)


def of_case(case, shift):
    """One step of ours on the batch of a golden vector."""
    x = case.inputs
    policy, reference = (
        np.concatenate([x[f"{who}_{side}_logps"] for side in ("chosen", "rejected")])
        for who in ("policy", "ref")
    )
    labels = np.arange(len(policy)) < len(x["policy_chosen_logps"])
    step, start = step_at(case.args["beta"])
    before = start(jnp.asarray(policy), shift)
    after, metrics = step(before, labelled(reference, labels))
    return before.params - after.params, after.statistics, metrics


@pytest.mark.parametrize("run", RUNS)
def test_steps_are_those_of_trl(x64, run):
    """Its shift is in float32."""
    calls = [case for case in CASES if case.info["run"] == run]
    shift = no_shift()
    for case in sorted(calls, key=lambda case: case.info["step"]):
        gradient, shift, metrics = of_case(case, shift)
        wanted = [case.outputs[f"grad_{side}_logps"] for side in ("chosen", "rejected")]
        assert float(shift.mean) == pytest.approx(float(case.outputs["delta"]), rel=1e-5, abs=1e-6)
        assert float(metrics["bco/shift"]) == pytest.approx(float(shift.mean), abs=1e-12)
        assert float(metrics["loss"]) == pytest.approx(float(case.outputs["loss"]), rel=1e-6)
        np.testing.assert_allclose(gradient, np.concatenate(wanted), rtol=1e-5, atol=1e-8)


class Running:
    """`RunningMoments.update` of TRL, its mean alone."""

    def __init__(self):
        self.mean, self.count = 0.0, 1e-24

    def update(self, rewards):
        self.mean += (np.mean(rewards) - self.mean) * len(rewards) / (self.count + len(rewards))
        self.count += len(rewards)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_the_peer(params, batches):
    """Gradient descent in TRL's order: rewards, the running mean, then losses with that mean."""
    running, shifts = Running(), []
    for reference, labels in batches:
        rewards = BETA * (params[: len(labels)] - reference)
        running.update(rewards)
        shifts.append(running.mean)
        side = np.where(labels, 1, -1)
        slopes = -BETA * side * sigmoid(-side * (rewards - running.mean)) / len(labels)
        params = params - RATE * np.pad(slopes, (0, len(params) - len(labels)))
    return params, shifts


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_training_on_labels_is_the_peers(x64, micro_batches):
    rng = np.random.default_rng(3)
    params = rng.normal(size=6)
    batches = [(rng.normal(size=rows), rng.random(rows) < 0.7) for rows in (6, 2, 4)]
    loss = BCO.given(beta=BETA)
    loss_fn, sums = objectives.unpaired(table, loss), objectives.unpaired_sums(table, loss)
    step, start = step_of(loss_fn, sums, micro_batches=micro_batches)
    state, shifts = start(jnp.asarray(params), no_shift()), []
    for batch in batches:
        state, metrics = step(state, labelled(*batch))
        shifts.append(float(metrics["bco/shift"]))
    wanted, means = by_the_peer(params, batches)
    np.testing.assert_allclose(state.params, wanted, rtol=1e-12)
    np.testing.assert_allclose(shifts, means, rtol=1e-12)
    assert len({round(mean, 3) for mean in means}) == 3  # or the order would not matter


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_training_on_pairs_is_the_same_on_both_sides(x64, micro_batches):
    """A pair is a good and a bad response, whose losses are added: twice the mean over both."""
    rng = np.random.default_rng(4)
    params, reference = rng.normal(size=8), rng.normal(size=8)
    pairs = PreferenceBatch(
        chosen=texts(4),
        rejected=texts(4, first=4),
        reference=PairLogps(chosen=reference[:4], rejected=reference[4:]),
        weights=np.ones(4),
    )
    singles = labelled(reference, np.arange(8) < 4)
    shifts, gradients = [], []
    for declared, make, sums, batch in (
        (BCO_PAIR, objectives.paired, objectives.paired_sums, pairs),
        (BCO, objectives.unpaired, objectives.unpaired_sums, singles),
    ):
        loss = declared.given(beta=BETA)
        options = {"rate": 1.0, "micro_batches": micro_batches}
        step, start = step_of(make(table, loss), sums(table, loss), **options)
        before = start(jnp.asarray(params), no_shift())
        after, metrics = step(before, batch)
        shifts.append(float(metrics["bco/shift"]))
        gradients.append(before.params - after.params)
    assert shifts == pytest.approx([BETA * np.mean(params - reference)] * 2, rel=1e-12)
    np.testing.assert_allclose(gradients[0], 2 * gradients[1], rtol=1e-12)
