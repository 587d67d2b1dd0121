"""Golden vectors of independent libraries, and every known disagreement by name.

Where a peer and the paper differ, the paper decides. `DISAGREEMENTS` says how the peer differs, and
a test of that name shows that exactly this difference turns our number into theirs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import (
    PairLogps,
    action_logps,
    adapted_coef,
    bradley_terry_loss,
    centering_penalty,
    dpo_loss,
    entropy,
    exact_kl,
    gae,
    implicit_rewards,
    k1,
    k2,
    k3,
    log_softmax,
    ppo_policy_clipped,
    ppo_policy_loss,
    ppo_value_clipped,
    ppo_value_loss,
    probability_ratios,
    robust_dpo_loss,
    sequence_logps,
    shaped_rewards,
    token_logps,
    whiten,
)
from tests.oracles import golden

pytestmark = pytest.mark.usefixtures("x64")
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
SINGLE = {"rtol": 1e-5, "atol": 1e-5}  # peers that compute in float32

DISAGREEMENTS = {
    "whitening": "TRL, verl, tunix, torchtune: ddof 1, 1e-8 in the denominator; ours: ddof 0, none",
    "torchtune_centring": "its shift_mean flag is inverted, so its advantages are not centred",
    "trl_score_placement": "TRL 0.24 adds the score one past the last token, if there is room",
    "kl_clamps": "verl, OpenRLHF, tunix clamp KL estimates at 10 (no gradient); ours does not",
    "log_ratio_clamps": "verl, OpenRLHF clamp log-ratios at 20, TRL, rlax overflow; ours saturates",
    "log_exp_loss_margin": "OpenRLHF's LogExpLoss ignores the margin",
    "mean_of_nothing": "TRL's average log-probability of an empty response is NaN; ours is 0",
    "saturation": "ours continues exp(x) in a straight line above 354 (float32: 44)",
}


def close(ours, theirs, where=None, **tolerance):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if where is not None:
        ours, theirs = ours[where], theirs[where]
    np.testing.assert_allclose(ours, theirs, **(tolerance or TIGHT))


# --- Advantages --------------------------------------------------------------------------------

jit_gae = jax.jit(gae)
jit_whiten = jax.jit(whiten, static_argnames="shift_mean")
jit_shaped = jax.jit(shaped_rewards)
jit_entropy = jax.jit(entropy)
jit_kl = jax.jit(exact_kl)


@pytest.mark.parametrize("peer", ["gae_torchrl", "gae_sb3"])
def test_gae_with_terminations_and_truncations(peer):
    """Stored time-major; the peer is given the successor's value at every step."""
    tolerance = TIGHT if peer == "gae_torchrl" else SINGLE
    for case in golden.cases(peer):
        x = {k: v.T for k, v in case.inputs.items()}
        advantages, returns = jit_gae(
            x["rewards"],
            x["values"],
            np.ones_like(x["terminated"]),
            terminations=x["terminated"],
            truncations=x["truncated"],
            final_values=x["next_values"],
            bootstrap_values=x["last_value"],
            **case.args,
        )
        close(advantages.T, case.outputs["advantages"], **tolerance)
        if "returns" in case.outputs:
            close(returns.T, case.outputs["returns"], **tolerance)


def by_case(fn, cases, columns, slopes_in=(0,)):
    """Yields case, values, slopes of an elementwise `fn`: all cases in one call, compiled once."""
    rows = [tuple(np.ravel(x) for x in columns(case)) for case in cases]
    joined = [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def total(*arrays):
        values = fn(*arrays)
        return values.sum(), values

    slopes, values = jax.jit(jax.grad(total, slopes_in, has_aux=True))(*joined)
    ends = np.cumsum([row[0].size for row in rows])[:-1]
    for i, case in enumerate(cases):
        shape = columns(case)[0].shape
        parts = [np.split(np.asarray(x), ends)[i].reshape(shape) for x in (values, *slopes)]
        yield case, parts[0], parts[1:]


def grouped(cases, *names):
    """Cases by equal arguments."""
    groups = {}
    for case in cases:
        groups.setdefault(tuple(case.args.get(name) for name in names), []).append(case)
    return groups.items()


def names(*keys):
    return lambda case: tuple(case.inputs[key] for key in keys)


def peer_whitened(x, mask, *, centred=True):
    """TRL, verl, tunix: ddof 1 and an epsilon of 1e-8 under the root."""
    kept = np.asarray(x)[mask]
    mean, variance = kept.mean(), kept.var(ddof=1) if kept.size > 1 else 0.0
    scaled = (x - mean) / np.sqrt(variance + 1e-8)
    return scaled if centred else scaled + mean


WHITENING = {  # peer: (gae function, lambda's name, whether its "whitened" advantages are centred)
    "ppo_verl": ("compute_gae_advantage_return", "lam", True),
    "ppo_trl011": ("compute_advantages", "lam", True),
    "ppo_tunix": ("compute_gae_advantages", "gae_lambda", True),
    "ppo_torchtune": ("estimate_advantages", "lmbda", False),
}


@pytest.mark.parametrize("peer", WHITENING)
def test_gae_over_response_tokens(peer):
    """Disagreements whitening and torchtune_centring."""
    function, gae_lambda, centred = WHITENING[peer]
    for case in golden.cases(peer, function):
        if case.args.get("whiten_rewards"):
            continue
        mask = case.inputs["mask"].astype(bool)
        settings = {"gamma": case.args["gamma"], "gae_lambda": case.args[gae_lambda]}
        ours, returns = jit_gae(case.inputs["rewards"], case.inputs["values"], mask, **settings)
        expected = peer_whitened(ours, mask, centred=centred)
        close(expected, case.outputs["advantages"], mask, rtol=1e-7, atol=1e-7)
        close(returns, case.outputs["returns"], mask)


@pytest.mark.parametrize("peer", ["ppo_trl011", "ppo_tunix", "ppo_torchtune"])
def test_whitening(peer):
    """Disagreement whitening: an epsilon (in variance, counts or both) moves 1e-8 of 0.1."""
    for case in golden.cases(peer, "whiten"):
        mask, rewards = case.inputs["mask"].astype(bool), case.inputs["rewards"]
        shift = case.args.get("shift_mean", True) != (peer == "ppo_torchtune")
        theirs, n = case.outputs["out"], mask.sum()
        close(peer_whitened(rewards, mask, centred=shift), theirs, mask, rtol=1e-6, atol=1e-7)
        kept = rewards[mask]
        if n > 1 and kept.var() > 0.01:
            mean = 0 if shift else kept.mean()
            ours = (jit_whiten(rewards, mask, shift_mean=shift) - mean) * np.sqrt(1 - 1 / n) + mean
            close(ours, theirs, mask, rtol=1e-6, atol=1e-6)


def test_rewards_at_the_last_token():
    for peer, function, coef in (
        ("ppo_trl011", "compute_rewards", "kl_coef"),
        ("ppo_openrlhf", "compute_reward", "kl_coef"),
        ("ppo_torchtune", "get_rewards", "kl_coeff"),
    ):
        for case in golden.cases(peer, function):
            x, mask = case.inputs, case.inputs["mask"].astype(bool)
            kl = x["logprobs"] - x["ref_logprobs"]
            ours = jit_shaped(x["scores"], kl, mask, kl_coef=case.args[coef])
            close(ours, case.outputs["rewards"], mask)


def test_disagreement_trl_score_placement():
    """The KL part agrees (k1 and k3)."""
    for case in golden.cases("ppo_trl024_trace"):
        x, args = case.inputs, case.args
        mask = ~x["padding_mask"].astype(bool)
        estimator = {"k1": k1, "k3": k3}[args["kl_estimator"]]
        kl = estimator(x["logprobs"], x["ref_logprobs"])
        close(kl, case.outputs["kl"], mask, **SINGLE)
        charge = shaped_rewards(np.zeros_like(x["scores"]), kl, mask, kl_coef=args["kl_coef"])
        close(charge, case.outputs["non_score_reward"], mask, **SINGLE)
        if args["whiten_rewards"]:
            continue
        theirs = case.outputs["rewards"] - np.where(mask, case.outputs["non_score_reward"], 0)
        last = mask.shape[1] - 1
        for row, score in enumerate(x["scores"]):
            at = min(int(mask[row].sum()), last)
            close(theirs[row, at], score, **SINGLE)
        ours = shaped_rewards(x["scores"], kl, mask, kl_coef=args["kl_coef"]) - charge
        close(ours.sum(axis=1), x["scores"], **SINGLE)
        assert not np.asarray(ours)[~mask].any()


def test_adaptive_controller():
    for case in golden.cases("ppo_trl011", "AdaptiveKL"):
        args, coef = case.args, jnp.float64(case.args["init_kl_coef"])
        settings = {"target": args["target"], "horizon": args["horizon"]}
        for kl, theirs in zip(args["current"], case.outputs["values"], strict=True):
            coef = adapted_coef(coef, jnp.float64(kl), batch_size=args["n_steps"], **settings)
            close(coef, theirs)


# --- KL ------------------------------------------------------------------------------------------


def test_kl_estimators():
    """Disagreement kl_clamps: compared where no clamp acts. OpenRLHF, tunix are float32."""
    ours = {"k1": k1, "k2": k2, "k3": k3, "kl": k1, "mse_kl": k2, "low_var_kl": k3}
    columns = names("logprobs", "ref_logprobs")
    for (kind,), cases in grouped(golden.cases("ppo_verl", "kl_penalty"), "kl_penalty"):
        for case, values, (slopes,) in by_case(ours[kind], cases, columns):
            free = (values <= 10) | (kind != "k3")
            close(values, case.outputs["kl"], free, rtol=1e-10, atol=1e-14)
            close(slopes, case.outputs["grad_logprobs_of_sum"], free)
    for peer, function, name in (
        ("ppo_openrlhf", "compute_approx_kl", "kl_estimator"),
        ("ppo_tunix", "kl_divergence", "method"),
    ):
        for (kind,), cases in grouped(golden.cases(peer, function), name):
            for case, values, _ in by_case(ours[kind], cases, columns):
                close(values, case.outputs["kl"], np.abs(values) <= 10, rtol=1e-4, atol=1e-5)


def test_disagreement_kl_clamps():
    """A peer's k3 is flat beyond its clamp; ours still pulls."""
    clamped = 0
    cases = dict(grouped(golden.cases("ppo_verl", "kl_penalty"), "kl_penalty"))["k3",]
    for case, _, (slopes,) in by_case(k3, cases, names("logprobs", "ref_logprobs")):
        far = case.outputs["kl"] >= 10
        assert not case.outputs["grad_logprobs_of_sum"][far].any()
        assert slopes[far].all()
        clamped += far.sum()
    assert clamped


# --- PPO losses ----------------------------------------------------------------------------------


POLICY_LOSSES = {  # peer file: function, clip settings of a case; verl's dual clip is always on
    "ppo_verl": ("policy_loss_vanilla", ("clip_ratio_low", "clip_ratio_high", "clip_ratio_c")),
    "ppo_openrlhf": ("PolicyLoss", ("clip_eps_low", "clip_eps_high", "dual_clip")),
    "ppo_rlax": ("clipped_surrogate", ("epsilon", "epsilon", "no dual clip")),
}
STEPS = names("logprobs", "old_logprobs", "advantages")


@pytest.mark.parametrize("peer", POLICY_LOSSES)
def test_policy_loss(peer):
    """Disagreement log_ratio_clamps: compared where nothing is clamped (at 20, ratio 4.9e8)."""
    function, arguments = POLICY_LOSSES[peer]
    compared = 0
    for (low, high, dual), cases in grouped(golden.cases(peer, function), *arguments):

        def loss(*step, clip=(low, high), dual=dual):
            return ppo_policy_loss(*step, clip_range=clip, dual_clip=dual)

        for case, values, (slopes,) in by_case(loss, cases, STEPS):
            mask, (logps, behaviour, _) = case.inputs["mask"].astype(bool), STEPS(case)
            if np.abs(logps - behaviour)[mask].max() > 20:
                continue
            close(values[mask].mean(), case.outputs["loss"])
            close(np.where(mask, slopes, 0) / mask.sum(), case.outputs["grad_logprobs"])
            compared += 1
    assert compared >= 10


def test_disagreement_log_ratio_clamps():
    """Where the ratio leaves the clamp, ours stays finite and keeps a gradient unless clipped."""
    cases = golden.cases("ppo_verl", "policy_loss_vanilla")

    def far(case):
        return np.abs(case.inputs["logprobs"] - case.inputs["old_logprobs"]).max() > 20

    def loss(*step):
        return ppo_policy_loss(*step, clip_range=0.2)

    beyond = [case for case in cases if far(case)]
    for case, values, (slopes,) in by_case(loss, beyond, STEPS):
        logps, behaviour, advantages = STEPS(case)
        assert np.isfinite(values).all() and np.isfinite(slopes).all()
        flat = ppo_policy_clipped(logps, behaviour, advantages, clip_range=0.2)
        vanished = probability_ratios(logps, behaviour) == 0
        assert slopes[~(flat | vanished) & (advantages != 0)].all()


def test_whole_ppo_losses():
    for peer, function, clips, policy_name in (
        ("ppo_trl011", "PPOTrainer.loss", ("cliprange", "cliprange_value"), "pg_loss"),
        ("ppo_torchtune", "PPOLoss", ("epsilon", "value_clip_range"), "policy_loss"),
    ):
        for (clip, value_clip), cases in grouped(golden.cases(peer, function), *clips):

            def losses(logps, behaviour, advantages, clip=clip):
                return ppo_policy_loss(logps, behaviour, advantages, clip_range=clip)

            def value_losses(values, behaviour, returns, clip=value_clip):
                return ppo_value_loss(values, behaviour, returns, value_clip_range=clip)

            value_columns = names("vpreds", "values", "returns")
            policy = by_case(losses, cases, STEPS)
            value = by_case(value_losses, cases, value_columns)
            for (case, ours, _), (_, value_ours, _) in zip(policy, value, strict=True):
                mask = case.inputs["mask"].astype(bool)
                logps, behaviour, _ = STEPS(case)
                if np.abs(logps - behaviour)[mask].max() <= 20:
                    close(ours[mask].mean(), case.outputs[policy_name])
                value = value_ours[mask].mean()
                if "vf_coef" in case.args:
                    close(case.args["vf_coef"] * value, case.outputs["vf_loss_times_coef"])
                else:
                    close(value, case.outputs["value_loss"])


@pytest.mark.parametrize(
    "peer, function, name",
    [("ppo_verl", "value_loss", "cliprange_value"), ("ppo_openrlhf", "ValueLoss", "clip_eps")],
)
def test_value_loss(peer, function, name):
    columns = names("vpreds", "values", "returns")
    for (clip,), cases in grouped(golden.cases(peer, function), name):

        def loss(*step, clip=clip):
            return ppo_value_loss(*step, value_clip_range=clip)

        for case, values, (slopes,) in by_case(loss, cases, columns):
            mask = case.inputs["mask"].astype(bool)
            close(values[mask].mean(), case.outputs["loss"])
            close(np.where(mask, slopes, 0) / mask.sum(), case.outputs["grad_vpreds"])
            if "clipfrac" in case.outputs:
                clipped = ppo_value_clipped(*columns(case), value_clip_range=clip)
                share = np.asarray(clipped)[mask].mean()
                close(share, case.outputs["clipfrac"], atol=1e-8)  # divides by count + 1e-8


def test_entropies():
    verl, tunix = golden.cases("ppo_verl", "entropy_loss"), golden.cases("ppo_tunix", "entropy")
    rlax = golden.cases("ppo_rlax", "distrax")
    for case in [*verl, *tunix, *rlax]:
        ours = jit_entropy(case.inputs["logits"])
        close(ours, case.outputs.get("token_entropy", case.outputs.get("entropy")))
        if "loss" in case.outputs:
            mask = case.inputs["mask"].astype(bool)
            close(np.asarray(ours)[mask].mean(), case.outputs["loss"])
    for case in rlax:
        logits = case.inputs["logits"]
        close(jit_kl(logits, np.roll(logits, 1, axis=0)), case.outputs["kl_to_rolled"])


def test_lambda_returns():
    """rlax, on the first row, which has no padding."""
    for case in golden.cases("ppo_rlax", "lambda_returns"):
        rewards, values = case.inputs["rewards"][:1], case.inputs["values"][:1]
        settings = {"gamma": case.args["gamma"], "gae_lambda": case.args["lambda_"]}
        _, returns = jit_gae(rewards, values, np.ones_like(rewards, bool), **settings)
        close(returns[0], case.outputs["returns"])


# --- Preferences ----------------------------------------------------------------------------------


SIDES = names(
    "policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps"
)


def pairs(chosen, rejected, reference_chosen, reference_rejected):
    reference = PairLogps(chosen=reference_chosen, rejected=reference_rejected)
    return PairLogps(chosen=chosen, rejected=rejected), reference


@pytest.mark.parametrize(
    "peer, losses", [("dpo_trl_legacy", "losses"), ("dpo_trl", "per_pair_loss")]
)
def test_dpo_cdpo_and_robust(peer, losses):
    kinds = {"sigmoid": dpo_loss, "robust": robust_dpo_loss}
    cases = golden.cases(peer)
    for case in cases:  # TRL 1.16 takes a list of losses
        case.args["loss_type"] = "".join(case.args["loss_type"])
    for (kind, beta, e), group in grouped(cases, "loss_type", "beta", "label_smoothing"):

        def loss(*logps, fn=kinds[kind], beta=beta, e=e or 0.0):
            return fn(*pairs(*logps), beta=beta, label_smoothing=e)

        for case, values, slopes in by_case(loss, group, SIDES, slopes_in=(0, 1)):
            close(values, case.outputs[losses])
            close(values.mean(), case.outputs["loss"])
            close(slopes[0] / values.size, case.outputs["grad_chosen_logps"])
            close(slopes[1] / values.size, case.outputs["grad_rejected_logps"])


def test_implicit_rewards():
    for case in golden.cases("dpo_trl_legacy"):
        rewards = implicit_rewards(*pairs(*SIDES(case)), beta=case.args["beta"])
        close(rewards.chosen, case.outputs["chosen_rewards"])
        close(rewards.rejected, case.outputs["rejected_rewards"])


def test_reward_model_losses():
    def columns(case):
        chosen, rejected = np.split(case.inputs["rewards"], 2)
        return chosen, rejected, case.inputs.get("margin", np.zeros_like(chosen))

    cases = golden.cases("reward_trl")
    for (coef,), group in grouped(cases, "center_rewards_coefficient"):

        def loss(chosen, rejected, margins, coef=coef or 0.0):
            losses = bradley_terry_loss(chosen - rejected, margins=margins)
            return losses + coef * centering_penalty(chosen, rejected)

        for case, values, slopes in by_case(loss, group, columns, slopes_in=(0, 1)):
            close(values.mean(), case.outputs["loss"])
            close(np.concatenate(slopes) / values.size, case.outputs["grad_rewards"])


def test_disagreement_log_exp_loss_margin():
    for name, uses_margin in (("PairWiseLoss", True), ("LogExpLoss", False)):
        for case in golden.cases("ppo_openrlhf", name):
            chosen, rejected = np.split(case.inputs["scores"], 2)
            margin = case.args["margin"] or 0.0 if uses_margin else 0.0
            ours = bradley_terry_loss(chosen - rejected, margins=margin).mean()
            close(ours, case.outputs["loss"])


# --- Log-probabilities ---------------------------------------------------------------------------


@jax.jit
def summed_logps(logits, tokens, mask):
    return sequence_logps(token_logps(logits, tokens), mask)


def test_batch_logps():
    """Unshifted labels, -100 where masked: the shift is inside. Disagreement mean_of_nothing."""
    for case in golden.cases("logps_trl", "get_batch_logps"):
        labels, theirs = case.inputs["labels"], case.outputs["logps"]
        mask = labels != -100
        mask[:, 0] = False
        ours = summed_logps(case.inputs["logits"], np.where(mask, labels, 0), mask)
        if case.args["average_log_prob"]:
            ours = ours / np.maximum(mask.sum(axis=1), 1)
        close(ours, theirs, np.isfinite(theirs))
        np.testing.assert_array_equal(np.isfinite(theirs), mask.any(axis=1) | (theirs == 0))


@jax.jit
def selected(logits, ids, counted, temperature):
    """Log-probabilities and entropies, and the gradients of their counted sums."""

    def logps(logits):
        values = action_logps(logits / temperature, ids)
        return jnp.sum(jnp.where(counted, values, 0)), values

    def entropies(logits):
        values = entropy(logits / temperature)
        return jnp.sum(jnp.where(counted, values, 0)), values

    return [jax.value_and_grad(fn, has_aux=True)(logits) for fn in (logps, entropies)]


def test_selected_logps_and_entropies_with_gradients():
    for case in golden.cases("logps_trl", "selective_log_softmax_and_entropy"):
        if "logits" in case.inputs:
            x, counted = case.inputs, case.inputs["labels"] != -100
            ours = selected(x["logits"], x["ids"], counted, case.args["temperature"])
            for ((_, values), grads), name in zip(ours, ("logps", "entropy"), strict=True):
                close(values, case.outputs[name], counted)
                close(grads, case.outputs[f"grad_logits_of_{name}_sum"])


def big_logits(args, ids):
    """The recipe of the golden file: seeded float32 normals, planted values, then rounded."""
    logits = np.random.default_rng(args["seed"]).standard_normal(args["shape"], np.float32)
    logits *= np.float32(args["scale"])
    for b, t, value in args["plant"]:
        logits[b, t, ids[b, t]] = value
    return jnp.asarray(logits, args["dtype"])


def test_logps_over_a_large_vocabulary():
    """float32 and bfloat16 logits up to 1e4 and beyond against float64 truth.

    Bound: dividing by the temperature and z - max round at the size of the logits; XLA adds V
    numbers in lanes and trees, of depth far below 100. TRL's bfloat16 answer is up to 120 nats off.
    """

    @jax.jit
    def ours(logits, ids, temperature):
        scaled = logits.astype(jnp.float32) / temperature.astype(jnp.float32)
        return action_logps(scaled, ids), entropy(scaled), jnp.max(jnp.abs(scaled))

    for case in golden.cases("logps_trl", "selective_log_softmax"):
        if "seed" in case.args:
            logits = big_logits(case.args, case.inputs["ids"])
            temperature = np.float64(case.args["temperature"])
            logps, entropies, size = ours(logits, case.inputs["ids"], temperature)
            assert logps.dtype == jnp.float32 and (logps <= 0).all()
            rounding = 2.0**-24 * (4 * float(size) + 100)
            close(logps, case.outputs["truth_f64"], rtol=0, atol=rounding)
            close(entropies, case.outputs["truth_entropy_f64"], rtol=0, atol=2 * rounding)


# --- Exact values --------------------------------------------------------------------------------

ULPS = {"rtol": 4e-15, "atol": 1e-300}  # XLA's exp is good to about a dozen units of 2^-52


def normal(truth):
    """Where the truth is neither zero, subnormal nor beyond the largest float."""
    return np.isfinite(truth) & (np.abs(truth) > 1e-300)


def truths(function):
    for case in golden.cases("truth_mpmath", function):
        yield case, case.inputs, case.outputs


@pytest.mark.parametrize(
    "fn, function",
    [(dpo_loss, "DPO -log"), (dpo_loss, "cDPO"), (robust_dpo_loss, "robust DPO")],
)
def test_truth_of_dpo_losses(fn, function):
    """Rounding u = beta x moves exp(-u) by |u| units; smoothed losses add two logs, so their errors
    are relative to the larger one."""
    for case, x, truth in truths(function):
        if not case.function.startswith(function):
            continue
        beta, e = case.args["beta"], case.args.get("label_smoothing", 0.0)

        def losses(margin, beta=beta, e=e):
            zero = jnp.zeros_like(margin)
            return fn(*pairs(margin, zero, zero, zero), beta=beta, label_smoothing=e)

        [(_, values, (slopes,))] = by_case(losses, [case], names("margin"))
        unit = 2.0**-53 * (np.abs(beta * x["margin"]) + 40)
        for ours, exact, scale in ((values, truth["loss"], 0.1), (slopes, truth["grad"], beta)):
            error = np.abs(ours - exact)
            bound = unit * np.maximum(np.abs(exact), scale * (e > 0))
            assert (error <= bound)[normal(exact)].all()


def test_truth_of_the_logistic_function():
    """The Bradley-Terry loss is softplus(-x)."""
    for _, x, truth in truths("log_sigmoid"):
        at = x["x"] if "x" in x else x["x32"]
        ours = -bradley_terry_loss(at)
        close(ours, truth["log_sigmoid"], normal(truth["log_sigmoid"]), **ULPS)
        slope = jax.jit(jax.grad(lambda d: -bradley_terry_loss(d).sum()))(at)
        close(slope, truth["dlog_sigmoid"], normal(truth["dlog_sigmoid"]), **ULPS)


def test_truth_of_the_kl_estimators():
    """Disagreement saturation."""
    for _, x, truth in truths("KL estimators"):
        d, zero = x["d"], np.zeros_like(x["d"])
        close(k1(d, zero), truth["k1"], **ULPS)
        close(k2(d, zero), truth["k2"], normal(truth["k2"]), **ULPS)
        within = normal(truth["k3"]) & (d > -354)
        close(k3(d, zero), truth["k3"], within, **ULPS)
        slopes = jax.jit(jax.grad(lambda d, z=zero: k3(d, z).sum()))(d)
        close(slopes, truth["dk3"], normal(truth["dk3"]) & (d > -354), rtol=1e-14)
        assert np.isfinite(k3(d, zero)).all() and np.isfinite(slopes).all()


def test_truth_of_the_clipped_loss():
    for case, x, truth in truths("PPO"):
        log_ratio, advantages = x["log_ratio"], x["advantages"]
        zero, clip = np.zeros_like(log_ratio), case.args["epsilon"]

        def losses(logps, zero=zero, advantages=advantages, clip=clip):
            return ppo_policy_loss(logps, zero, advantages, clip_range=clip)

        within = np.isfinite(truth["loss"]) & (log_ratio < 354)
        close(losses(log_ratio), truth["loss"], within, **ULPS)
        grads = jax.jit(jax.grad(lambda z, f=losses: f(z).sum()))(log_ratio)
        known = within & np.isfinite(truth["grad_log_ratio"])
        close(grads, truth["grad_log_ratio"], known, **ULPS)
        assert np.isfinite(losses(log_ratio)).all() and np.isfinite(grads).all()


def test_truth_of_log_softmax_and_entropy():
    """Absolute error: one rounding of z - max, and of the sum of 33 exponentials."""
    for _, x, truth in truths("logsumexp"):
        z = x["logits"]
        finite = np.isfinite(truth["log_softmax"])
        size = np.abs(np.where(finite, truth["log_softmax"], 0)).max() + 33
        close(log_softmax(z), truth["log_softmax"], finite, rtol=0, atol=2**-53 * 2 * size)
        close(entropy(z), truth["entropy"], rtol=1e-14, atol=2**-53 * 2 * size)
        assert (np.asarray(log_softmax(z))[~finite] == -np.inf).all()
