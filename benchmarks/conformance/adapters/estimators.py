"""Advantages, returns, whitening, KL estimates and shaped rewards of other libraries."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxalign as ja
from benchmarks.conformance.answers import Answer, Uncovered
from benchmarks.conformance.cases import Case
from jaxalign import (
    adapted_coef,
    batch_scaled_advantages,
    best_of_group_advantages,
    centred_advantages,
    entropy,
    exact_kl,
    greedy_baseline_advantages,
    grpo_advantages,
    k1,
    k2,
    k3,
    leave_one_out_advantages,
    length_weighted_advantages,
    masked_mean,
    masked_variance,
    shaped_rewards,
    vtrace,
    weighted_scores,
    whiten,
)

KNOWN_DISAGREEMENTS = {
    "whitening_epsilon": "TRL, verl and tunix whiten with the unbiased variance plus 1e-8, and all "
    "but TRL count 1e-8 entries more for means; ours is the variance itself",
    "torchtune_centring": "torchtune's shift_mean is inverted: its whitened advantages keep their "
    "mean; it whitens like TRL, but computes n / (n - 1) in float32",
    "torchtune_padding": "torchtune takes rewards and values of masked steps as they come; "
    "whitened as in torchtune_centring",
    "openrlhf_variance_floor": "OpenRLHF whitens each row with a variance of at least 1e-8",
    "trl_whitened_padding": "TRL's whitened rewards are not 0 where they are padding, and enter "
    "its advantages from there; otherwise as whitening_epsilon",
    "holes_are_steps": "TRL, OpenRLHF and torchtune take masked steps between decisions for steps "
    "of reward and value 0; ours skips them",
    "trl_score_one_late": "TRL 0.24 puts the score one step after the last token, if there is room",
    "kl_value_clamps": "OpenRLHF clamps KL estimates, verl k3 and its log-ratio, without gradient "
    "beyond; tunix clamps if told to; ours is the estimate",
    "kl_straight_through": "verl gives the estimate the gradient of k2, OpenRLHF that of k2 times "
    "the ratio to the behaviour policy, capped at 10; ours differentiates what it computes",
    "group_epsilon": "TRL adds 1e-4 to standard deviations of groups and batches, and computes "
    "n / (n - 1) in float32; verl and tunix add 1e-6; ours adds nothing",
    "rlax_second_cap": "rlax caps the ratio of the advantage apart from that of the target; ours "
    "has one cap",
    "trl_weights_float32": "TRL keeps the weights of rewards in float32",
    "verl_lengths_of_nothing": "verl's OPO is NaN for a group without a token; ours is 0",
    "lone_responses_are_left_out": "TRL's RLOO normalises over the batch without the groups of "
    "which one response is left; ours counts their 0; otherwise as group_epsilon",
    "lone_responses": "verl takes the score itself as the advantage of a group's only response; "
    "ours is 0, since its baseline would be itself; otherwise as group_epsilon",
    "gpg_scale": "verl's GPG multiplies by the share of scores that are not 0, inverted; ours is "
    "the deviation from the mean of the group",
    "remax_from_every_token": "verl's ReMax takes the baseline from the reward to come of every "
    "token, whose score may lie behind it; ours is one advantage a response",
    "single_precision": "OpenRLHF's and tunix's KL estimates are computed in float32",
}

SINGLE = 1e-5
COUNT_EPSILON = 1e-8
VARIANCE_EPSILON = 1e-8


# One compilation for each shape, whatever the discounts.
gae, gae_associative, discounted_returns, lambda_returns = map(
    jax.jit, (ja.gae, ja.gae_associative, ja.discounted_returns, ja.lambda_returns)
)


def _mask(case: Case) -> np.ndarray:
    return np.asarray(case.inputs["mask"]).astype(bool)


def _has_holes(mask: np.ndarray) -> bool:
    """Whether something masked is followed by something unmasked in its row."""
    return bool((mask[:, 1:] & ~mask[:, :-1]).any())


def _single_correction(n):
    """n / (n - 1) as PyTorch divides integers; 0 for n = 1."""
    n = np.asarray(n, np.float32)
    return np.float64(np.divide(n, n - 1, out=np.zeros_like(n), where=n > 1))


def _peer_whitened(x, mask, *, centred=True, count_epsilon=COUNT_EPSILON, correction=None):
    """From our `whiten`, with the epsilons of TRL, verl, tunix and torchtune; masked ones too."""
    n, variance = mask.sum(), masked_variance(x, mask, ddof=0)
    if n == 1 and correction is not None:
        return np.full(mask.shape, np.nan)
    mean = masked_mean(x, mask)
    deviations = jnp.where(mask, whiten(x, mask) * jnp.sqrt(variance), x - mean)
    deviations = jnp.where(variance == 0, x - mean, deviations)
    their_mean = mean * n / (n + count_epsilon)
    spread = (variance + (mean - their_mean) ** 2) * n / (n + count_epsilon)
    correction = n / (n - 1) if correction is None else correction(n)
    scale = jax.lax.rsqrt(spread * correction + VARIANCE_EPSILON)
    return (deviations + mean - their_mean) * scale + (0 if centred else their_mean)


# --- Returns and advantages of steps ---------------------------------------------------------


def episodes(case: Case):
    """Time-major; the value of the true successor is given at every step."""
    x = {name: np.asarray(value, np.float64).T for name, value in case.inputs.items()}
    ends = {
        "terminations": x["terminated"].astype(bool),
        "truncations": x["truncated"].astype(bool),
        "final_values": x["next_values"],
        "bootstrap_values": x["last_value"],
    }
    everywhere = np.ones(x["rewards"].shape, bool)
    steps = (x["rewards"], x["values"], everywhere)
    advantages, returns = gae(*steps, **case.args, **ends)
    again, _ = gae_associative(*steps, **case.args, **ends)
    np.testing.assert_allclose(again, advantages, rtol=1e-12, atol=1e-12)
    outputs = {"advantages": advantages.T, "returns": returns.T}
    single = case.info.get("dtype") == "float32"
    return Answer(
        {k: outputs[k] for k in case.outputs},
        tolerance=SINGLE if single else 1e-10,
        # Running sums in float32 lose digits of their largest member.
        floor=max(1.0, float(np.abs(advantages).max(initial=0))) if single else 1.0,
    )


TORCHTUNE = {"count_epsilon": 0.0, "correction": _single_correction}


def _response_gae(lambda_name, *, skips=True, zeroes=True, centred=True, **whitening):
    """Of the tokens of responses; advantages are whitened, returns are not."""

    def adapter(case: Case):
        mask, args = _mask(case), case.args
        given = [case.inputs[k] for k in ("rewards", "values")]
        rewards, values = (np.where(mask, x, 0) for x in given)
        known = {"advantages": "whitening_epsilon" if centred else "torchtune_centring"}
        steps = mask
        if not skips and _has_holes(mask):
            steps, known = np.ones_like(mask), dict.fromkeys(case.outputs, "holes_are_steps")
        if not zeroes and any((x[~mask] != 0).any() for x in given):
            steps, (rewards, values) = np.ones_like(mask), given
            known = dict.fromkeys(case.outputs, "torchtune_padding")
        if args.get("whiten_rewards"):
            rewards = _peer_whitened(rewards, mask, centred=False, **whitening)
            steps, known = np.ones_like(mask), dict.fromkeys(case.outputs, "trl_whitened_padding")
        settings = {"gamma": args["gamma"], "gae_lambda": args[lambda_name]}
        advantages, returns = gae(rewards, values, steps, **settings)
        whitened = _peer_whitened(advantages, mask, centred=centred, **whitening)
        return Answer(
            {"advantages": whitened, "returns": returns},
            known=known,
            where={"advantages": mask, "returns": mask},
        )

    return adapter


def verl_reinforce_plus_plus(case: Case):
    mask = _mask(case)
    returns = discounted_returns(case.inputs["rewards"], mask, gamma=case.args["gamma"])
    whitened = jnp.where(mask, _peer_whitened(returns, mask), 0)
    return Answer(
        {"advantages": whitened, "returns": returns},
        known={"advantages": "whitening_epsilon"},
        where={"returns": mask},
    )


def rlax_lambda_returns(case: Case):
    row = slice(case.args["row"], case.args["row"] + 1)
    rewards, values = case.inputs["rewards"][row], case.inputs["values"][row]
    settings = {"gamma": case.args["gamma"], "trace_lambda": case.args["lambda_"]}
    returns = lambda_returns(rewards, values, np.ones(rewards.shape, bool), **settings)
    return Answer({"returns": returns[0]})


def rlax_vtrace(case: Case):
    """rlax has a second cap of rho, for the advantage."""
    x, args = case.inputs, case.args
    row = slice(args["row"], args["row"] + 1)
    values, rewards = x["values"][row], x["rewards"][row]
    settings = {"gamma": args["gamma"], "trace_lambda": args["lambda_"]}
    cap, other = (args.get(f"clip_{k}rho_threshold", 1.0) for k in ("", "pg_"))
    if args.get("stop_target_gradients", True) is not True:
        return Uncovered("ours has no gradient")
    log_ratios = x["logprobs"][row] - x["old_logprobs"][row]
    mask = np.ones(values.shape, bool)
    advantages, targets = vtrace(log_ratios, rewards, values, mask, rho_clip=cap, **settings)
    clipped, again = (np.exp(np.minimum(log_ratios, np.log(c))) for c in (cap, other))
    known = {} if cap == other else {"pg_advantage": "rlax_second_cap"}
    errors = advantages / np.where(clipped > 0, clipped, 1)
    outputs = {
        "errors": targets - values,
        "pg_advantage": errors * again if known else advantages,
        "q_estimate": errors + values,
    }
    kept = clipped[0] > 1e-4  # else the quotient has no digits left
    return Answer(
        {name: outputs[name][0] for name in case.outputs},
        known=known,
        where={"q_estimate": kept, "pg_advantage": kept if known else True},
    )


# --- Whitening -------------------------------------------------------------------------------


def _whitening(*, inverted=False, **whitening):
    def adapter(case: Case):
        mask = _mask(case)
        centred = case.args.get("shift_mean", True) != inverted
        rewards = np.where(mask, case.inputs["rewards"], 0)
        ours = _peer_whitened(rewards, mask, centred=centred, **whitening)
        key = "torchtune_centring" if inverted else "whitening_epsilon"
        return Answer({"out": ours}, known={"out": key}, where={"out": mask})

    return adapter


def openrlhf_normalised(case: Case):
    mask, rewards = _mask(case), case.inputs["rewards"]
    if case.args.get("dim") is None:
        rows = (rewards.reshape(1, -1), mask.reshape(1, -1))
    elif case.args["dim"] in (1, -1):
        rows = (rewards, mask)
    else:
        return Uncovered("statistics of columns")
    whitened = jax.vmap(whiten)(*rows)
    variances = jax.vmap(lambda x, m: masked_variance(x, m, ddof=0))(*rows)
    floor = np.maximum(variances, case.args.get("eps", 1e-8))
    ours = (whitened * np.sqrt(variances / floor)[:, None]).reshape(mask.shape)
    return Answer({"out": ours}, known={"out": "openrlhf_variance_floor"}, where={"out": mask})


# --- KL and rewards --------------------------------------------------------------------------

ESTIMATORS = {"k1": k1, "kl": k1, "k2": k2, "mse": k2, "mse_kl": k2, "k3": k3, "low_var_kl": k3}


def _absolute(policy, reference):
    """Its slope at 0 is 0."""
    difference = k1(policy, reference)
    return jnp.maximum(difference, -difference)


def _clamped(x, bound):
    """No gradient beyond the bound."""
    return jnp.where(jnp.abs(x) <= bound, x, jax.lax.stop_gradient(jnp.clip(x, -bound, bound)))


def _values_and_slopes(fn, at, other):
    """Of an elementwise function, on arrays of one length so that each compiles once."""
    size = np.size(at)
    rows = [np.pad(np.ravel(x), (0, -size % 512)) for x in (at, other)]
    values, slope_of = jax.vjp(lambda x: fn(x, rows[1]), jnp.asarray(rows[0]))
    (slopes,) = slope_of(jnp.ones_like(values))
    return (np.asarray(x)[:size].reshape(np.shape(at)) for x in (values, slopes))


def verl_kl(case: Case):
    kind, straight = case.args["kl_penalty"].removesuffix("+"), case.args["kl_penalty"][-1] == "+"
    estimator = {**ESTIMATORS, "abs": _absolute}.get(kind)
    if estimator is None:
        return Uncovered(f"no estimator of one sample: {kind}")
    reference = case.inputs["ref_logprobs"]

    def estimate(logps, reference):
        if estimator is not k3:
            return estimator(logps, reference)
        difference = _clamped(k1(logps, reference), 20)
        return _clamped(k3(difference, jnp.zeros_like(difference)), 10)

    values, slopes = _values_and_slopes(estimate, case.inputs["logprobs"], reference)
    known = dict.fromkeys(case.outputs, "kl_value_clamps") if estimator is k3 else {}
    if straight:
        _, slopes = _values_and_slopes(k2, case.inputs["logprobs"], reference)
        known |= {"grad_logprobs_of_sum": "kl_straight_through"}
    return Answer({"kl": values, "grad_logprobs_of_sum": slopes}, known=known)


def _single(x):
    return np.asarray(x, np.float32).astype(np.float64)


def openrlhf_kl(case: Case):
    estimator = ESTIMATORS[case.args["kl_estimator"]]
    x = {name: _single(value) for name, value in case.inputs.items()}
    logps, reference = x["logprobs"], x["ref_logprobs"]
    values, slopes = _values_and_slopes(
        lambda p, q: _clamped(estimator(p, q), 10), logps, reference
    )
    known = dict.fromkeys(case.outputs, "kl_value_clamps")
    if case.args.get("unbiased_gradient"):
        ratios = np.minimum(np.exp(logps - x["old_logprobs"]), 10)
        _, slopes = _values_and_slopes(k2, logps, reference)
        slopes = ratios * slopes
        known["grad_logprobs_of_sum"] = "kl_straight_through"
    return Answer({"kl": values, "grad_logprobs_of_sum": slopes}, known=known, tolerance=SINGLE)


def tunix_kl(case: Case):
    estimator = ESTIMATORS[case.args["method"]]
    x = {name: _single(value) for name, value in case.inputs.items()}
    clamp, known = case.args.get("clamp_value"), "single_precision"
    reference = x["ref_logprobs"]
    values, _ = _values_and_slopes(estimator, x["logprobs"], reference)
    within = np.abs(values) < np.finfo(np.float32).max
    if clamp is not None:
        values, known, within = np.clip(values, -clamp, clamp), "kl_value_clamps", True
    # exp(d) has the relative error of d's rounding.
    steepest = float(np.abs(x["logprobs"] - reference).max(initial=0))
    tolerance = SINGLE + min(steepest, 89.0) * 2.0**-23
    return Answer({"kl": values}, known={"kl": known}, tolerance=tolerance, where={"kl": within})


def trl_rewards(case: Case):
    x, mask, coef = case.inputs, _mask(case), case.args["kl_coef"]
    kinds = {"kl": k1, "abs": _absolute, "mse": k2}
    if case.args["kl_penalty"] not in kinds:
        return Uncovered("the exact KL needs logits")
    kl = kinds[case.args["kl_penalty"]](x["logprobs"], x["ref_logprobs"])
    none = jnp.zeros_like(x["scores"])
    return Answer(
        {
            "rewards": shaped_rewards(x["scores"], kl, mask, kl_coef=coef),
            "non_score_rewards": shaped_rewards(none, kl, mask, kl_coef=coef),
            "kl": kl,
        },
        where={"rewards": mask, "non_score_rewards": mask},
    )


def openrlhf_rewards(case: Case):
    x, mask = case.inputs, _mask(case)
    scores = x["scores"]
    if case.args.get("reward_clip_range") is not None:
        scores = np.clip(scores, *case.args["reward_clip_range"])
    kl = k1(x["logprobs"], x["ref_logprobs"])
    rewards = shaped_rewards(scores, kl, mask, kl_coef=case.args["kl_coef"])
    return Answer({"rewards": rewards}, where={"rewards": mask})


def torchtune_rewards(case: Case):
    x, mask, coef = case.inputs, _mask(case), case.args["kl_coeff"]
    kl = k1(x["logprobs"], x["ref_logprobs"])
    return Answer(
        {
            "rewards": shaped_rewards(x["scores"], kl, mask, kl_coef=coef),
            "kl": kl,
            "kl_reward": shaped_rewards(jnp.zeros_like(x["scores"]), kl, mask, kl_coef=coef),
        },
        where={"rewards": mask, "kl_reward": mask},
    )


def trl_trace(case: Case):
    """One update of TRL 0.24: the step after the last token counts as one, for the score."""
    x, args = {k: np.asarray(v) for k, v in case.inputs.items()}, case.args
    mask, steps = ~x["padding_mask"].astype(bool), ~x["padding_mask_p1"].astype(bool)
    scores, values = (x[k].astype(np.float64) for k in ("scores", "values"))
    logps, reference = (x[k].astype(np.float64) for k in ("logprobs", "ref_logprobs"))
    kl = ESTIMATORS[args["kl_estimator"]](logps, reference)
    charges = shaped_rewards(np.zeros_like(scores), kl, mask, kl_coef=args["kl_coef"])
    late = shaped_rewards(scores, np.zeros_like(kl), steps, kl_coef=0.0)
    rewards, known = charges + late, "trl_score_one_late"
    if args["whiten_rewards"]:
        rewards = _peer_whitened(rewards, steps, centred=False, count_epsilon=0.0)
        rewards = jnp.where(steps, rewards, 0)
    settings = {"gamma": args["gamma"], "gae_lambda": args["lam"]}
    advantages, returns = gae(rewards, values, steps, **settings)
    whitened = jnp.where(mask, _peer_whitened(advantages, mask, count_epsilon=0.0), 0)
    return Answer(
        {
            "kl": kl,
            "non_score_reward": charges,
            "rewards": rewards,
            "advantages": whitened,
            "returns": returns,
        },
        known=dict.fromkeys(("rewards", "advantages", "returns"), known),
        where={"kl": mask, "non_score_reward": mask, "returns": steps},
        tolerance=SINGLE,
    )


def trl_controller(case: Case):
    args, coef, found = case.args, jnp.float64(case.args["init_kl_coef"]), []
    settings = {name: args[name] for name in ("target", "horizon")}
    for kl in args["current"]:
        coef = adapted_coef(coef, jnp.float64(kl), batch_size=args["n_steps"], **settings)
        found.append(coef)
    return Answer({"values": np.array(found)})


# --- Groups ----------------------------------------------------------------------------------


class Groups:
    """Rows of a batch as `[P, G]`, a row for each group, whatever their order and sizes."""

    def __init__(self, groups):
        _, self.prompt = np.unique(np.asarray(groups).ravel(), return_inverse=True)
        sizes = np.bincount(self.prompt)
        self.place = np.zeros_like(self.prompt)
        for prompt in range(sizes.size):
            self.place[self.prompt == prompt] = np.arange(sizes[prompt])
        self.mask = np.arange(sizes.max()) < sizes[:, None]

    def rows(self, x):
        """`[B]` as `[P, G]`, 0 where there is nothing."""
        table = np.zeros(self.mask.shape, np.asarray(x).dtype)
        table[self.prompt, self.place] = x
        return table

    def flat(self, table):
        """`[P, G]` as `[B]`."""
        return np.asarray(table)[self.prompt, self.place]


def _group_deviations(scores, mask):
    """`[P, 1]`, unbiased; 0 for groups of one."""
    return np.sqrt(jax.vmap(lambda s, m: masked_variance(s, m, ddof=1))(scores, mask))[:, None]


def _trl_deviations(scores, mask):
    """`_group_deviations` with TRL's correction."""
    variances = jax.vmap(lambda s, m: masked_variance(s, m, ddof=0))(scores, mask)
    return np.sqrt(variances * _single_correction(mask.sum(axis=1)))[:, None]


def _trl_deviation(x, mask):
    """Of the whole batch."""
    return _trl_deviations(x.reshape(1, -1), mask.reshape(1, -1))[0, 0]


def _softened(advantages, deviations, divisors):
    """Standardised by other divisors than the deviations; 0 where those are 0."""
    return advantages * deviations / np.where(divisors > 0, divisors, 1)


def _roundings(x, divisors):
    """What `Answer.sizes` allows for: 16 units of the largest number of a row, divided."""
    return np.abs(x).max(axis=-1, keepdims=True) / divisors * (16 * 2.0**-53 / 1e-10)


def _grpo(scores, mask, lengths, args, epsilon=1e-6):
    if not args.get("norm_adv_by_std_in_grpo", True):
        return centred_advantages(scores, mask)
    deviations = _group_deviations(scores, mask)
    divisors = deviations + args.get("epsilon", epsilon)
    return _softened(grpo_advantages(scores, mask), deviations, divisors)


def _gpg(scores, mask, lengths, args):
    share = mask.sum() / max(np.count_nonzero(scores[mask]), 1)
    return share * centred_advantages(scores, mask) / args.get("f_norm", 1.0)


def _best(scores, mask, lengths, args):
    ours = best_of_group_advantages(scores, mask)
    if not args.get("norm_adv_by_std_in_grpo", True):
        return ours
    return ours / (_group_deviations(scores, mask) + args.get("epsilon", 1e-6))


def _centred(scores, mask, lengths, args):
    return centred_advantages(scores, mask)


def _leave_one_out(scores, mask, lengths, args):
    return leave_one_out_advantages(scores, mask)


def _length_weighted(scores, mask, lengths, args):
    return length_weighted_advantages(scores, lengths, mask)


def _verl_group(fn, key="", *, lone_keeps=None):
    """`lone_keeps`: what of its score a group's only response keeps."""

    def adapter(case: Case):
        tokens, groups = _mask(case), Groups(case.inputs["group"])
        scores = groups.rows(case.inputs["scores"])
        advantages = fn(scores, groups.mask, groups.rows(tokens.sum(axis=1)), case.args)
        known = {"advantages": key} if key else {}
        lone = groups.mask.sum(axis=1) == 1
        if lone_keeps is not None and lone.any():
            kept = scores * lone_keeps(scores, groups.mask, case.args)
            advantages = np.where(lone[:, None], kept, advantages)
            known = {"advantages": "lone_responses"}
        sizes = {}
        if key == "group_epsilon":
            divisors = _group_deviations(scores, groups.mask) + case.args.get("epsilon", 1e-6)
            sizes = np.broadcast_to(_roundings(scores, divisors), scores.shape)
            sizes = {"advantages": groups.flat(sizes)[:, None]}
        where = np.ones(len(tokens), bool)
        if fn is _length_weighted:
            empty = (groups.rows(tokens.sum(axis=1)).sum(axis=1) == 0) & ~lone
            where = ~groups.flat(np.broadcast_to(empty[:, None], scores.shape))
            known = known if where.all() else {"advantages": "verl_lengths_of_nothing"}
        ours = groups.flat(advantages)[:, None] * tokens
        where = {"advantages": where[:, None]}
        return Answer({"advantages": ours}, known=known, sizes=sizes, where=where)

    return adapter


def _verl_grpo_lone(scores, mask, args):
    scaled = args.get("norm_adv_by_std_in_grpo", True)
    # The deviation of a group of one is a float32 one.
    return 1 / _single(1 + np.float32(args.get("epsilon", 1e-6))) if scaled else 1.0


def _verl_gpg_lone(scores, mask, args):
    return mask.sum() / max(np.count_nonzero(scores[mask]), 1) / args.get("f_norm", 1.0)


def verl_reinforce_plus_plus_baseline(case: Case):
    """The deviation from the mean of the group on every token, then whitened over tokens."""
    tokens, groups = _mask(case), Groups(case.inputs["group"])
    scores = groups.rows(case.inputs["scores"])
    centred, key = centred_advantages(scores, groups.mask), "whitening_epsilon"
    lone = groups.mask.sum(axis=1) == 1
    if lone.any():
        centred, key = np.where(lone[:, None], scores, centred), "lone_responses"
    rewards = shaped_rewards(groups.flat(centred), np.zeros(tokens.shape), tokens, kl_coef=0.0)
    returns = discounted_returns(rewards, tokens, gamma=1.0)
    whitened = jnp.where(tokens, _peer_whitened(returns, tokens), 0)
    return Answer({"advantages": whitened}, known={"advantages": key})


def verl_remax(case: Case):
    """The score lies on token 0: there the two agree."""
    mask, scores, baselines = _mask(case), case.inputs["scores"], case.inputs["baselines"]
    ours = greedy_baseline_advantages(scores[:, None], baselines, np.ones((len(scores), 1), bool))
    behind = np.arange(mask.shape[1]) > 0
    spread = np.where(behind, ours - scores[:, None], ours) * mask
    rewards = np.where(behind, 0, scores[:, None])
    return Answer(
        {"advantages": spread, "returns": discounted_returns(rewards, mask, gamma=1.0)},
        known={"advantages": "remax_from_every_token"},
    )


def _consecutive(fn, key=""):
    def adapter(case: Case):
        scores = np.reshape(case.inputs["scores"], (-1, case.args["num_generations"]))
        ours = fn(scores, np.ones(scores.shape, bool), None, case.args)
        shape = case.outputs["advantages"].shape
        known = {"advantages": key} if key else {}
        sizes = _roundings(scores, _group_deviations(scores, np.ones(scores.shape, bool)) + 1e-6)
        sizes = np.reshape(np.broadcast_to(sizes, scores.shape), shape) if key else 0.0
        return Answer(
            {"advantages": np.reshape(ours, shape)}, known=known, sizes={"advantages": sizes}
        )

    return adapter


def _summed_scores(case: Case):
    """Scores and mask, `[P, G]`."""
    shape = (-1, case.args["num_generations"])
    weights = _single(case.args["reward_weights"])
    scores, mask = weighted_scores(case.inputs["rewards_per_func"].T, weights)
    return scores.reshape(shape), mask.reshape(shape)


TRL_EPSILON = 1e-4


def _trl_standardised(scores, mask):
    divisors = _trl_deviations(scores, mask) + TRL_EPSILON
    return _softened(grpo_advantages(scores, mask), _group_deviations(scores, mask), divisors)


def trl_grpo(case: Case):
    if case.args.get("multi_objective_aggregation") == "normalize_then_sum":
        return _trl_gdpo(case)
    scores, mask = _summed_scores(case)
    kind, known = case.args["scale_rewards"], {"advantages": "group_epsilon"}
    divisors = 1.0
    if kind == "group":
        divisors = _trl_deviations(scores, mask) + TRL_EPSILON
        ours = _trl_standardised(scores, mask)
    elif kind == "batch":
        deviation = np.sqrt(masked_variance(scores, mask, ddof=1))
        divisors = _trl_deviation(scores, mask) + TRL_EPSILON
        ours = _softened(batch_scaled_advantages(scores, mask), deviation, divisors)
    else:
        ours, known = centred_advantages(scores, mask), {}
    sizes = np.broadcast_to(_roundings(scores, divisors), scores.shape)
    return Answer(
        {"advantages": np.ravel(ours)},
        known=_weighted(case, known),
        sizes={"advantages": np.ravel(sizes)},
    )


def _weighted(case: Case, known: dict) -> dict:
    """Names the rounding of the weights where it changes any."""
    weights = case.args["reward_weights"]
    if (_single(weights) == weights).all():
        return known
    keys = [*filter(None, [known.get("advantages")]), "trl_weights_float32"]
    return {"advantages": " + ".join(keys)}


def _batch_normalised(x, mask):
    deviation = np.sqrt(masked_variance(x, mask, ddof=0))
    return _softened(whiten(x, mask), deviation, _trl_deviation(x, mask) + TRL_EPSILON)


def _trl_gdpo(case: Case):
    """`decoupled_advantages`, with an epsilon at each of its steps."""
    each = case.inputs["rewards_per_func"].T
    each = each.reshape(len(each), -1, case.args["num_generations"])
    given = ~np.isnan(each)
    standardised = [
        _trl_standardised(np.where(m, s, 0), m) for s, m in zip(each, given, strict=True)
    ]
    weights = _single(case.args["reward_weights"])
    total, mask = weighted_scores(np.where(given, np.stack(standardised), np.nan), weights)
    ours = np.ravel(_batch_normalised(total, mask))
    sizes = sum(
        abs(w) * _roundings(np.where(m, s, 0), _trl_deviations(np.where(m, s, 0), m) + TRL_EPSILON)
        for w, s, m in zip(weights, each, given, strict=True)
    )
    sizes = np.max(sizes) / (_trl_deviation(total, mask) + TRL_EPSILON)
    return Answer(
        {"advantages": ours},
        known=_weighted(case, {"advantages": "group_epsilon"}),
        sizes={"advantages": sizes},
    )


def trl_rloo(case: Case):
    """The sum of k1 of a response is part of its score."""
    x, args = case.inputs, case.args
    scores, mask = _summed_scores(case)
    tokens = np.asarray(x["mask"]).astype(bool)
    if args.get("reward_clip_range") is not None:
        scores = np.clip(scores, *args["reward_clip_range"])
    kl = jnp.where(tokens, k1(x["old_per_token_logps"], x["ref_per_token_logps"]), 0).sum(axis=1)
    scores = scores - args.get("beta", 0.0) * kl.reshape(scores.shape)
    advantages, known, sizes = leave_one_out_advantages(scores, mask), {}, {}
    if args.get("normalize_advantages"):
        several = mask & (mask.sum(axis=1, keepdims=True) > 1)
        left_out = bool((mask != several).any())
        divisor = _trl_deviation(advantages, several) + TRL_EPSILON
        sizes = {"advantages": np.max(_roundings(np.ravel(scores), divisor))}
        advantages = _batch_normalised(advantages, several)
        key = "lone_responses_are_left_out" if left_out else "group_epsilon"
        known = {"advantages": key}
    return Answer(
        {
            "advantages": np.ravel(advantages),
            "old_logps": jnp.where(tokens, x["old_per_token_logps"], 0).sum(axis=1),
        },
        known=_weighted(case, known),
        sizes=sizes,
    )


def distrax_categorical(case: Case):
    logits = case.inputs["logits"]
    rolled = np.roll(logits, 1, axis=0)
    return Answer({"entropy": entropy(logits), "kl_to_rolled": exact_kl(logits, rolled)})


ADAPTERS = {
    "torchrl.objectives.value.functional.generalized_advantage_estimate": episodes,
    "stable_baselines3.common.buffers.RolloutBuffer.compute_returns_and_advantage": episodes,
    "trl.GRPOTrainer._generate_and_score_completions": trl_grpo,
    "trl.RLOOTrainer._generate_and_score_completions": trl_rloo,
    "trl.PPOTrainer.train (frame)": trl_trace,
    "trl.PPOTrainer.compute_rewards": trl_rewards,
    "trl.PPOTrainer.compute_advantages": _response_gae("lam", skips=False, count_epsilon=0.0),
    "trl.core.masked_whiten": _whitening(count_epsilon=0.0),
    "trl.AdaptiveKLController": trl_controller,
    "verl compute_gae_advantage_return": _response_gae("lam"),
    "verl compute_reinforce_plus_plus_outcome_advantage": verl_reinforce_plus_plus,
    "verl kl_penalty": verl_kl,
    "verl advantage grpo": _verl_group(_grpo, "group_epsilon", lone_keeps=_verl_grpo_lone),
    "verl advantage dr_grpo": _verl_group(_grpo, lone_keeps=_verl_grpo_lone),
    "verl advantage rloo": _verl_group(_leave_one_out, lone_keeps=lambda *_: 1.0),
    "verl advantage rloo_vectorized": _verl_group(_leave_one_out),
    "verl advantage opo": _verl_group(_length_weighted, lone_keeps=lambda *_: 1.0),
    "verl advantage gpg": _verl_group(_gpg, "gpg_scale", lone_keeps=_verl_gpg_lone),
    "verl advantage grpo_passk": _verl_group(_best, "group_epsilon"),
    "verl advantage reinforce_plus_plus_baseline": verl_reinforce_plus_plus_baseline,
    "verl advantage remax": verl_remax,
    "openrlhf compute_approx_kl": openrlhf_kl,
    "openrlhf compute_reward": openrlhf_rewards,
    "openrlhf masked_normalize": openrlhf_normalised,
    "torchtune get_rewards_ppo": torchtune_rewards,
    "torchtune estimate_advantages": _response_gae(
        "lmbda", skips=False, zeroes=False, centred=False, **TORCHTUNE
    ),
    "torchtune whiten": _whitening(inverted=True, **TORCHTUNE),
    "tunix compute_gae_advantages": _response_gae("gae_lambda"),
    "tunix masked_whiten": _whitening(),
    "tunix compute_kl_divergence": tunix_kl,
    "tunix advantage grpo": _consecutive(_grpo, "group_epsilon"),
    "tunix advantage rloo": _consecutive(_leave_one_out),
    "tunix advantage drgrpo": _consecutive(_centred),
    "rlax.truncated_generalized_advantage_estimation": episodes,
    "rlax.lambda_returns": rlax_lambda_returns,
    "rlax.vtrace_td_error_and_advantage": rlax_vtrace,
    "distrax.Categorical": distrax_categorical,
}
