"""Policy, value and entropy losses: TRL, verl, OpenRLHF, torchtune, rlax and Tunix."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import jaxalign as ja
from benchmarks.conformance.adapters.common import SINGLE, with_gradients
from benchmarks.conformance.adapters.pairs import named
from benchmarks.conformance.answers import Answer, Uncovered
from benchmarks.conformance.cases import Case

KNOWN_DISAGREEMENTS = {
    "trl_counts_empty_rows": "TRL counts responses without a token to train in its means of "
    "responses; ours leaves them out unless told to count them",
    "trl_normalisers": "TRL divides by tokens of the whole generation batch and by accumulation "
    "steps; ours by the weight of the global batch",
    "sapo_float32": "TRL rounds SAPO's temperatures to float32",
    "vespo_clamps": "TRL clamps VESPO's log-ratios at 20 and log 1e-8, rounds its exponents to "
    "float32, and counts importance weights of padding",
    "delta_below_clip": "TRL's delta may lie inside the clip range, where it caps good responses "
    "too; ours refuses that",
    "ratio_overflow": "the peer's ratios overflow, ours saturate beyond exp(354)",
    "log_ratio_clamp": "verl and OpenRLHF clamp log-ratios at 20, with no gradient beyond",
    "always_dual": "verl's dual clip is always on",
    "mean_of_nothing_verl": "verl and OpenRLHF add 1e-8 to counts of tokens",
    "trl_skips": "TRL 0.11 multiplies losses by 0 where the mean ratio passes its threshold",
    "entropy_quantile_single": "TRL's quantile of entropies is float32, so that the token at the "
    "quantile may fall out",
    "dro_without_value": "verl's DRO, without the value of the paper, is REINFORCE plus k2",
    "verl_kl_cov": "verl's KL-Cov is REINFORCE on ratios plus |k1| on tokens of its own choice",
    "single": "the peer computes in float32",
    "gspo_verl": "verl takes GSPO's ratio with the token's gradient and caps it at exp(10)",
}


LIMIT = 354  # of log-ratios: beyond it ours go on in a straight line


def guarded(case: Case, ours: dict, known, tolerance=1e-10, *, where, beyond) -> Answer:
    """Our numbers, but not where a log-ratio is `beyond` and the peer's number shows it.

    beyond: entries whose exponential passes the limit; a peer's number there is compared if it is
    below 1e100, and so is a total.
    """
    outputs, because, kept = {}, {}, {}
    for name, theirs in case.outputs.items():
        if name not in ours:
            continue
        small = np.abs(np.nan_to_num(theirs, nan=np.inf)) < 1e100
        near = ~beyond if theirs.shape == beyond.shape else ~beyond.any()
        counted = np.broadcast_to(where.get(name, True), theirs.shape) & (near | small)
        reasons = [*known, *(["ratio_overflow"] if (~near & ~small).any() else [])]
        if "mask" in case.inputs and not case.inputs["mask"].any() and np.isnan(theirs).any():
            counted, reasons = counted & ~np.isnan(theirs), [*reasons, "peer_failed"]
            if np.isnan(np.asarray(ours[name])).any():
                raise ValueError(f"{name}: ours is NaN too")
        outputs[name] = None if reasons and not counted.any() else ours[name]
        kept[name] = counted
        because |= {name: " + ".join(reasons)} if reasons else {}
    return Answer(outputs, known=because, tolerance=tolerance, where=kept)


def given(args: dict, name: str, default):
    """An argument, or the default where it is absent or None."""
    return default if args.get(name) is None else args[name]


def grpo(case: Case) -> Answer | Uncovered:
    """Token log-probabilities and advantages in, TRL's loss out."""
    if "per_token_logps" not in case.inputs:
        return Uncovered("a whole model, not a function")
    args, x = case.args, case.inputs
    kind = args["loss_type"]
    mask, advantages = x["mask"] != 0, jnp.asarray(x["advantages"])
    on_policy = args.get("use_old") is False or "old_per_token_logps" not in x
    behaviour = x["per_token_logps"] if on_policy else x["old_per_token_logps"]
    behaviour = jnp.asarray(behaviour)
    level = args.get("importance_sampling_level", "token")
    low = args.get("epsilon", 0.2)
    high = given(args, "epsilon_high", low)
    beta, delta = args.get("beta", 0.0), args.get("delta")
    known = {"trl_counts_empty_rows"} if not mask.any(axis=1).all() else set()
    rows = np.ones(len(mask))

    def policy_loss(logps):
        """`[B, T]`, before weights and KL."""
        repeated = ja.each_token(advantages, logps)
        zeros = jnp.zeros_like(logps)
        ratios = logps - behaviour
        if level == "sequence":
            ratios = ja.sequence_log_ratios(logps, behaviour, mask)
        if kind == "cispo":
            if level == "token":
                return ja.cispo_loss(logps, behaviour, repeated, highest=high)
            capped = jnp.minimum(ja.probability_ratios(ratios, zeros), high)
            return ja.reinforce_loss(logps, capped * repeated)
        if kind == "sapo":
            return ja.sapo_loss(
                ratios,
                zeros,
                repeated,
                positive_temperature=single(args.get("sapo_temperature_pos", 1.0)),
                negative_temperature=single(args.get("sapo_temperature_neg", 1.05)),
            )
        if kind == "vespo":
            return vespo(logps, repeated)
        clip = (low, high)
        if delta is not None and delta <= 1 + high:
            # the peer's min(min(r, delta) A, clip(r) A)
            r = jnp.minimum(ja.probability_ratios(ratios, zeros), delta)
            c = jnp.clip(ja.probability_ratios(ratios, zeros), 1 - low, 1 + high)
            return -jnp.minimum(r * repeated, c * repeated)
        return ja.ppo_policy_loss(ratios, zeros, repeated, clip_range=clip, dual_clip=delta)

    def exponents(side, k, rate):
        given_k, given_rate = args.get(f"vespo_k_{side}", k), args.get(f"vespo_lambda_{side}", rate)
        return single(given_k), single(given_rate)

    def vespo(logps, repeated):
        drift = jnp.clip(jax.lax.stop_gradient(logps) - behaviour, -20, 20)
        total = ja.masked_sum(drift, mask, axis=1)
        if "importance_sampling_ratio" in x:  # of padding too
            correction = jnp.log(jnp.asarray(x["importance_sampling_ratio"]))
            total += jnp.clip(correction, np.log(1e-8), 20).sum(axis=1)
        total = jnp.clip(total, np.log(1e-8), 20)
        one = jnp.zeros((len(mask), 1))
        weights = ja.vespo_weights(
            total[:, None],
            one,
            np.ones((len(mask), 1), bool),
            advantages,
            positive=exponents("pos", 2.0, 3.0),
            negative=exponents("neg", 3.0, 2.0),
        )
        return ja.reinforce_loss(logps, weights[:, None] * repeated)

    kept = np.ones(mask.shape, bool)
    if args.get("off_policy_mask_threshold") is not None:
        policy = jnp.asarray(x["per_token_logps"])
        sampled = jnp.asarray(x.get("sampling_per_token_logps", behaviour))
        keep = ja.on_policy_rows(
            policy, sampled, mask, advantages, threshold=args["off_policy_mask_threshold"]
        )
        kept = kept & np.asarray(keep)[:, None]
    trained = mask
    if args.get("top_entropy_quantile", 1.0) < 1:
        share = args["top_entropy_quantile"]
        trained = np.asarray(ja.top_entropy_mask(x["entropies"], mask, share=share))
        rounded = single_quantile(x["entropies"], mask, share)
        if (trained != rounded).any():
            trained = rounded
            known |= {"entropy_quantile_single"}
        kept = kept & trained

    def total(logps, entropies):
        losses = jnp.where(kept, policy_loss(logps), 0)
        if args.get("vllm") and kind != "vespo":
            losses = losses * x["importance_sampling_ratio"]
        if beta:
            kl_term = ja.k3(logps, jnp.asarray(x["ref_per_token_logps"]))
            if args.get("use_bias_correction_kl", True):
                ratios = logps - behaviour
                if level == "sequence":
                    ratios = ja.sequence_log_ratios(logps, behaviour, mask)
                zeros = jnp.zeros_like(logps)
                kl_term = kl_term * ja.probability_ratios(ratios, zeros)
            losses = losses + beta * kl_term
        weights, divisor = aggregated()
        loss = ja.masked_sum(losses, weights) / jnp.maximum(divisor, 1)
        if args.get("entropy_coef"):
            bonus = ja.masked_mean(entropies, np.asarray(trained))
            loss = loss - args["entropy_coef"] * bonus / accumulation
        return loss

    accumulation = given(args, "grad_accum", 1)

    def aggregated():
        if kind in ("grpo", "sapo"):
            weights, divisor = ja.sequence_mean(mask, rows)
        elif kind == "dr_grpo":
            weights, divisor = ja.constant_length(mask, rows, length=args["max_completion_length"])
        elif kind == "luspo":
            weights, divisor = ja.sequence_sum(mask, rows)
        else:
            weights, divisor = ja.token_mean(mask)
        if kind in ("dapo", "cispo", "vespo") and args.get("num_items"):
            divisor = args["num_items"]
        return weights, divisor * accumulation

    if kind not in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"):
        return Uncovered(f"loss type {kind}")
    if accumulation != 1 or args.get("num_items"):
        known.add("trl_normalisers")
    known |= {"vespo_clamps"} if kind == "vespo" else set()
    known |= {"sapo_float32"} if kind == "sapo" else set()
    known |= {"delta_below_clip"} if delta is not None and delta <= 1 + high else set()
    entropies = x.get("entropies", np.zeros(mask.shape))
    value, by_logp, by_entropy = with_gradients(total, x["per_token_logps"], entropies)
    ours = {"loss": value, "grad_per_token_logps": by_logp, "grad_entropies": by_entropy}
    where = {"grad_per_token_logps": mask, "grad_entropies": mask}
    beyond = np.asarray(x["per_token_logps"] - np.asarray(behaviour) > LIMIT)
    if level == "sequence":
        drift = ja.sequence_log_ratios(jnp.asarray(x["per_token_logps"]), behaviour, mask)
        beyond = np.broadcast_to(np.asarray(drift) > LIMIT, mask.shape)
    if beta:
        beyond = beyond | (x["ref_per_token_logps"] - x["per_token_logps"] > LIMIT)
    sizes = {}
    if beta and args.get("use_bias_correction_kl", True):
        if level == "sequence":  # the ratio of a response multiplies the KL of all its tokens
            beyond = np.broadcast_to((beyond & mask).any(axis=1, keepdims=True), mask.shape)
        weights, divisor = aggregated()
        terms = cancelling_terms(x, np.asarray(behaviour), mask, level)
        sizes = {"grad_per_token_logps": beta * terms * np.asarray(weights / max(divisor, 1))}
    answer = guarded(case, ours, sorted(known), where=where, beyond=beyond)
    return replace(answer, sizes=sizes)


def cancelling_terms(x: dict, behaviour, mask, level: str):
    """Sizes of the two terms of the slope of ratio * k3, whose exponentials cancel; `[B, T]`."""
    kl_term = np.exp(np.clip(x["ref_per_token_logps"] - x["per_token_logps"], -700, 700))
    drift = x["per_token_logps"] - behaviour
    if level == "sequence":
        counts = np.maximum(mask.sum(axis=1, keepdims=True), 1)
        drift = np.where(mask, drift, 0).sum(axis=1, keepdims=True) / counts
        shared = np.where(mask, kl_term, 0).sum(axis=1, keepdims=True) / counts
    else:
        shared = kl_term
    with np.errstate(over="ignore"):
        terms = np.exp(np.clip(drift, -700, 700)) * (kl_term + shared)
    return np.where(mask, np.minimum(terms, np.finfo(float).max), 0)


def single(x: float) -> float:
    """As a float32 would hold it."""
    return float(np.float32(x))


def single_quantile(entropies, mask, share: float):
    """TRL's choice: its quantile is float32. Ours, but for tokens at the quantile itself."""
    chosen = np.asarray(entropies[mask], np.float32)
    if not chosen.size:
        return np.zeros_like(mask)
    threshold = np.quantile(chosen, np.float32(1 - share))
    rounded = mask & (entropies >= threshold)
    ours = np.asarray(ja.top_entropy_mask(entropies, mask, share=share))
    apart = np.abs(entropies - threshold) > 1e-6 * max(1, abs(threshold))
    return np.where(apart, ours, rounded)


def gmpo(case: Case) -> Answer:
    args, x = case.args, case.inputs
    mask, advantages = x["mask"] != 0, jnp.asarray(x["advantages"])
    behaviour = jnp.asarray(x["old_per_token_logps"])
    low, beta = args.get("epsilon", 0.4), args.get("beta", 0.0)
    high = given(args, "epsilon_high", low)

    def loss(logps):
        each = ja.gmpo_loss(logps, behaviour, mask, advantages, clip_range=(low, high))
        if beta:
            kl_term = ja.k3(logps, jnp.asarray(x["ref_per_token_logps"]))
            each += beta * ja.masked_sum(kl_term, ja.sequence_mean(mask)[0], axis=1)
        return each.mean()

    value, gradient = with_gradients(loss, x["per_token_logps"])
    ours = {"loss": value, "grad_per_token_logps": gradient}
    known = [] if mask.any(axis=1).all() else ["trl_counts_empty_rows"]
    drift = x["per_token_logps"] - x["old_per_token_logps"]
    clipped = np.where(x["advantages"][:, None] < 0, drift.clip(min=-low), drift.clip(max=high))
    means = np.where(mask, clipped, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    beyond = np.broadcast_to(means[:, None] > LIMIT, mask.shape)
    if beta:
        beyond = beyond | (x["ref_per_token_logps"] - x["per_token_logps"] > LIMIT)
    where = {"grad_per_token_logps": mask}
    return guarded(case, ours, known, where=where, beyond=beyond)


def rloo(case: Case) -> Answer:
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    low = args.get("epsilon", 0.2)
    high = given(args, "epsilon_high", low)

    def loss(logps):
        each = ja.rloo_loss(
            logps,
            jnp.asarray(x["old_per_token_logps"]),
            mask,
            jnp.asarray(x["advantages"]),
            clip_range=(low, high),
        )
        return each.mean()

    value, gradient = with_gradients(loss, x["per_token_logps"])
    ours = {"loss": value, "grad_per_token_logps": gradient}
    known = [] if mask.any(axis=1).all() else ["trl_counts_empty_rows"]
    drift = np.where(mask, x["per_token_logps"] - x["old_per_token_logps"], 0).sum(axis=1)
    beyond = np.broadcast_to(drift[:, None] > LIMIT, mask.shape)
    where = {"grad_per_token_logps": mask}
    return guarded(case, ours, known, where=where, beyond=beyond)


def rlax_clipped(case: Case) -> Answer:
    x = case.inputs
    mask = x["mask"] != 0

    def loss(logps):
        each = ja.ppo_policy_loss(
            logps,
            jnp.asarray(x["old_logprobs"]),
            jnp.asarray(x["advantages"]),
            clip_range=case.args["epsilon"],
        )
        return ja.masked_mean(each, mask)

    value, gradient = with_gradients(loss, x["logprobs"])
    ours = {"loss": value, "grad_logprobs": gradient}
    beyond = mask & (x["logprobs"] - x["old_logprobs"] > LIMIT)
    return guarded(case, ours, [], where={"grad_logprobs": mask}, beyond=beyond)


def clamped(logps, behaviour, bound=20.0):
    """Log-ratios as verl and OpenRLHF have them, and whether that changes any."""
    ratios = logps - behaviour
    return jnp.clip(ratios, -bound, bound)


EPSILON = 1e-8


def counted_more(weights, mask):
    """verl and OpenRLHF count 1e-8 tokens more in the mean of a response."""
    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return weights * counts / (counts + EPSILON)


def reduced(losses, mask, mode: str, *, length=None, epsilon=True):
    """The aggregations of verl, OpenRLHF and Tunix by their names; None for another one.

    length: the constant of the modes that have one. epsilon: whether `counted_more` is applied.
    """
    mask, width = np.asarray(mask), mask.shape[1]
    if mode == "token-mean":
        weights, divisor = ja.token_mean(mask)
    elif mode in ("seq-mean-token-mean", "sequence-mean-token-mean"):
        weights, divisor = ja.sequence_mean(mask)
        weights = counted_more(weights, mask) if epsilon else weights
    elif mode in ("seq-mean-token-sum", "sequence-mean-token-sum-norm"):
        weights, divisor = ja.sequence_sum(mask)
        if mode == "sequence-mean-token-sum-norm" and length is not None:
            divisor = length
    elif mode in ("seq-mean-token-sum-norm", "sequence-mean-token-scale"):
        weights, divisor = ja.sequence_sum(mask)
        divisor = jnp.maximum(divisor, 1) * (width if length is None else length)
    else:
        return None
    total = ja.masked_sum(losses, weights)
    return jnp.where(mask.any(), total / jnp.where(mask.any(), divisor, 1), 0)


def agg_loss(case: Case) -> Answer | Uncovered:
    x, args, mode = case.inputs, case.args, case.args["loss_agg_mode"]
    mask, tunix = x["mask"] != 0, case.function.startswith("tunix")
    length = args.get("norm", args.get("loss_scale_factor"))
    value = reduced(jnp.asarray(x["advantages"]), mask, mode, length=length, epsilon=not tunix)
    if value is None:
        return Uncovered(f"aggregation {mode}")
    if tunix:
        size = np.abs(np.where(mask, x["advantages"], 0)).sum() * 2.0**-24
        return named(case, {"loss": value}, ["single"], SINGLE * max(1.0, float(size)))
    return named(case, {"loss": value}, _means_of(mode))


def _means_of(mode: str) -> list[str]:
    return ["mean_of_nothing_verl"] if "token-mean" in mode and mode != "token-mean" else []


def dual_clipped(ratios, advantages, clip, cap):
    """The clipped loss of log-ratios, bounded where advantages are negative if there is a cap.

    Ours refuses a cap inside the clip range, but where advantages are negative the upper end of
    that range is not used.
    """
    zeros = jnp.zeros_like(ratios)
    if cap is None or cap > 1 + clip[1]:
        return ja.ppo_policy_loss(ratios, zeros, advantages, clip_range=clip, dual_clip=cap)
    inside = (clip[0], (cap - 1) / 2)
    capped = ja.ppo_policy_loss(ratios, zeros, advantages, clip_range=inside, dual_clip=cap)
    plain = ja.ppo_policy_loss(ratios, zeros, advantages, clip_range=clip)
    return jnp.where(advantages < 0, capped, plain)


def verl_clip(args: dict):
    both = args.get("clip_ratio", 0.2)
    return given(args, "clip_ratio_low", both), given(args, "clip_ratio_high", both)


def verl_vanilla(case: Case) -> Answer | Uncovered:
    args, x = case.args, case.inputs
    mask, mode = x["mask"] != 0, args.get("loss_agg_mode", "token-mean")
    advantages = jnp.asarray(x["advantages"])
    cap = args.get("clip_ratio_c", 3.0)

    def loss(logps):
        ratios = clamped(logps, jnp.asarray(x["old_logprobs"]))
        each = dual_clipped(ratios, advantages, verl_clip(args), cap)
        return reduced(each, mask, mode, length=args.get("loss_scale_factor"))

    if reduced(advantages, mask, mode) is None:
        return Uncovered(f"aggregation {mode}")
    value, gradient = with_gradients(loss, x["logprobs"])
    ours = {"loss": value, "grad_logprobs": gradient}
    known = ["always_dual", "log_ratio_clamp", *_means_of(mode)]
    return named(case, ours, known, where={"grad_logprobs": mask})


def verl_losses(kind: str, args: dict, behaviour, mask, advantages):
    """`(logps) -> [B, T]`, and the aggregation that is the peer's default; None: not ours."""
    zeros, clip = jnp.zeros(mask.shape), verl_clip(args)

    def gspo(logps):
        ratios = jnp.minimum(ja.token_log_ratios(logps, behaviour, mask), 10.0)
        return ja.ppo_policy_loss(ratios, zeros, advantages, clip_range=clip)

    def sapo(logps):
        temperatures = {
            "positive_temperature": args.get("tau_pos", 1.0),
            "negative_temperature": args.get("tau_neg", 1.05),
        }
        return ja.sapo_loss(clamped(logps, behaviour), zeros, advantages, **temperatures)

    def gpg(logps):
        return ja.reinforce_loss(logps, advantages)

    def cispo(logps):
        ratios = jnp.exp(clamped(logps, behaviour))
        ratios = jax.lax.stop_gradient(jnp.clip(ratios, 1 - clip[0], 1 + clip[1]))
        return ja.reinforce_loss(logps, ratios * advantages)

    def dro(logps):
        return ja.reinforce_loss(logps, advantages) + args["dro_beta"] * ja.k2(logps, behaviour)

    losses = {
        "gspo": (gspo, "seq-mean-token-mean"),
        "sapo": (sapo, "seq-mean-token-mean"),
        "gpg": (gpg, "token-mean"),
        "cispo": (cispo, "token-mean"),
        "dro": (dro, "token-mean"),
    }
    return losses.get(kind)


def verl_named(case: Case) -> Answer | Uncovered:
    """verl's other policy losses, on `advantages = scores[:, None] * mask`."""
    args, x = case.args, case.inputs
    kind, mask = case.function.rsplit(" ", 1)[1], x["mask"] != 0
    scores, behaviour = jnp.asarray(x["scores"]), jnp.asarray(x["old_logprobs"])
    if kind in ("geo_mean", "kl_cov"):
        return {"geo_mean": verl_geo_mean, "kl_cov": verl_kl_cov}[kind](case)
    found = verl_losses(kind, args, behaviour, mask, ja.each_token(scores, behaviour))
    if found is None:
        return Uncovered(f"policy loss {kind}: verl's own choice of tokens")
    losses, mode = found[0], args.get("loss_agg_mode", found[1])
    mode = found[1] if kind == "sapo" else mode  # whatever it is told
    value, gradient = with_gradients(
        lambda logps: reduced(losses(logps), mask, mode, length=args.get("loss_scale_factor")),
        x["logprobs"],
    )
    ours = {"loss": value, "grad_logprobs": gradient}
    known = {"gpg": [], "dro": ["dro_without_value"], "gspo": ["gspo_verl"]}
    known = [*known.get(kind, ["log_ratio_clamp"]), *_means_of(mode)]
    return named(case, ours, known, where={"grad_logprobs": mask})


def verl_geo_mean(case: Case) -> Answer:
    """GMPO; verl counts 1e-8 tokens more in two means of a response, and empty responses as 0."""
    args, x = case.args, case.inputs
    mask, behaviour = x["mask"] != 0, jnp.asarray(x["old_logprobs"])
    scores, counts = jnp.asarray(x["scores"]), mask.sum(axis=1)
    share = counts / (counts + EPSILON)

    def loss(logps):
        each = ja.gmpo_loss(logps, behaviour, mask, scores, clip_range=verl_clip(args))
        ratios = jnp.where(scores == 0, 1, -each / jnp.where(scores == 0, 1, scores))
        fewer = ratios ** (-EPSILON / (counts + EPSILON))
        return jnp.where(counts > 0, each * share * fewer, 0).mean()

    value, gradient = with_gradients(loss, x["logprobs"])
    ours = {"loss": value, "grad_logprobs": gradient}
    known = ["mean_of_nothing_verl"]
    known += [] if mask.any(axis=1).all() else ["trl_counts_empty_rows"]
    beyond = ja.sequence_log_ratios(jnp.asarray(x["logprobs"]), behaviour, mask) > LIMIT
    beyond = np.broadcast_to(beyond, mask.shape)
    return guarded(case, ours, known, where={"grad_logprobs": mask}, beyond=beyond)


def verl_kl_cov(case: Case) -> Answer | Uncovered:
    """REINFORCE on ratios, and |k1| on the tokens of largest covariance, which verl chooses."""
    args, x = case.args, case.inputs
    mask, behaviour = x["mask"] != 0, jnp.asarray(x["old_logprobs"])
    advantages = np.broadcast_to(x["scores"][:, None], mask.shape)
    deviations = [
        at[mask] - at[mask].sum() / max(mask.sum(), 1) for at in (advantages, x["logprobs"])
    ]
    covariances = np.full(mask.shape, -np.inf)
    covariances[mask] = deviations[0] * deviations[1]
    count = max(1, int(mask.sum() * given(args, "kl_cov_ratio", 0.0002)))
    largest = np.sort(covariances[mask])[::-1]
    if not len(largest):
        return Uncovered("no token")
    if len(largest) > count and np.isclose(largest[count], largest[count - 1], rtol=1e-12):
        return Uncovered("covariances tie where verl stops choosing tokens")
    chosen, coef = covariances >= largest[count - 1], given(args, "ppo_kl_coef", 1.0)

    def loss(logps):
        each = ja.reinforce_loss(ja.probability_ratios(logps, behaviour), advantages)
        each += coef * jnp.where(chosen, jnp.abs(ja.k1(logps, behaviour)), 0)
        return reduced(each, mask, args.get("loss_agg_mode", "token-mean"))

    value, gradient = with_gradients(loss, x["logprobs"])
    ours = {"loss": value, "grad_logprobs": gradient}
    beyond = x["logprobs"] - x["old_logprobs"] > LIMIT
    where = {"grad_logprobs": mask}
    return guarded(case, ours, ["verl_kl_cov"], where=where, beyond=beyond)


def value_loss(case: Case) -> Answer:
    """verl and OpenRLHF: half the larger of two squared errors."""
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    clip = args.get("cliprange_value", args.get("clip_eps"))

    def loss(values):
        old, returns = (jnp.asarray(x[name]) for name in ("values", "returns"))
        each = ja.ppo_value_loss(values, old, returns, value_clip_range=clip)
        return reduced(each, mask, mode)

    by_row = args.get("token_level_loss") is False
    mode = "seq-mean-token-mean" if by_row else args.get("loss_agg_mode", "token-mean")
    value, gradient = with_gradients(loss, x["vpreds"])
    clipped = ja.ppo_value_clipped(x["vpreds"], x["values"], x["returns"], value_clip_range=clip)
    share = ja.masked_sum(clipped.astype(float), mask) / (mask.sum() + EPSILON)
    ours = {"loss": value, "grad_vpreds": gradient, "clipfrac": share}
    known = ["mean_of_nothing_verl"] if "clipfrac" in case.outputs else _means_of(mode)
    return named(case, ours, known, where={"grad_vpreds": mask})


def entropy_loss(case: Case) -> Answer:
    x = case.inputs
    each = ja.entropy(jnp.asarray(x["logits"]))
    ours = {"token_entropy": each}
    if "mask" in x:
        ours["loss"] = reduced(each, x["mask"] != 0, case.args.get("loss_agg_mode", "token-mean"))
    return named(case, ours, [])


def openrlhf_policy(case: Case) -> Answer | Uncovered:
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    gspo = args.get("policy_loss_type", "ppo") == "gspo"
    behaviour = jnp.asarray(x["old_logprobs"])
    clip = (args.get("clip_eps_low", 0.2), args.get("clip_eps_high", 0.2))
    advantages = jnp.asarray(
        x["advantages"] if not gspo else np.where(mask, x["scores"][:, None], 0)
    )
    by_row = gspo or args.get("token_level_loss") is False
    mode = "seq-mean-token-mean" if by_row else "token-mean"

    def ratios(logps):
        if gspo:
            return jnp.broadcast_to(ja.sequence_log_ratios(logps, behaviour, mask), mask.shape)
        return clamped(logps, behaviour)

    def loss(logps):
        each = dual_clipped(ratios(logps), advantages, clip, args.get("dual_clip"))
        return reduced(each, mask, mode)

    value, gradient = with_gradients(loss, x["logprobs"])
    at, zeros = ratios(jnp.asarray(x["logprobs"])), jnp.zeros(mask.shape)
    clipped = ja.ppo_policy_clipped(at, zeros, advantages, clip_range=clip)
    ours = {
        "loss": value,
        "grad_logprobs": gradient,
        "clip_ratio": ja.masked_mean(clipped.astype(float), mask),
        "ppo_kl": ja.masked_mean(-ja.k1(jnp.asarray(x["logprobs"]), behaviour), mask),
    }
    beyond = np.asarray(at > LIMIT)
    known = [*([] if gspo else ["log_ratio_clamp"]), *_means_of(mode)]
    return guarded(case, ours, known, where={"grad_logprobs": mask}, beyond=beyond)


def ppo_parts(case: Case) -> Answer:
    """TRL 0.11 and torchtune: policy and value losses of one call."""
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    tune = case.function.startswith("torchtune")
    epsilon = args["epsilon"] if tune else args["cliprange"]
    value_clip = args["value_clip_range"] if tune else args["cliprange_value"]
    coefficient = args["value_coeff"] if tune else args["vf_coef"]
    behaviour, advantages = (jnp.asarray(x[name]) for name in ("old_logprobs", "advantages"))

    old, returns = jnp.asarray(x["values"]), jnp.asarray(x["returns"])

    def mean(each):
        return ja.masked_mean(each, mask)

    def parts(logps, values):
        policy = ja.ppo_policy_loss(logps, behaviour, advantages, clip_range=epsilon)
        value = ja.ppo_value_loss(values, old, returns, value_clip_range=value_clip)
        return mean(policy), mean(value)

    logps, values = jnp.asarray(x["logprobs"]), jnp.asarray(x["vpreds"])
    ratios = ja.probability_ratios(logps, behaviour)
    skipped = float(mean(ratios)) > float(args.get("ratio_threshold", np.inf))
    kept = 0.0 if skipped else 1.0
    policy, value = parts(logps, values)
    total, by_logp, by_value = with_gradients(
        lambda a, b: parts(a, b)[0] + coefficient * parts(a, b)[1], logps, values
    )
    clipped = ja.ppo_policy_clipped(logps, behaviour, advantages, clip_range=epsilon)
    value_clipped = ja.ppo_value_clipped(values, old, returns, value_clip_range=value_clip)
    drift = logps - behaviour
    ours = {
        "loss": kept * total,
        "policy_loss": kept * policy,
        "pg_loss": kept * policy,
        "value_loss": kept * value,
        "vf_loss_times_coef": kept * coefficient * value,
        "grad_logprobs": kept * by_logp,
        "grad_vpreds": kept * by_value,
        "ratio_mean": ratios.mean(),
        "clipfrac": mean(clipped.astype(float)),
        "stat_policy_approxkl": mean(drift**2) / 2,
        "stat_policy_policykl": mean(-drift),
        "stat_policy_clipfrac": mean(clipped.astype(float)),
        "stat_val_vpred": mean(values),
        "stat_val_error": mean((values - returns) ** 2),
        "stat_val_clipfrac": mean(value_clipped.astype(float)),
        "stat_returns_mean": mean(returns),
        "stat_returns_var": ja.masked_variance(returns, mask, ddof=1),
    }
    if "logits" in x:
        ours["stat_policy_entropy"] = mean(ja.entropy(jnp.asarray(x["logits"])))
    where = {"grad_logprobs": mask, "grad_vpreds": mask}
    known = ["trl_skips"] if skipped else []
    beyond = np.asarray(drift > LIMIT)
    return guarded(case, ours, known, where=where, beyond=beyond)


def reward_pairs(case: Case) -> Answer:
    """OpenRLHF's losses of chosen and rejected scores; LogExpLoss ignores its margin."""
    x = case.inputs
    half = len(x["scores"]) // 2
    ignores = "LogExp" in case.function
    margin = 0.0 if ignores else (case.args.get("margin") or 0.0)

    def loss(scores):
        return ja.bradley_terry_loss(scores[:half] - scores[half:], margins=margin).mean()

    value, gradient = with_gradients(loss, x["scores"])
    known = ["openrlhf_margin"] if ignores and case.args.get("margin") else []
    return named(case, {"loss": value, "grad_scores": gradient}, known)


KNOWN_DISAGREEMENTS["openrlhf_margin"] = "OpenRLHF's LogExpLoss ignores the margin"
ADAPTERS = {
    "trl.GRPOTrainer._compute_loss": grpo,
    "trl.GMPOTrainer._compute_loss": gmpo,
    "trl.RLOOTrainer._compute_loss": rloo,
    "rlax.clipped_surrogate_pg_loss": rlax_clipped,
    "verl agg_loss": agg_loss,
    "tunix aggregate_loss": agg_loss,
    "verl compute_policy_loss_vanilla": verl_vanilla,
    "verl compute_value_loss": value_loss,
    "openrlhf ValueLoss": value_loss,
    "verl compute_entropy_loss": entropy_loss,
    "tunix compute_entropy_from_logits": entropy_loss,
    "openrlhf PolicyLoss": openrlhf_policy,
    "openrlhf PairWiseLoss": reward_pairs,
    "openrlhf LogExpLoss": reward_pairs,
    "torchtune PPOLoss": ppo_parts,
    "trl.PPOTrainer.loss": ppo_parts,
}
ADAPTERS |= dict.fromkeys(
    (
        f"verl policy loss {kind}"
        for kind in ("gspo", "sapo", "gpg", "cispo", "dro", "kl_cov", "geo_mean")
    ),
    verl_named,
)
