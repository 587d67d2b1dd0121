"""Exact values (mpmath), log-probabilities and reward model losses."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.conformance.answers import Answer, Uncovered
from benchmarks.conformance.cases import Case
from jaxalign import (
    PairLogps,
    action_logps,
    bradley_terry_loss,
    centering_penalty,
    dpo_loss,
    entropy,
    grpo_advantages,
    k1,
    k2,
    k3,
    log_softmax,
    masked_variance,
    ppo_policy_loss,
    probability_ratios,
    robust_dpo_loss,
    sequence_logps,
    token_logps,
)
from jaxalign.losses.exo import exo_pair_loss
from jaxalign.losses.f_dpo import alpha_score, forward_kl_score, jensen_shannon_score
from jaxalign.losses.hinge import hinge_loss
from jaxalign.losses.ipo import ipo_loss
from jaxalign.losses.orpo import log_odds

KNOWN_DISAGREEMENTS = {
    "saturation": "ours continues exp(x) in a straight line above 354.9 so that sums stay finite; "
    "the exact value overflows a float",
    "mean_of_nothing": "TRL's average log-probability of an empty response is NaN, and so is its "
    "gradient; ours are 0",
    "trl_half_precision": "TRL computes log-probabilities of bfloat16 logits in bfloat16, off by "
    "up to 120 nats, and of float32 logits as x - logsumexp(x), off by 2e-3; ours is held to the "
    "float64 truth stored beside it",
}

UNIT = 2.0**-53
SMALLEST = 1e-300  # below it floats lose bits


def _normal(case: Case, **also):
    """Where the truth is neither zero, subnormal nor beyond the largest float."""
    return {
        name: np.isfinite(x) & (np.abs(x) > SMALLEST) & also.get(name, True)
        for name, x in case.outputs.items()
    }


def _slopes(fn, x):
    return jax.grad(lambda at: jnp.sum(fn(at)))(x)


def _margins(fn, **settings):
    """A pairwise loss as a function of the margin of log-ratios."""

    def losses(margin):
        zero = jnp.zeros_like(margin)
        pair = PairLogps(chosen=margin, rejected=zero)
        return fn(pair, PairLogps(chosen=zero, rejected=zero), **settings)

    return losses


def truth_of_the_logistic_function(case: Case):
    """tanh, expm1 and log1mexp are jax.numpy's or inside others: nothing of ours to compare."""
    [x] = case.inputs.values()

    def log_sigmoid(at):
        return -bradley_terry_loss(at)

    def softplus(at):
        return bradley_terry_loss(-at)

    slope = _slopes(log_sigmoid, x)
    rise = _slopes(softplus, x)
    return Answer(
        {
            "log_sigmoid": log_sigmoid(x),
            "dlog_sigmoid": slope,
            "d2log_sigmoid": _slopes(lambda at: _slopes(log_sigmoid, at), x),
            "sigmoid": rise,
            "softplus": softplus(x),
            "dsoftplus": rise,
        },
        tolerance=4e-15,
        floor=SMALLEST,
        where=_normal(case, d2log_sigmoid=np.abs(case.outputs["d2log_sigmoid"]) > 0.1),
    )


def _truth_of(fn):
    def adapter(case: Case):
        """Rounding u = beta x moves exp(-u) by |u| units."""
        margin = case.inputs["margin"]
        losses = _margins(fn, **case.args)
        size = np.abs(case.args["beta"] * margin).max()
        outputs = {"loss": losses(margin)}
        if "grad" in case.outputs:
            outputs["grad"] = _slopes(losses, margin)
        smoothed = case.args.get("label_smoothing", 0) > 0
        return Answer(
            outputs,
            tolerance=UNIT * (min(size, 745) + 40),
            floor=0.1 if smoothed else SMALLEST,
            where=_normal(case),
        )

    return adapter


def truth_of_margins(case: Case):
    """The halves of KTO and APO are 1 - sigmoid(beta x), DPO's gradient over -beta."""
    beta, margin = case.args["beta"], case.inputs["margin"]

    def half(at):
        return -_slopes(_margins(dpo_loss, beta=beta), at) / beta

    return Answer(
        {
            "hinge": _margins(hinge_loss, beta=beta)(margin),
            "ipo": _margins(ipo_loss, beta=beta)(margin),
            "one_minus_sigmoid": half(margin),
            "d_one_minus_sigmoid": _slopes(half, margin),
        },
        tolerance=UNIT * 100,
    )


def truth_of_the_kl_estimators(case: Case):
    d, zero = case.inputs["d"], np.zeros_like(case.inputs["d"])
    below = d > -354
    return Answer(
        {
            "k1": k1(d, zero),
            "k2": k2(d, zero),
            "k3": k3(d, zero),
            "dk2": _slopes(lambda at: k2(at, zero), d),
            "dk3": _slopes(lambda at: k3(at, zero), d),
            "k3_other_direction": k3(zero, d),
        },
        known={"k3": "saturation", "dk3": "saturation", "k3_other_direction": "saturation"},
        tolerance=1e-14,
        floor=SMALLEST,
        where=_normal(case, k3=below, dk3=below, k3_other_direction=d < 354),
    )


def truth_of_the_clipped_loss(case: Case):
    x, advantages = case.inputs["log_ratio"], case.inputs["advantages"]
    zero, within = np.zeros_like(x), x < 354

    def losses(logps):
        return ppo_policy_loss(logps, zero, advantages, clip_range=case.args["epsilon"])

    outputs = {
        "ratio": probability_ratios(x, zero),
        "loss": losses(x),
        "grad_log_ratio": _slopes(losses, x),
    }
    return Answer(
        outputs,
        known=dict.fromkeys(outputs, "saturation"),
        tolerance=4e-15,
        where=dict.fromkeys(outputs, within),
    )


def truth_of_log_softmax(case: Case):
    """One rounding of z - max, and of the sum of exponentials; logsumexp is z - log_softmax."""
    z = case.inputs["logits"]
    ours = log_softmax(z)
    top = z.argmax(axis=-1)[..., None]
    peak = np.take_along_axis(z, top, -1) - np.take_along_axis(np.asarray(ours), top, -1)
    return Answer(
        {"log_softmax": ours, "entropy": entropy(z), "logsumexp": peak[..., 0]},
        tolerance=UNIT * 4 * z.shape[-1],
    )


def truth_of_log_odds(case: Case):
    chosen, rejected = case.inputs["chosen_logps"], case.inputs["rejected_logps"]

    def losses(at):
        return bradley_terry_loss(log_odds(at) - log_odds(rejected))

    slopes = _slopes(losses, chosen)
    return Answer(
        {
            "log_odds": log_odds(chosen) - log_odds(rejected),
            "loss": losses(chosen),
            "dloss_dchosen": slopes,
        },
        tolerance=1e-13,
    )


def truth_of_scores(case: Case):
    """The truth counts alpha as TRL 1.16 does: ours is 1 - alpha. JS: log(2t/(1+t))."""
    u = case.inputs["u"]
    below = np.abs(u) < 354
    return Answer(
        {
            "forward_kl": forward_kl_score(u),
            "js": jensen_shannon_score(u),
            "alpha": alpha_score(u, alpha=1 - case.args["alpha"]),
        },
        known={"forward_kl": "saturation", "alpha": "saturation"},
        tolerance=1e-14,
        where={"forward_kl": below, "alpha": below},
    )


def truth_of_group_advantages(case: Case):
    """The truth adds TRL's epsilon to the deviation; ours adds nothing."""
    rewards, epsilon = case.inputs["rewards"], case.args["eps"]
    mask = np.ones(rewards.shape, bool)
    variances = jax.vmap(lambda row, m: masked_variance(row, m, ddof=1))(rewards, mask)
    deviations = np.sqrt(variances)[:, None]
    ours = grpo_advantages(rewards, mask) * deviations / (deviations + epsilon)
    theirs = case.outputs["std"]
    return Answer(
        {"advantages": ours, "std": np.reshape(deviations, theirs.shape)},
        known={"advantages": "group_epsilon"},
        # Rewards far from 0 lose the digits of their mean.
        tolerance=UNIT * 100 * max(1.0, float(np.abs(rewards).max())),
    )


def reward_losses(case: Case):
    rewards, margin = case.inputs["rewards"], case.inputs.get("margin")
    coef = case.args["center_rewards_coefficient"] or 0.0

    def loss(at):
        chosen, rejected = jnp.split(at, 2)
        margins = jnp.zeros_like(chosen) if margin is None else margin
        losses = bradley_terry_loss(chosen - rejected, margins=margins)
        return jnp.mean(losses + coef * centering_penalty(chosen, rejected))

    value, slopes = jax.value_and_grad(loss)(rewards)
    return Answer({"loss": value, "grad_rewards": slopes}, tolerance=1e-14)


def batch_logps(case: Case):
    """Unshifted labels, -100 where masked: the shift is inside."""
    labels, theirs = case.inputs["labels"], case.outputs["logps"]
    mask = labels != -100
    mask[:, 0] = False
    lengths = np.maximum(mask.sum(axis=1), 1) if case.args["average_log_prob"] else 1

    def logps(logits):
        return sequence_logps(token_logps(logits, np.where(mask, labels, 0)), mask) / lengths

    empty = np.broadcast_to(case.args["average_log_prob"] & ~mask.any(axis=1), theirs.shape)
    names = ("logps", "grad_logits_of_finite_sum")
    return Answer(
        {
            "logps": logps(case.inputs["logits"]),
            "grad_logits_of_finite_sum": _slopes(logps, case.inputs["logits"]),
        },
        known=dict.fromkeys(names, "mean_of_nothing") if empty.any() else {},
        where={"logps": ~empty, "grad_logits_of_finite_sum": ~empty[:, None, None]},
    )


def big_logits(case: Case):
    """The recipe of the manifest: seeded float32 normals, planted values, then rounded."""
    args, ids = case.args, case.inputs["ids"]
    logits = np.random.default_rng(args["seed"]).standard_normal(args["shape"], np.float32)
    logits *= np.float32(args["scale"])
    for b, t, value in args["plant"]:
        logits[b, t, ids[b, t]] = value
    return jnp.asarray(logits, args["dtype"])


def selected_logps(case: Case):
    if "logits" not in case.inputs:
        return _large_vocabulary(case)
    x, temperature = case.inputs, case.args["temperature"]
    counted = x["labels"] != -100

    def logps(logits):
        return jnp.where(counted, action_logps(logits / temperature, x["ids"]), 0)

    def entropies(logits):
        return jnp.where(counted, entropy(logits / temperature), 0)

    return Answer(
        {
            "logps": logps(x["logits"]),
            "entropy": entropies(x["logits"]),
            "grad_logits_of_logps_sum": _slopes(logps, x["logits"]),
            "grad_logits_of_entropy_sum": _slopes(entropies, x["logits"]),
        },
        where={"logps": counted, "entropy": counted},
    )


def _large_vocabulary(case: Case):
    """Ours in float32, from the logits as they are stored, against the float64 truth.

    Bound: dividing by the temperature and z - max round at the size of the logits, twice for
    entropies, and XLA adds the exponentials in lanes and trees of depth far below 100.
    """
    logits, ids = big_logits(case), case.inputs["ids"]
    scaled = logits.astype(jnp.float32) / jnp.float32(case.args["temperature"])
    logps = action_logps(scaled, ids)
    if not (np.asarray(logps) <= 0).all():
        raise ValueError("a log-probability above 0")
    rounding = 2.0**-24 * (4 * float(jnp.abs(scaled).max()) + 100)
    entropies = entropy(scaled)
    for name, ours, bound in (
        ("truth_f64", logps, rounding),
        ("truth_entropy_f64", entropies, 2 * rounding),
    ):
        error = np.abs(np.asarray(ours) - case.outputs[name]).max()
        if not error <= bound:
            raise ValueError(f"{name}: off by {error:.1e} nats, bound {bound:.1e}")
    return Answer(
        {
            "truth_f64": logps,
            "truth_entropy_f64": entropies,
            "checksum_f64": np.asarray(logits, np.float64).sum(),
            "logps": None,
            "entropy": None,
        },
        known={"logps": "trl_half_precision", "entropy": "trl_half_precision"},
        tolerance=2 * rounding,
    )


def end_to_end(case: Case):
    return Uncovered("a whole model trained by the peer's trainer; its parts are compared alone")


ADAPTERS = {
    "log_sigmoid, its derivatives, sigmoid, softplus": truth_of_the_logistic_function,
    "DPO -log sigmoid(beta*x) and its gradient in x": _truth_of(dpo_loss),
    "cDPO -(1-e) log sigmoid(bx) - e log sigmoid(-bx)": _truth_of(dpo_loss),
    "robust DPO (-(1-e) ls(bx) + e ls(-bx))/(1-2e)": _truth_of(robust_dpo_loss),
    "EXO-pair: s(bx)(ls(bx)-log(1-e)) + s(-bx)(ls(-bx)-log e)": _truth_of(exo_pair_loss),
    "hinge max(0,1-bx); IPO (x-1/(2b))^2; apo/KTO halves 1-sigmoid(bx)": truth_of_margins,
    "KL estimators of d = logp - reflogp: k1=d, k2=d^2/2, k3=exp(-d)-1+d; gradients in logp; "
    "k3 with swapped sign": truth_of_the_kl_estimators,
    "PPO -min(r A, clip(r) A), r = exp(log_ratio)": truth_of_the_clipped_loss,
    "logsumexp, log_softmax, entropy over the last axis": truth_of_log_softmax,
    "ORPO log odds ratio (lc-lr) - (log1mexp(lc)-log1mexp(lr)) and -log sigmoid of it": (
        truth_of_log_odds
    ),
    "f-DPO scores f'(t), log t = u: forward_kl 1-1/t (TRL), -1/t (paper, differs by a constant); "
    "JS log(2t/(1+t)); alpha (t^(a-1)-1)/(a-1)": truth_of_scores,
    "group advantage (r-mean)/(std(ddof=1)+1e-4)": truth_of_group_advantages,
    "trl.RewardTrainer.compute_loss": reward_losses,
    "trl.experimental.cpo.CPOTrainer.get_batch_logps": batch_logps,
    "trl.trainer.utils.selective_log_softmax_and_entropy": selected_logps,
    "trl.trainer.utils.selective_log_softmax / selective_log_softmax_and_entropy": selected_logps,
    "trl.DPOTrainer.train": end_to_end,
}
