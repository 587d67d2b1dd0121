"""`jaxalign explain`: the table holds what the loss depends on; checks find what is wrong."""

import dataclasses
import datetime
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import objectives
from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.preferences import PairLogps, PreferenceBatch, UnpairedBatch
from jaxalign.batches.tokens import TokenBatch
from jaxalign.commands.explain import page
from jaxalign.commands.explain.run_directory import of_run
from jaxalign.config.control import ControlConfig
from jaxalign.config.data import DataConfig
from jaxalign.config.distill import DistillConfig
from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.explain import ExplainConfig
from jaxalign.config.grpo import GRPOConfig
from jaxalign.config.kto import KTOConfig, KTOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.online import OnlineConfig
from jaxalign.config.overrides import restored
from jaxalign.config.ppo import PPOSettings, TextPPOConfig
from jaxalign.config.reward import RewardConfig
from jaxalign.config.rlhf import RLHFConfig
from jaxalign.config.sft import SFTConfig
from jaxalign.data.templates import template_date
from jaxalign.errors import UserError
from jaxalign.explanation import (
    explain_decisions,
    explain_pairs,
    explain_responses,
    explain_texts,
    explain_unpaired,
)
from jaxalign.losses import BCO, DPO, GROUP_LOSSES, LENGTH_NORMALISED_DPO, UNPAIRED_LOSSES
from jaxalign.losses.bco import RunningMean
from jaxalign.losses.group_methods import with_parts
from jaxalign.report.explanation import explanation_page
from jaxalign.train.checks import (
    checked,
    truncated_fields,
    watched,
    watched_decisions,
    watched_ratios,
)

KEY = jax.random.key(0)


def rows(seed, lengths=(3, 2)):
    """One prompt token, then so many response tokens; `[B, 5]`."""
    response = np.zeros((len(lengths), 5), bool)
    for row, length in enumerate(lengths):
        response[row, 1 : 1 + length] = True
    prompt = np.zeros_like(response)
    prompt[:, 0] = True
    tokens = np.random.default_rng(seed).integers(0, 7, response.shape, np.int32)
    index = np.arange(len(lengths), dtype=np.int32)
    return TokenBatch(tokens=tokens, prompt_mask=prompt, response_mask=response, index=index)


def table_logps(params, batch, keys=None):
    return jax.nn.log_softmax(params)[batch.tokens]


PARAMS = jnp.linspace(-1.0, 1.0, 7)


def pairs():
    chosen, rejected = rows(0), rows(1, (1, 4))
    start = jnp.zeros(7)
    sides = [table_logps(start, side) for side in (chosen, rejected)]
    summed = PairLogps(
        chosen=(sides[0] * chosen.response_mask).sum(1),
        rejected=(sides[1] * rejected.response_mask).sum(1),
    )
    batch = PreferenceBatch(
        chosen=chosen,
        rejected=rejected,
        reference=summed,
        weights=np.ones(2, np.float32),
    )
    return batch, sides


def test_a_pair_by_hand():
    """d/dlogp of -log sigmoid(u), mean of 2 pairs: -+ beta sigmoid(-u) / 2, for each token."""
    batch, sides = pairs()
    make_loss = functools.partial(objectives.paired, loss=DPO.given(beta=0.5))
    found = explain_pairs(make_loss, table_logps, PARAMS, batch, reference=sides, beta=0.5, key=KEY)
    assert all(total.agrees for total in found.sums) and len(found.sums) == 5
    first, second = found.sequences[:2]
    assert (first.title, second.title) == ("chosen 0", "rejected 0")
    margin = first.totals["reward"] - second.totals["reward"]
    slope = 0.5 / (1 + np.exp(margin)) / 2
    np.testing.assert_allclose(first.columns["gradient"], -slope * first.is_response, rtol=1e-5)
    np.testing.assert_allclose(second.columns["gradient"], slope * second.is_response, rtol=1e-5)
    losses = [
        np.log1p(np.exp(-(one.totals["reward"] - two.totals["reward"])))
        for one, two in zip(found.sequences[::2], found.sequences[1::2], strict=True)
    ]
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.slow
def test_sums_of_pairs_count_tokens_as_the_loss_does():
    """LD-DPO: 3 and 1 response tokens, 2 and 4: what is beyond the shorter counts 0.25. And
    rewards per token, of 3, 2, 1 and 4.
    """
    batch, sides = pairs()
    responses = (batch.chosen, batch.rejected)
    counts = [np.array(side.response_mask, float) for side in responses]
    counts[0][0, 2:4] = counts[1][1, 3:5] = 0.25
    summed = [
        (np.asarray(start) * count).sum(axis=1) for start, count in zip(sides, counts, strict=True)
    ]
    reference = PairLogps(chosen=jnp.asarray(summed[0]), rejected=jnp.asarray(summed[1]))
    batch = dataclasses.replace(batch, reference=reference)
    given = {"reference": sides, "beta": 0.5, "key": KEY}
    make_loss = functools.partial(objectives.paired, loss=DPO.given(beta=0.5), ld_alpha=0.25)
    found = explain_pairs(make_loss, table_logps, PARAMS, batch, ld_alpha=0.25, **given)
    assert all(total.agrees for total in found.sums) and len(found.sums) == 5
    assert "count 0.25 (LD-DPO)" in found.notes[0]
    logps = np.asarray(table_logps(PARAMS, batch.chosen))
    wanted = logps[0, 1] + 0.25 * (logps[0, 2] + logps[0, 3])
    assert found.sequences[0].totals["log-probability"] == pytest.approx(wanted, rel=1e-6)
    batch, sides = pairs()
    make_loss = functools.partial(objectives.paired, loss=LENGTH_NORMALISED_DPO.given(beta=0.5))
    found = explain_pairs(make_loss, table_logps, PARAMS, batch, per_token=True, **given)
    assert all(total.agrees for total in found.sums) and len(found.sums) == 5
    for sequence, length in zip(found.sequences, (3, 1, 2, 4), strict=True):
        mean = (sequence.columns["reward"] * sequence.is_response).sum() / length
        assert sequence.totals["reward per token"] == pytest.approx(mean, rel=1e-5)


LABELS = np.array([True, False, False])


def labelled(*, mismatched):
    """Three responses, the last one padding; `mismatched`: log-ratios of theirs, two of a batch."""
    responses, others = rows(4, (3, 2, 4)), rows(5, (2, 4, 1))
    start = table_logps(jnp.zeros(7), responses)
    theirs = (table_logps(PARAMS, others) * others.response_mask).sum(1)
    batch = UnpairedBatch(
        responses=responses,
        labels=jnp.asarray(LABELS),
        reference=(start * responses.response_mask).sum(1),
        weights=jnp.array([1.0, 1.0, 0.0]),
        mismatched=others if mismatched else None,
        mismatched_reference=theirs - jnp.array(mismatched) if mismatched else None,
    )
    return batch, start


def unpaired(loss, mismatched, shift=None, **given):
    batch, start = labelled(mismatched=mismatched)

    def make_loss(model):
        statistics = None if shift is None else RunningMean(mean=shift, count=jnp.float32(6))
        loss_fn = objectives.unpaired(model, UNPAIRED_LOSSES[loss].given(beta=0.5, **given))
        return functools.partial(loss_fn, statistics=statistics)

    return explain_unpaired(
        make_loss, table_logps, PARAMS, batch, reference=start, beta=0.5, key=KEY
    )


def unpaired_gradients(found, slopes):
    for sequence, slope in zip(found.sequences, slopes, strict=True):
        np.testing.assert_allclose(
            sequence.columns["gradient"], slope * sequence.is_response, rtol=1e-5
        )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.slow
def test_kto_by_hand():
    """The KL is the mean of 0.8 and -0.2; the padding's 9 is not in it. A value of sigmoid(u) has
    the slope sigmoid(u) sigmoid(-u), times beta and the weight of its label, over 2 responses.
    """
    found = unpaired("kto", [0.8, -0.2, 9.0], undesirable_weight=3.0)
    assert all(total.agrees for total in found.sums)
    assert [total.name for total in found.sums] == [
        *("loss", "KL", "mean log-probability of good", "mean reward of good"),
        *("mean log-probability of bad", "mean reward of bad"),
    ]
    good, bad, _ = found.sequences
    assert (good.title, bad.title) == ("response 0, labelled good", "response 1, labelled bad")
    assert found.metrics["kl/reference"] == pytest.approx(0.3, rel=1e-5)
    assert bad.totals["mismatched log-ratio"] == pytest.approx(-0.2, rel=1e-5)
    up, down = (0.5 * 0.3 - good.totals["reward"], bad.totals["reward"] - 0.5 * 0.3)
    assert found.loss == pytest.approx((sigmoid(up) + 3 * sigmoid(down)) / 2, rel=1e-6)
    slopes = [
        -0.5 * sigmoid(up) * sigmoid(-up) / 2,
        3 * 0.5 * sigmoid(down) * sigmoid(-down) / 2,
        0.0,
    ]
    unpaired_gradients(found, slopes)


@pytest.mark.slow
def test_a_negative_kl_is_0():
    found = unpaired("kto", [-0.8, 0.2, 9.0])
    assert found.metrics["kl/reference"] == 0 and all(total.agrees for total in found.sums)


@pytest.mark.slow
def test_bco_by_hand():
    """-log sigmoid(r - shift) if good, -log sigmoid(shift - r) if bad; the shift is the mean of
    these two rewards and of six before, of mean 0.7.
    """
    found = unpaired("bco", None, shift=0.7)
    assert all(total.agrees for total in found.sums)
    assert found.sums[-1].name == "mean reward" and len(found.sums) == 6
    good, bad, _ = found.sequences
    shift = (6 * 0.7 + good.totals["reward"] + bad.totals["reward"]) / 8
    assert found.metrics["bco/shift"] == pytest.approx(shift, rel=1e-6)
    up, down = shift - good.totals["reward"], bad.totals["reward"] - shift
    assert found.loss == pytest.approx(np.logaddexp(0, [up, down]).sum() / 2, rel=1e-6)
    unpaired_gradients(found, [-0.5 * sigmoid(up) / 2, 0.5 * sigmoid(down) / 2, 0.0])


@pytest.mark.slow
def test_apo_zero_by_hand():
    """sigmoid(-r) if good, sigmoid(r) if bad: KTO without a KL."""
    found = unpaired("apo_zero_unpaired", None)
    assert all(total.agrees for total in found.sums) and len(found.sums) == 5
    good, bad, _ = (sequence.totals["reward"] for sequence in found.sequences)
    assert found.loss == pytest.approx((sigmoid(-good) + sigmoid(bad)) / 2, rel=1e-6)
    slopes = [0.5 * sigmoid(-r) * sigmoid(r) / 2 for r in (good, bad)]
    unpaired_gradients(found, [-slopes[0], slopes[1], 0.0])


@pytest.mark.slow
def test_labelled_responses_are_checked():
    """Running statistics pass through the conditions."""
    batch, _ = labelled(mismatched=None)
    loss_fn = watched(objectives.unpaired(table_logps, BCO))

    def step(params, batch):
        return jax.value_and_grad(loss_fn, has_aux=True)(
            params, batch, KEY, statistics=RunningMean(mean=0.5, count=jnp.float32(1e9))
        )

    message, ((_, (_, metrics)), _) = checked(step, PARAMS, batch)
    assert message is None and metrics["bco/shift"] == pytest.approx(1)  # of two responses
    empty = dataclasses.replace(batch, weights=jnp.zeros(3))
    assert "empty mask" in (checked(step, PARAMS, empty)[0] or "")


def experience(drift):
    batch = rows(2)
    logps = table_logps(PARAMS, batch)
    return Experience(
        inputs=batch,
        actions=batch.tokens,
        mask=jnp.asarray(batch.response_mask),
        behaviour_logps=logps - drift,
        values=jnp.zeros((2, 5)),
        advantages=jnp.where(jnp.arange(2)[:, None] == 0, 1.0, -1.0) * jnp.ones((2, 5)),
        returns=jnp.ones((2, 5)),
        index=batch.index,
    )


def evaluate(params, batch, keys=None):
    logps = table_logps(params, batch.inputs)
    return logps, jnp.ones_like(logps), 0.5 * jnp.ones_like(logps)


def decisions(drift):
    clip = {"clip_range": 0.2, "dual_clip": None}
    make_loss = functools.partial(objectives.ppo, value_coef=0.1, value_clip_range=None, **clip)
    return explain_decisions(
        make_loss,
        evaluate,
        PARAMS,
        experience(drift),
        clip=clip,
        value_clip_range=None,
        recorded={"KL": jnp.zeros((2, 5))},
        key=KEY,
    )


@pytest.mark.slow
def test_decisions_by_hand():
    """Ratio 1.5: good actions are clipped, bad ones are not; 5 decisions."""
    found = decisions(np.log(1.5))
    assert all(total.agrees for total in found.sums)
    good, bad = found.sequences
    assert set(good.columns["clipped"][good.is_response]) == {"above"}
    assert set(bad.columns["clipped"][bad.is_response]) == {""}
    assert not good.columns["gradient"].any()
    np.testing.assert_allclose(bad.columns["gradient"], 1.5 / 5 * bad.is_response, rtol=1e-5)
    slope = 0.1 * (0.5 - 1) / 5
    np.testing.assert_allclose(bad.columns["value gradient"], slope * bad.is_response, rtol=1e-5)


def group_batch(drift):
    batch = rows(2)
    logps = table_logps(PARAMS, batch)
    return ResponseBatch(
        inputs=batch,
        mask=jnp.asarray(batch.response_mask),
        behaviour_logps=logps - drift,
        reference_logps=logps + np.log(2),
        advantages=jnp.array([1.0, -1.0]),
        weights=jnp.ones((2, 5)),
        index=batch.index,
    )


def table_decisions(params, batch, keys=None):
    logps = table_logps(params, batch)
    return logps, jnp.ones_like(logps)


def groups(loss, drift, **given):
    method = with_parts(GROUP_LOSSES[loss], **given)
    return explain_responses(
        functools.partial(objectives.group_policy_gradient, method=method, length=4),
        table_decisions,
        PARAMS,
        group_batch(drift),
        method=method,
        recorded={"KL": jnp.zeros((2, 5))},
        totals={"score": jnp.array([2.0, -3.0])},
        key=KEY,
    )


@pytest.mark.slow
def test_groups_by_hand():
    """Ratio 1.5, responses of 3 and 2 tokens; k3 = exp(d) - 1 - d at d = log 2 pulls by 1 - 2."""
    found = groups("grpo", np.log(1.5), kl_coef=0.3)
    assert all(total.agrees for total in found.sums) and len(found.sums) == 4
    good, bad = found.sequences
    assert good.totals["score"] == 2 and bad.totals["score"] == -3
    assert set(good.columns["clipped"][good.is_response]) == {"above"}
    assert set(bad.columns["clipped"][bad.is_response]) == {""}
    pull = 0.3 * (1 - 2)
    np.testing.assert_allclose(
        good.columns["gradient"], pull / 3 / 2 * good.is_response, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        bad.columns["gradient"], (1.5 + pull) / 2 / 2 * bad.is_response, rtol=1e-5, atol=1e-7
    )
    kl = 0.3 * (2 - 1 - np.log(2))
    assert found.loss == pytest.approx(((-1.2 + kl) + (1.5 + kl)) / 2, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["rloo", "gspo", "cispo", "sapo"])
def test_groups_of_other_losses_hold_all_that_the_loss_depends_on(loss):
    found = groups(loss, -0.4)
    assert all(total.agrees for total in found.sums)
    sides = {side for row in found.sequences for side in row.columns.get("clipped", [])}
    assert sides == {"rloo": {"below", ""}, "gspo": {"below", ""}, "cispo": {""}}.get(loss, set())


@pytest.mark.slow
def test_groups_are_checked():
    method = GROUP_LOSSES["grpo"]

    def found(**change):
        batch = dataclasses.replace(group_batch(0.1), **change)
        watched_model = watched_decisions(table_decisions, batch)
        loss_fn = objectives.group_policy_gradient(watched_model, method, length=4)
        return checked(grad_step(loss_fn), PARAMS, batch)[0]

    assert found() is None
    assert "empty mask" in (found(mask=jnp.zeros((2, 5), bool)) or "")
    assert "ratio overflow" in (found(behaviour_logps=jnp.full((2, 5), -100.0)) or "")


def test_texts_by_hand():
    found = explain_texts(objectives.sft, table_logps, PARAMS, rows(3), key=KEY)
    assert all(total.agrees for total in found.sums)
    for sequence in found.sequences:
        np.testing.assert_allclose(
            sequence.columns["gradient"], sequence.is_response / -5, rtol=1e-6
        )


class Spelling:
    def token(self, number):
        return f"<{number}>"

    def decode(self, ids):
        return " ".join(map(str, ids))


class HostileSpelling(Spelling):
    def token(self, number):
        return "<img src=x onerror=alert(1)>\x1b[2J"


@pytest.mark.slow
def test_the_page_stands_alone():
    explained = decisions(0.3)
    page = explanation_page("ppo", explained, Spelling(), [("NaN", None), ("x", "bad & ugly")])
    for forbidden in ("<script", "http://", "https://", "src="):
        assert forbidden not in page
    assert "bad &amp; ugly" in page and "&lt;" in page and "nothing found" in page
    assert page.count("<details") == 2
    other = explanation_page("ppo", explained, HostileSpelling(), [("<b>", "\x00</table>")])
    assert "<img" not in other and "<b>" not in other
    assert other.count("</table>") == page.count("</table>")
    assert not any(letter < " " and letter != "\n" for letter in other)


def loss_of(batch, make=evaluate):
    return objectives.ppo(watched_ratios(make), clip_range=0.2, value_coef=0.1), batch


def grad_step(loss_fn):
    return lambda params, batch: jax.value_and_grad(watched(loss_fn), has_aux=True)(
        params, batch, KEY
    )


@pytest.mark.slow
def test_checks_are_silent_where_all_is_well_and_change_nothing():
    loss_fn, batch = loss_of(experience(0.1))
    message, ((loss, _), _) = checked(grad_step(loss_fn), PARAMS, batch)
    plain = objectives.ppo(evaluate, clip_range=0.2, value_coef=0.1)(PARAMS, batch, KEY)[0]
    assert message is None
    np.testing.assert_allclose(loss, plain, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": jnp.zeros((2, 5), bool)}, "empty mask"),
        ({"behaviour_logps": jnp.full((2, 5), -100.0)}, "ratio overflow"),
        ({"advantages": jnp.full((2, 5), jnp.nan)}, "nan generated by primitive"),
    ],
)
def test_checks_name_what_is_wrong(change, words):
    loss_fn, batch = loss_of(dataclasses.replace(experience(0.0), **change))
    message, _ = checked(grad_step(loss_fn), PARAMS, batch)
    assert message is not None and words in message


@pytest.mark.slow
def test_a_nan_that_no_result_contains_is_no_finding():
    """0 / 0 in the branch that is not taken, as in clipping a gradient of 0 by its norm."""

    def step(x):
        return jnp.where(x == 0, 0.0, x / x)

    assert checked(step, jnp.zeros(2))[0] is None
    message = checked(lambda x: x / x, jnp.zeros(2))[0]
    assert message is not None and "nan" in message


def test_truncating_dtypes_are_named():
    batch = dataclasses.replace(
        experience(0.0), advantages=np.ones((2, 5), int), returns=jnp.ones((2, 5), jnp.bfloat16)
    )
    assert truncated_fields(batch) == ["advantages is int32", "returns is bfloat16"]
    assert truncated_fields(experience(0.0)) == []


def test_a_configuration_comes_back_from_its_file():
    config = DPOConfig(
        policy="x", dpo=DPOSettings(beta=0.3, fit=FitConfig(optimizer=OptimizerConfig(b2=0.5)))
    )
    assert restored(DPOConfig, dataclasses.asdict(config)) == config
    with pytest.raises(UserError, match="other is no field of DPOConfig"):
        restored(DPOConfig, dataclasses.asdict(config) | {"other": 1})
    with pytest.raises(UserError, match="adapter is missing"):
        restored(DPOConfig, {"data": {}})


def test_supervised_fine_tuning_has_no_temperature():
    with pytest.raises(UserError, match="method sft does not read temperature"):
        ExplainConfig(method="sft", temperature=0.5)
    assert ExplainConfig(method="dpo", temperature=0.5).temperature == 0.5


def test_a_run_must_be_one(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        of_run(ExplainConfig(run=str(tmp_path)))
    for config in (OnlineConfig, DistillConfig, RewardConfig, ControlConfig, RLHFConfig, dict):
        fields = {} if config is dict else dataclasses.asdict(config())
        (tmp_path / "config.json").write_text(json.dumps(fields))
        with pytest.raises(UserError, match="those are of sft, dpo, kto, ppo and grpo") as error:
            of_run(ExplainConfig(run=str(tmp_path)))
        assert "\n" not in str(error.value)


def run_of(folder, config):
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    return ExplainConfig(run=str(folder))


@pytest.mark.slow
def test_a_run_of_kto_gives_its_settings(tmp_path):
    (tmp_path / "start").mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.touch()
    start = str(tmp_path / "start")
    run = KTOConfig(
        policy=start,
        temperature=0.7,
        seed=3,
        kto=KTOSettings(loss="bco", beta=0.3),
        data=DataConfig(path=str(rows)),
    )
    config = of_run(run_of(tmp_path, run))
    assert (config.method, config.kto, config.temperature) == ("kto", run.kto, 0.7)
    assert (config.policy, config.reference, config.seed) == (str(tmp_path), start, 3)
    other = DataConfig(path="other.jsonl", max_length=9)
    given = dataclasses.replace(run_of(tmp_path, run), data=other, reference="org/name")
    assert (of_run(given).data, of_run(given).reference) == (other, "org/name")
    for wrong in ({"temperature": 0.5}, {"dpo": DPOSettings(beta=1)}, {"method": "sft"}):
        with pytest.raises(UserError, match="is that of the run with --run; leave it out"):
            of_run(dataclasses.replace(run_of(tmp_path, run), **wrong))


def test_a_run_on_labels_does_not_pass_for_one_on_all_texts(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    run = SFTConfig(labelled=True, data=DataConfig(path=str(tmp_path / "rows.jsonl")))
    with pytest.raises(UserError, match=r"imitated the responses labelled good, .* --method sft"):
        of_run(run_of(tmp_path, run))
    fit = FitConfig(optimizer=OptimizerConfig(learning_rate=0.3))
    explained = of_run(run_of(tmp_path, dataclasses.replace(run, labelled=False, fit=fit)))
    assert explained.method == "sft"
    assert explained.dpo.fit == fit  # that of `--updates`


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (SFTConfig, {"reference": "x"}),
        (SFTConfig, {"reward": "x"}),
        (DPOConfig, {"behaviour": "x"}),
        (KTOConfig, {"rewards": {"x": 1.0}}),
    ],
)
def test_what_a_run_does_not_read_is_refused_beside_it(make, given, tmp_path):
    (tmp_path / "rows.jsonl").touch()
    own = {} if make is SFTConfig else {"policy": str(tmp_path)}
    run = run_of(tmp_path, make(data=DataConfig(path=str(tmp_path / "rows.jsonl")), **own))
    assert of_run(run).run
    (name,) = given
    with pytest.raises(UserError, match=rf"--{name} is given beside .*, which does not read it"):
        of_run(dataclasses.replace(run, **given))


@pytest.mark.parametrize(("target", "coefficient"), [(None, 0.2), (4.0, 0.7)])
def test_a_run_that_followed_a_target_gives_its_last_kl_coefficient(target, coefficient, tmp_path):
    for name in ("start", "reward", "rows"):
        (tmp_path / name).mkdir()
    lines = [{"stage": "ppo", "step": n, "kl/coef": value} for n, value in ((1, 0.2), (2, 0.7))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = TextPPOConfig(
        policy=str(tmp_path / "start"),
        reward=str(tmp_path / "reward"),
        data=DataConfig(path=str(tmp_path / "rows")),
        ppo=PPOSettings(kl_coef=0.2, kl_target=target),
    )
    assert of_run(run_of(tmp_path, run)).ppo == dataclasses.replace(run.ppo, kl_coef=coefficient)


@pytest.mark.slow
@pytest.mark.parametrize("make", [TextPPOConfig, GRPOConfig])
def test_no_code_that_a_run_names_is_run(make, tmp_path):
    """Only a function that the user gives beside the run is one."""
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    data = DataConfig(path=str(tmp_path / "rows.jsonl"))
    function = f"{tmp_path}/theirs.py:reward"
    for rewards in ({"reward": function}, {"rewards": {function: 1.0}}):
        given = run_of(tmp_path, make(policy=str(tmp_path), data=data, **rewards))
        with pytest.raises(UserError, match=r"code that a run names is not run: .* add --reward"):
            page.run(given)
        own = of_run(dataclasses.replace(given, reward="mine.py"))
        assert (own.reward, own.rewards) == ("mine.py", {})
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"reward": "org/name"}, "--reward org/name"),
        ({"rewards": {"gs://bucket/model": 2.0}}, "--rewards gs://bucket/model 2"),
        ({"policy": "https://host/model"}, "--reference https://host/model"),
        ({"data": DataConfig(path="tfds:human_ratings/movies:policy")}, "--data.path tfds:human"),
        ({"data": DataConfig(path="/**/*.jsonl")}, "--data.path '/**/*.jsonl'"),
        ({"policy": "$(touch x)/y; z"}, "--reference '$(touch x)/y; z'"),
        ({"policy": "theirs/link"}, "--reference theirs/link"),
    ],
)
def test_nothing_is_fetched_on_the_word_of_a_run(fields, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "link").symlink_to(
        "nothing"
    )  # no model here, and like a name of the hub
    (tmp_path / "rows.jsonl").touch()
    data = DataConfig(path=str(tmp_path / "rows.jsonl"))
    here = {"policy": str(tmp_path), "reward": str(tmp_path), "data": data} | fields
    here = here if "rewards" not in fields else here | {"reward": ""}
    with pytest.raises(UserError, match="nothing is fetched on the word of a run") as error:
        of_run(run_of(tmp_path, TextPPOConfig(**here)))
    assert f"add {option}" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"policy": 3}, "policy is 3; it must be a text"),
        ({"dpo": []}, "[] stands where the fields of DPOSettings should"),
        ({"dpo": {"loss": "dop"}}, "dpo.loss is 'dop'; it must be dpo"),
        ({"dpo": {"fit": {"steps": "3"}}}, "dpo.fit.steps is '3'; it must be a whole number"),
        ({"dpo": {"fit": {"steps": True}}}, "dpo.fit.steps is True; it must be a whole number"),
        ({"dpo": {"fit": {"steps": 1e3}}}, "dpo.fit.steps is 1000.0; it must be a whole number"),
        ({"seed": 2**70}, "it is too large"),
        ({"dpo": {"beta": float("nan")}}, "dpo.beta is nan; it must be a finite number"),
        ({"data": {"fields": {"a": 1}}}, "data.fields is {'a': 1}; it must be pairs of a text"),
        ({"lora": {"targets": "all"}}, "lora.targets is 'all'; it must be texts"),
        ({"x\x1b[2J\n": 1}, "x\\x1b[2J\\n' is no field"),
    ],
)
def test_a_wrong_value_in_a_run_is_one_line_with_file_and_field(change, line, tmp_path):
    def merged(tree, change):
        both = isinstance(tree, dict) and isinstance(change, dict)
        return (
            {**tree, **{k: merged(tree.get(k), v) for k, v in change.items()}} if both else change
        )

    fields = merged(dataclasses.asdict(DPOConfig()), change)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UserError) as error:
        of_run(ExplainConfig(run=str(tmp_path)))
    assert str(error.value).startswith(f"{tmp_path}/config.json: ")
    assert line in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.slow
def test_a_run_is_explained_on_the_day_it_began(tmp_path, monkeypatch):
    """Its chat template may write the date: the batch is that of the run, on any later day."""
    began = datetime.datetime(2024, 2, 29, 23, 59)
    inputs = {"run": "a", "started": began.isoformat(), "inputs": None}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    monkeypatch.setattr(page, "of_run", lambda config: config)
    monkeypatch.setattr(page, "explain_batch", lambda config: template_date())
    assert page.run(ExplainConfig(run=str(tmp_path))) == began
    assert page.run(ExplainConfig()) == template_date() != began
