"""Every loss on preferences through its objective: the pure loss, the same update however the rows
are cut, and a margin that grows.
"""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign import PairLengths, PairLogps, losses, objectives
from jaxalign.batches.preferences import PreferenceBatch, UnpairedBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.kto import KTOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.model import ModelConfig
from jaxalign.config.names import PairLossName, UnpairedLossName
from jaxalign.config.place import PlaceConfig
from jaxalign.data.chat import token_row
from jaxalign.data.tokenizer_training import train_bpe
from jaxalign.errors import UserError
from jaxalign.layouts.choice import make_layout
from jaxalign.losses import DPO, PAIR_LOSSES, UNPAIRED_LOSSES
from jaxalign.losses.bco import RunningMean, no_shift
from jaxalign.recipes.preferences import train_unpaired
from jaxalign.recipes.run import open_run
from jaxalign.recipes.text_models import new_text_model
from jaxalign.train.metrics import read_metrics
from tests import table_policy
from tests.cases.case import case_of
from tests.checks.close import assert_same
from tests.table_policy import WORDS, table_logps, texts
from tests.updates import Updates

KEY, ROWS = jax.random.key(0), 16


NAMES = (*PAIR_LOSSES, *UNPAIRED_LOSSES)


OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05))


START = table_policy.START.astype(np.float32)
PARAMS = START + 0.05 * np.arange(WORDS, dtype=np.float32)


def summed(table, rows):
    return table_policy.summed(table, rows).astype(np.float32)


def batches(rows=ROWS, seed=0):
    """Pairs with a third text, and labelled texts with mismatched ones."""
    rng = np.random.default_rng(seed)
    table = START
    ones = np.ones(rows, np.float32)
    chosen, rejected, gold, single, other = (texts(rng, rows) for _ in range(5))
    start = PairLogps(chosen=summed(table, chosen), rejected=summed(table, rejected))
    pairs = PreferenceBatch(
        chosen=chosen, rejected=rejected, gold=gold, reference=start, weights=ones
    )
    singles = UnpairedBatch(
        responses=single,
        labels=rng.random(rows) < 0.4,
        reference=summed(table, single),
        weights=ones,
        mismatched=other,
        # so that KTO's KL is above 0, and another one in every part of the rows
        mismatched_reference=summed(table, other) - rng.exponential(4, rows).astype(np.float32),
    )
    return pairs, singles


def inputs_of(batch):
    """What a loss may read, by the names of its arguments."""
    (p, x), table = batch, PARAMS
    n, gold = (p.chosen.response_mask.sum(1), p.rejected.response_mask.sum(1)), p.gold
    kl = np.mean(summed(table, x.mismatched) - x.mismatched_reference)
    return {
        "policy": PairLogps(chosen=summed(table, p.chosen), rejected=summed(table, p.rejected)),
        "reference": p.reference,
        "lengths": PairLengths(chosen=n[0].astype(np.float32), rejected=n[1].astype(np.float32)),
        "weights": p.weights,
        "gold_logps": summed(table, gold),
        "gold_lengths": gold.response_mask.sum(1).astype(np.float32),
        "policy_logps": summed(table, x.responses),
        "reference_logps": x.reference,
        "labels": x.labels,
        "kl": max(kl, 0),
        "shift": 0.3,
    }


def by_hand(batch):
    """Each loss, called as its paper's function, with the documented defaults."""
    given = inputs_of(batch)
    pi, r, n, weights = (given[key] for key in ("policy", "reference", "lengths", "weights"))
    gold = given["gold_logps"], given["gold_lengths"]
    labelled = given["policy_logps"], given["reference_logps"], given["labels"]
    b, f = {"beta": 0.1}, losses
    return {
        "dpo": lambda: f.dpo.dpo_loss(pi, r, **b),
        "robust": lambda: f.dpo.robust_dpo_loss(pi, r, **b, label_smoothing=0.1),
        "ipo": lambda: f.ipo.ipo_loss(pi, r, **b),
        "averaged_ipo": lambda: f.ipo.averaged_ipo_loss(pi, r, n, **b),
        "hinge": lambda: f.hinge.hinge_loss(pi, r, **b),
        "exo_pair": lambda: f.exo.exo_pair_loss(pi, r, **b, label_smoothing=1e-3),
        "nca_pair": lambda: f.nca.nca_pair_loss(pi, r, **b),
        "bco_pair": lambda: f.bco.bco_pair_loss(pi, r, **b, shift=0.3),
        "sppo_hard": lambda: f.sppo.sppo_hard_loss(pi, r, beta=1e-3),
        "aot": lambda: f.aot.aot_loss(pi, r, weights, **b),
        "aot_unpaired": lambda: f.aot.aot_unpaired_loss(pi, r, weights, **b),
        "apo_zero": lambda: f.apo.apo_zero_loss(pi, r, **b),
        "apo_down": lambda: f.apo.apo_down_loss(pi, r, **b),
        "discopop": lambda: f.discopop.discopop_loss(pi, r, beta=0.05, temperature=0.05),
        "length_normalised_dpo": lambda: f.length_normalised_dpo.length_normalised_dpo_loss(
            pi, r, n, beta=5.0
        ),
        "forward_kl": lambda: f.f_dpo.f_dpo_loss(pi, r, **b, score=f.f_dpo.forward_kl_score),
        "jensen_shannon": lambda: f.f_dpo.f_dpo_loss(
            pi, r, **b, score=f.f_dpo.jensen_shannon_score
        ),
        "alpha_divergence": lambda: f.f_dpo.f_dpo_loss(
            pi, r, **b, score=functools.partial(f.f_dpo.alpha_score, alpha=0.5)
        ),
        "simpo": lambda: f.simpo.simpo_loss(pi, n, beta=2.0, gamma=1.0),
        "alphapo": lambda: f.alphapo.alphapo_loss(pi, n, beta=2.5, gamma=0.25, alpha=0.25),
        "cpo": lambda: f.cpo.cpo_loss(pi, n, **b, nll_coef=1.0),
        "orpo": lambda: f.orpo.orpo_loss(pi, n, **b),
        "tpo": lambda: f.tpo.tpo_loss(pi, gold[0], gold[1], beta=0.01, nll_coef=1.0),
        "tpo_l": lambda: f.tpo.tpo_l_loss(
            pi, n, gold[0], gold[1], beta=2.0, gamma=0.5, nll_coef=1.0
        ),
        "kto": lambda: f.kto.kto_loss(*labelled, **b, kl=given["kl"]),
        "apo_zero_unpaired": lambda: f.apo.apo_zero_unpaired_loss(*labelled, **b),
        "bco": lambda: f.bco.bco_loss(*labelled, **b, shift=0.3),
    }


def by_oracle(name, batch):
    """A new loss as the oracle in the example of its function says."""
    loss, inputs = loss_of(name), inputs_of(batch)
    given = {key: inputs[key] for key in loss.inputs if key in inputs}
    return case_of(loss.formula).expected(given, **loss.hyperparameters)


KNOWN = set(by_hand(batches()))


def loss_of(name):
    return {**PAIR_LOSSES, **UNPAIRED_LOSSES}[name]


def objective(name, **options):
    make = objectives.paired if name in PAIR_LOSSES else objectives.unpaired
    return make(table_logps, loss_of(name), **options)


def rows_for(name, batch):
    return batch[name in UNPAIRED_LOSSES]


def test_names_agree(capsys):
    from jaxalign.cli import main

    assert get_args(PairLossName) == tuple(PAIR_LOSSES)
    assert get_args(UnpairedLossName) == tuple(UNPAIRED_LOSSES)
    assert set(NAMES) >= KNOWN
    for command, table in (("dpo", PAIR_LOSSES), ("kto", UNPAIRED_LOSSES)):
        with pytest.raises(SystemExit):
            main([command, "--help", "all"])
        shown = "".join(capsys.readouterr().out.replace("│", "").split())
        assert f"{command}.loss{{{','.join(table)}}}" in shown


@pytest.mark.parametrize("name", NAMES)
def test_objective_is_the_loss(name):
    batch = batches()
    rows = rows_for(name, batch)
    of_all_rows = loss_of(name).couples_rows or loss_of(name).needs("kl")
    keep = slice(None) if of_all_rows else np.arange(ROWS) % 5 != 0
    rows.weights[:] = 0
    rows.weights[keep] = 1
    needs_shift = loss_of(name).needs("shift")
    # 20 rewards of 0.3 before, and those of this batch of mean 0.3
    mean, seen = jnp.float32(0.3), jnp.float32(20.0)
    more = {"statistics": RunningMean(mean=mean, count=seen)} if needs_shift else {}
    if needs_shift:
        more["measured"] = (mean * len(rows.weights), jnp.float32(len(rows.weights)))
    loss, (weight, metrics) = objective(name)(jnp.asarray(PARAMS), rows, KEY, **more)
    expected = np.asarray(by_hand(batch)[name]() if name in KNOWN else by_oracle(name, batch))
    np.testing.assert_allclose(loss, expected[keep].sum(), rtol=2e-5)
    assert float(weight) == rows.weights.sum()
    if needs_shift:
        np.testing.assert_allclose(metrics["bco/shift"], 0.3 * weight, rtol=1e-6)


def step_options(name, micro_batches):
    """What `train_step` is told of a loss that reads the whole batch, or all batches before."""
    sums = objectives.paired_sums if name in PAIR_LOSSES else objectives.unpaired_sums
    loss = loss_of(name)
    track = {"track": objectives.shift_after_batch} if loss.needs("shift") else {}
    return {"measure": sums(table_logps, loss), **track} if micro_batches > 1 else track


UPDATES = Updates(
    objective=lambda name, axis_name: objective(name, axis_name=axis_name),
    params=jnp.asarray(PARAMS),
    optimizer=OPTIMIZER,
    batches=lambda: by_name(batches(13)),
    steps=6,
    statistics=lambda name: no_shift() if loss_of(name).needs("shift") else None,
    options=step_options,
)
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def by_name(batch, names=NAMES):
    return {name: rows_for(name, batch) for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["device", "pmap", "shards", "mesh"])
def test_update_does_not_depend_on_padding_and_devices(layout):
    assert_same(UPDATES.cut(layout), UPDATES.plain, **CLOSE)


@pytest.mark.compiled
@pytest.mark.slow
def test_update_does_not_depend_on_micro_batches():
    names = tuple(name for name in NAMES if not loss_of(name).couples_rows)
    assert set(NAMES) - set(names) >= {"aot", "aot_unpaired"}
    whole = tuple({name: part[name] for name in names} for part in UPDATES.plain)
    parts = UPDATES.cut("device", micro_batches=4, names=names)
    assert_same(parts, whole, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["pmap", "mesh"])
def test_kto_in_parts_on_devices(layout):
    whole = tuple({"kto": part["kto"]} for part in UPDATES.plain)
    assert all(metrics["kto"]["kl/reference"] > 0 for metrics in whole[1:])
    parts = UPDATES.cut(layout, micro_batches=2, names=("kto",))
    assert_same(parts, whole, **CLOSE)


@pytest.mark.slow
def test_the_stage_of_kto_in_parts(tmp_path):
    """Most responses are good, so the KL rises from 0, more in some parts than in others."""
    rng = np.random.default_rng(0)
    rows = [token_row(([3 + i % 5], False), (rng.integers(3, 250, 4), True)) for i in range(16)]
    labels = rng.random(16) < 0.8
    model = ModelConfig(width=8, layers=1, heads=1)
    start = new_text_model(model, train_bpe(["a"], vocab_size=262), KEY, max_length=5)
    measured, rate = [], OptimizerConfig(learning_rate=0.1, schedule="constant", warmup_steps=0)
    for parts in (1, 4):
        fit = FitConfig(steps=4, batch_size=16, micro_batches=parts, log_every=1, optimizer=rate)
        directory = tmp_path / str(parts)
        with open_run(directory, model, PlaceConfig(layout="device"), 0) as run:
            given = {"labels": labels, "settings": KTOSettings(fit=fit), "temperature": 1.0}
            train_unpaired(run, "kto", start, rows, **given)
        lines = read_metrics(directory)
        measured.append([(line["kl/reference"], line["loss"]) for line in lines])
    assert measured[0][-1][0] > 0
    np.testing.assert_allclose(measured[1], measured[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_margin_grows(name):
    _, first, last = (part[name] for part in UPDATES.plain)
    margins = [m["rewards/chosen"] - m["rewards/rejected"] for m in (first, last)]
    # at these defaults discopop's loss rises with the margin around 0; most of tpo's is the
    # likelihood of the third text, as may be with a new loss; bco's loss moves with its shift
    assert margins[1] > margins[0] or name in ("discopop", "tpo") or name not in KNOWN
    assert last["loss"] < first["loss"] or name == "bco"
    assert np.isfinite(last["loss"]) and last["grad_norm"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bco", "bco_pair"])
def test_shift_is_the_mean_reward_of_this_batch_and_those_before(name):
    # the first batch sees its own mean m1, the second (m1 + m2) / 2 and so on
    layout = make_layout("device")
    states = layout.place(UPDATES.states((name,)))
    step = layout.step(UPDATES.step)
    means, shifts = [], []
    for number in range(3):
        states, metrics = step(states, by_name(batches(seed=number), (name,)))
        means.append(float(metrics[name]["bco/reward"]))
        shifts.append(float(metrics[name]["bco/shift"]))
    np.testing.assert_allclose(shifts, np.cumsum(means) / [1, 2, 3], rtol=1e-5)
    assert states[name].statistics.count == (96 if name == "bco_pair" else 48)


def test_modifiers():
    pairs, _ = batches()
    dpo, params = objective("dpo"), jnp.asarray(PARAMS)
    loss = dpo(params, pairs, KEY)[0]
    same_tokens = objectives.paired(table_logps, DPO, ld_alpha=1.0)(params, pairs, KEY)[0]
    np.testing.assert_allclose(same_tokens, loss, rtol=1e-6)
    prefixes = objectives.paired(table_logps, DPO, ld_alpha=0.0)
    shorter = np.minimum(*(s.response_mask.sum(1) for s in (pairs.chosen, pairs.rejected)))
    cut = {}
    for side in ("chosen", "rejected"):
        rows = getattr(pairs, side)
        first = np.cumsum(rows.response_mask, axis=1) <= shorter[:, None]
        cut[side] = TokenBatch(**{**vars(rows), "response_mask": rows.response_mask & first})
    both = PreferenceBatch(**{**vars(pairs), **cut})
    expected = dpo(params, both, KEY)[1][1]["logps/chosen"]
    np.testing.assert_allclose(
        prefixes(params, pairs, KEY)[1][1]["logps/chosen"], expected, rtol=1e-6
    )


def table_logps_and_collisions(params, batch, keys):
    p = jax.nn.softmax(params)
    return jnp.log(p)[batch.tokens], jnp.full(batch.tokens.shape, jnp.log(jnp.sum(p**2)))


def test_wpo_by_hand(x64):
    """With sampled alignment, a pair at most 1: in a loop over pairs and tokens."""
    pairs, _ = batches()
    table = 0.2 * np.asarray(PARAMS, np.float64)
    p = np.exp(table) / np.exp(table).sum()
    losses, weights = [], []
    for i in range(ROWS):
        sums, weight = {}, 1.0
        for side in ("chosen", "rejected"):
            rows = getattr(pairs, side)
            ids = [t for t, real in zip(rows.tokens[i], rows.response_mask[i], strict=True) if real]
            logps = [np.log(p[t]) for t in ids]
            sums[side] = sum(logps) - float(getattr(pairs.reference, side)[i])
            weight *= np.exp(np.mean(logps) - np.log((p**2).sum())) if ids else 1.0
        weights.append(min(weight, 1.0))
        margin = 0.1 * (sums["chosen"] - sums["rejected"])
        losses.append(np.log1p(np.exp(-margin)) * weights[-1] * float(pairs.weights[i]))
    assert min(weights) < 0.9 and max(weights) == 1
    loss_fn = objectives.paired(table_logps_and_collisions, DPO, wpo=True)
    compiled = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (total, (_, metrics)), slope = compiled(jnp.asarray(table), pairs, KEY)
    np.testing.assert_allclose(total, np.sum(losses), rtol=1e-6)
    real = np.asarray(pairs.weights, np.float64)
    np.testing.assert_allclose(metrics["wpo/weight"], (real * weights).sum(), rtol=1e-6)

    def fixed(params):  # the weights have no gradient
        logps = [
            (jax.nn.log_softmax(params)[side.tokens] * side.response_mask).sum(axis=1)
            for side in (pairs.chosen, pairs.rejected)
        ]
        margin = logps[0] - pairs.reference.chosen - logps[1] + pairs.reference.rejected
        return (jax.nn.softplus(-0.1 * margin) * np.array(weights) * real).sum()

    expected = jax.jit(jax.grad(fixed))(jnp.asarray(table))
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPOSettings(loss="ipo", gamma=1.0), r"loss ipo takes no gamma; it takes beta"),
        (lambda: DPOSettings(loss="simpo", reference_free=True), "simpo has no reference anyway"),
        (lambda: DPOSettings(loss="simpo", ld_alpha=0.5), "loss simpo takes no ld_alpha"),
        (lambda: DPOSettings(ld_alpha=2.0), r"ld_alpha is 2.0; it must lie in \[0, 1\]"),
        (
            lambda: DPOSettings(loss="aot", fit=FitConfig(micro_batches=2)),
            "set dpo.fit.micro_batches to 1",
        ),
        (
            lambda: KTOSettings(loss="bco", desirable_weight=2.0),
            "loss bco takes no desirable_weight",
        ),
        (lambda: KTOSettings(undesirable_weight=-1.0), "it must not be negative"),
        (lambda: DPOSettings(loss="ppo"), "loss is 'ppo'; it must be dpo, robust"),
    ],
)
def test_what_a_loss_does_not_take_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_what_a_batch_lacks_is_named():
    pairs, singles = batches()
    lacking = PreferenceBatch(**{**vars(pairs), "gold": None, "reference": None})
    for name, what in (("ipo", "batch.reference"), ("tpo", "gold, in the batch")):
        with pytest.raises(UserError, match=what):
            objective(name)(PARAMS, lacking, KEY)
    alone = UnpairedBatch(**{**vars(singles), "mismatched": None})
    with pytest.raises(UserError, match=r"batch\.mismatched"):
        objective("kto")(PARAMS, alone, KEY)
