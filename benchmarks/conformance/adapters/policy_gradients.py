"""Policy, value and entropy losses: TRL, verl, OpenRLHF, torchtune, rlax and Tunix."""

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
    "vespo_clamps": "TRL clamps VESPO's log-ratios at 20 and log 1e-8",
    "delta_below_clip": "TRL's delta may lie inside the clip range, where it caps good responses "
    "too; ours refuses that",
    "ratio_overflow": "the peer's ratios overflow, ours saturate beyond exp(354)",
    "log_ratio_clamp": "verl and OpenRLHF clamp log-ratios at 20, with no gradient beyond",
    "always_dual": "verl's dual clip is always on",
    "mean_of_nothing_verl": "verl and Tunix add 1e-8 to a count of tokens or give 0 for none",
    "single": "the peer computes in float32",
    "gspo_verl": "verl takes GSPO's ratio with the token's gradient and caps it at exp(10)",
}


def broken(case: Case) -> bool:
    return any(not np.isfinite(value).all() for value in case.outputs.values())


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
    high = args.get("epsilon_high")
    high = low if high is None else high
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
                positive_temperature=args.get("sapo_temperature_pos", 1.0),
                negative_temperature=args.get("sapo_temperature_neg", 1.05),
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

    def vespo(logps, repeated):
        drift = jnp.clip(jax.lax.stop_gradient(logps) - behaviour, -20, 20)
        if args.get("vllm"):
            correction = jnp.log(jnp.asarray(x["importance_sampling_ratio"]))
            drift += jnp.clip(correction, np.log(1e-8), 20) / mask.sum(1, keepdims=True)
        total = jnp.clip(ja.masked_sum(drift, mask, axis=1), np.log(1e-8), 20)
        one = jnp.zeros((len(mask), 1))
        weights = ja.vespo_weights(
            total[:, None],
            one,
            np.ones((len(mask), 1), bool),
            advantages,
            positive=(args.get("vespo_k_pos", 2.0), args.get("vespo_lambda_pos", 3.0)),
            negative=(args.get("vespo_k_neg", 3.0), args.get("vespo_lambda_neg", 2.0)),
        )
        return ja.reinforce_loss(logps, weights[:, None] * repeated)

    kept = np.ones(mask.shape, bool)
    if args.get("off_policy_mask_threshold") is not None:
        policy = jnp.asarray(x["per_token_logps"])
        keep = ja.on_policy_rows(
            policy, behaviour, mask, advantages, threshold=args["off_policy_mask_threshold"]
        )
        kept = kept & np.asarray(keep)[:, None]
    trained = mask
    if args.get("top_entropy_quantile", 1.0) < 1:
        trained = ja.top_entropy_mask(x["entropies"], mask, share=args["top_entropy_quantile"])
        kept = kept & np.asarray(trained)

    def total(logps, entropies):
        losses = jnp.where(kept, policy_loss(logps), 0)
        if args.get("vllm") and kind != "vespo":
            losses = losses * x["importance_sampling_ratio"]
        if beta:
            price = ja.k3(logps, jnp.asarray(x["ref_per_token_logps"]))
            if args.get("use_bias_correction_kl", True):
                ratios = logps - behaviour
                if level == "sequence":
                    ratios = ja.sequence_log_ratios(logps, behaviour, mask)
                zeros = jnp.zeros_like(logps)
                price = price * ja.probability_ratios(ratios, zeros)
            losses = losses + beta * price
        weights, divisor = aggregated()
        loss = ja.masked_sum(losses, weights) / divisor
        if args.get("entropy_coef"):
            bonus = ja.masked_mean(entropies, np.asarray(trained))
            loss = loss - args["entropy_coef"] * bonus / accumulation
        return loss

    accumulation = args.get("grad_accum") or 1

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
    if broken(case) or overflows(case):
        finite = all(np.isfinite(value).all() for value in ours.values())
        reason = dict.fromkeys(case.outputs, "ratio_overflow")
        return Answer(dict.fromkeys(case.outputs) if finite else {}, known=reason)
    return named(case, ours, sorted(known), 1e-6 if kind == "sapo" else 1e-10, where=where)


def overflows(case: Case) -> bool:
    """Whether a number of the peer passes 1e100: about there its exponentials overflow."""
    return any(np.abs(value).max(initial=0) > 1e100 for value in case.outputs.values())


def gmpo(case: Case) -> Answer:
    args, x = case.args, case.inputs
    mask, advantages = x["mask"] != 0, jnp.asarray(x["advantages"])
    behaviour = jnp.asarray(x["old_per_token_logps"])
    low, beta = args.get("epsilon", 0.4), args.get("beta", 0.0)
    high = args.get("epsilon_high") or low

    def loss(logps):
        each = ja.gmpo_loss(logps, behaviour, mask, advantages, clip_range=(low, high))
        if beta:
            price = ja.k3(logps, jnp.asarray(x["ref_per_token_logps"]))
            each += beta * ja.masked_sum(price, ja.sequence_mean(mask)[0], axis=1)
        return each.mean()

    value, gradient = with_gradients(loss, x["per_token_logps"])
    if broken(case) or overflows(case):
        reason = dict.fromkeys(case.outputs, "ratio_overflow")
        return Answer(dict.fromkeys(case.outputs), known=reason)
    ours = {"loss": value, "grad_per_token_logps": gradient}
    known = [] if mask.any(axis=1).all() else ["trl_counts_empty_rows"]
    return named(case, ours, known, where={"grad_per_token_logps": mask})


def rloo(case: Case) -> Answer:
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    low = args.get("epsilon", 0.2)
    high = args.get("epsilon_high") or low

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
    if broken(case) or overflows(case):
        reason = dict.fromkeys(case.outputs, "ratio_overflow")
        return Answer(dict.fromkeys(case.outputs), known=reason)
    ours = {"loss": value, "grad_per_token_logps": gradient}
    known = [] if mask.any(axis=1).all() else ["trl_counts_empty_rows"]
    return named(case, ours, known, where={"grad_per_token_logps": mask})


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
    if broken(case) or overflows(case):
        reason = dict.fromkeys(case.outputs, "ratio_overflow")
        return Answer(dict.fromkeys(case.outputs), known=reason)
    return named(case, ours, [], where={"grad_logprobs": mask})


def clamped(logps, behaviour, bound=20.0):
    """Log-ratios as verl and OpenRLHF have them, and whether that changes any."""
    ratios = logps - behaviour
    return jnp.clip(ratios, -bound, bound)


def reduced(losses, mask, mode: str, *, width: int):
    """The aggregations of verl and Tunix by their names."""
    mask = jnp.asarray(mask)
    if mode == "token-mean":
        weights, divisor = ja.token_mean(mask)
    elif mode in ("seq-mean-token-mean", "sequence-mean-token-mean"):
        weights, divisor = ja.sequence_mean(mask)
    elif mode in ("seq-mean-token-sum", "sequence-mean-token-sum-norm"):  # Tunix's default
        weights, divisor = ja.sequence_sum(mask)
    elif mode == "seq-mean-token-sum-norm":
        weights, divisor = ja.constant_length(mask, length=width)
    else:
        return None
    return ja.masked_sum(losses, weights) / jnp.maximum(divisor, 1)


def agg_loss(case: Case) -> Answer | Uncovered:
    x, mode = case.inputs, case.args["loss_agg_mode"]
    mask = x["mask"] != 0
    value = reduced(jnp.asarray(x["advantages"]), mask, mode, width=mask.shape[1])
    if value is None:
        return Uncovered(f"aggregation {mode}")
    tunix = case.function.startswith("tunix")
    known = ["mean_of_nothing_verl"] + (["single"] if tunix else [])
    return named(case, {"loss": value}, known, SINGLE if tunix else 1e-7)


def verl_vanilla(case: Case) -> Answer | Uncovered:
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    low, high = args["clip_ratio_low"], args["clip_ratio_high"]

    def loss(logps):
        ratios = clamped(logps, jnp.asarray(x["old_logprobs"]))
        each = ja.ppo_policy_loss(
            ratios,
            jnp.zeros_like(ratios),
            jnp.asarray(x["advantages"]),
            clip_range=(low, high),
            dual_clip=args["clip_ratio_c"],
        )
        return reduced(each, mask, args["loss_agg_mode"], width=mask.shape[1])

    if args["clip_ratio_c"] <= 1 + high:
        return Uncovered("a dual clip inside the clip range, which ours refuses")
    value, gradient = with_gradients(loss, x["logprobs"])
    ours = {"loss": value, "grad_logprobs": gradient}
    known = ["always_dual", "log_ratio_clamp", "mean_of_nothing_verl"]
    return named(case, ours, known, 1e-7, where={"grad_logprobs": mask})


def verl_named(case: Case) -> Answer | Uncovered:
    """verl's other policy losses, on `advantages = scores[:, None] * mask`."""
    args, x = case.args, case.inputs
    kind = case.function.rsplit(" ", 1)[1]
    mask = x["mask"] != 0
    scores = jnp.asarray(x["scores"])
    behaviour = jnp.asarray(x["old_logprobs"])
    low, high = args.get("clip_ratio_low", 0.2), args.get("clip_ratio_high", 0.2)

    def loss(logps):
        repeated = ja.each_token(scores, logps)
        zeros = jnp.zeros_like(logps)
        if kind == "gspo":
            ratios = jnp.minimum(ja.token_log_ratios(logps, behaviour, mask), 10.0)
            each = ja.ppo_policy_loss(ratios, zeros, repeated, clip_range=(low, high))
            return reduced(each, mask, "seq-mean-token-mean", width=1)
        if kind == "sapo":
            ratios = clamped(logps, behaviour)
            each = ja.sapo_loss(
                ratios,
                zeros,
                repeated,
                positive_temperature=args["tau_pos"],
                negative_temperature=args["tau_neg"],
            )
            return reduced(each, mask, "seq-mean-token-mean", width=1)
        if kind == "gpg":
            return reduced(ja.reinforce_loss(logps, repeated), mask, "token-mean", width=1)
        ratios = jax.lax.stop_gradient(
            jnp.clip(jnp.exp(clamped(logps, behaviour)), 1 - low, 1 + high)
        )
        return reduced(ja.reinforce_loss(logps, ratios * repeated), mask, "token-mean", width=1)

    if kind not in ("gspo", "sapo", "gpg", "cispo"):
        return Uncovered(f"policy loss {kind}")
    value, gradient = with_gradients(loss, x["logprobs"])
    ours = {"loss": value, "grad_logprobs": gradient}
    known = {"gpg": [], "gspo": ["gspo_verl"]}.get(kind, ["log_ratio_clamp"])
    known = [*known, "mean_of_nothing_verl"]
    return named(case, ours, known, 1e-7, where={"grad_logprobs": mask})


def value_loss(case: Case) -> Answer:
    """verl and OpenRLHF: half the larger of two squared errors."""
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    clip = args.get("cliprange_value", args.get("clip_eps"))

    def loss(values):
        old, returns = (jnp.asarray(x[name]) for name in ("values", "returns"))
        each = ja.ppo_value_loss(values, old, returns, value_clip_range=clip)
        by_row = args.get("token_level_loss") is False
        mode = "seq-mean-token-mean" if by_row else "token-mean"
        return reduced(each, mask, mode, width=1)

    value, gradient = with_gradients(loss, x["vpreds"])
    clipped = ja.ppo_value_clipped(x["vpreds"], x["values"], x["returns"], value_clip_range=clip)
    share = ja.masked_mean(clipped.astype(float), mask)
    ours = {"loss": value, "grad_vpreds": gradient, "clipfrac": share}
    return named(case, ours, ["mean_of_nothing_verl"], 1e-7, where={"grad_vpreds": mask})


def entropy_loss(case: Case) -> Answer:
    x = case.inputs
    each = ja.entropy(jnp.asarray(x["logits"]))
    ours = {"token_entropy": each}
    if "mask" in x:
        ours["loss"] = ja.masked_mean(each, x["mask"] != 0)
    return named(case, ours, ["mean_of_nothing_verl"], 1e-7)


def openrlhf_policy(case: Case) -> Answer | Uncovered:
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    gspo = args["policy_loss_type"] == "gspo"
    behaviour = jnp.asarray(x["old_logprobs"])
    clip = (args["clip_eps_low"], args["clip_eps_high"])

    def each_loss(logps):
        zeros = jnp.zeros_like(logps)
        if gspo:
            ratios = ja.sequence_log_ratios(logps, behaviour, mask)
            advantages = ja.each_token(jnp.asarray(x["scores"]), logps)
        else:
            ratios = clamped(logps, behaviour)
            advantages = jnp.asarray(x["advantages"])
        settings = {"clip_range": clip, "dual_clip": args.get("dual_clip")}
        return ja.ppo_policy_loss(ratios, zeros, advantages, **settings)

    def loss(logps):
        by_row = gspo or args.get("token_level_loss") is False
        mode = "seq-mean-token-mean" if by_row else "token-mean"
        return reduced(each_loss(logps), mask, mode, width=1)

    value, gradient = with_gradients(loss, x["logprobs"])
    ours = {"loss": value, "grad_logprobs": gradient}
    if broken(case) or overflows(case):
        reason = dict.fromkeys(case.outputs, "ratio_overflow")
        return Answer(dict.fromkeys(case.outputs), known=reason)
    known = ["log_ratio_clamp", "mean_of_nothing_verl"]
    return named(case, ours, known, 1e-7, where={"grad_logprobs": mask})


def ppo_parts(case: Case) -> Answer:
    """TRL 0.11 and torchtune: policy and value losses of one call."""
    args, x = case.args, case.inputs
    mask = x["mask"] != 0
    tune = case.function.startswith("torchtune")
    epsilon = args["epsilon"] if tune else args["cliprange"]
    value_clip = args["value_clip_range"] if tune else args["cliprange_value"]
    coefficient = args["value_coeff"] if tune else args["vf_coef"]
    behaviour, advantages = (jnp.asarray(x[name]) for name in ("old_logprobs", "advantages"))

    def parts(logps, values):
        policy = ja.ppo_policy_loss(logps, behaviour, advantages, clip_range=epsilon)
        value = ja.ppo_value_loss(values, x["values"], x["returns"], value_clip_range=value_clip)
        return ja.masked_mean(policy, mask), ja.masked_mean(value, mask)

    policy, value = parts(x["logprobs"], x["vpreds"])
    total, by_logp, by_value = with_gradients(
        lambda a, b: parts(a, b)[0] + coefficient * parts(a, b)[1], x["logprobs"], x["vpreds"]
    )
    clipped = ja.ppo_policy_clipped(x["logprobs"], behaviour, advantages, clip_range=epsilon)
    drift = jnp.asarray(x["logprobs"]) - behaviour
    ours = {
        "loss": total,
        "policy_loss": policy,
        "pg_loss": policy,
        "value_loss": value,
        "vf_loss_times_coef": coefficient * value,
        "grad_logprobs": by_logp,
        "grad_vpreds": by_value,
        "stat_policy_approxkl": ja.masked_mean(drift**2, mask) / 2,
        "stat_policy_policykl": ja.masked_mean(-drift, mask),
        "stat_policy_clipfrac": ja.masked_mean(clipped.astype(float), mask),
        "stat_val_vpred": ja.masked_mean(jnp.asarray(x["vpreds"]), mask),
        "stat_returns_mean": ja.masked_mean(jnp.asarray(x["returns"]), mask),
    }
    if broken(case) or overflows(case):
        reason = dict.fromkeys(case.outputs, "ratio_overflow")
        return Answer(dict.fromkeys(case.outputs), known=reason)
    return named(
        case,
        ours,
        ["mean_of_nothing_verl"] if tune else [],
        1e-7 if tune else 1e-10,
        where={"grad_logprobs": mask, "grad_vpreds": mask},
    )


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
