"""Paired preferences: TRL's DPO (1.16 and 0.24), CPO, SimPO, AlphaPO, ORPO and TPO trainers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxalign as ja
from benchmarks.conformance.adapters.common import SINGLE, mean_with_gradients, with_gradients
from benchmarks.conformance.answers import Answer, Uncovered
from benchmarks.conformance.cases import Case, read_cases
from jaxalign import PairLengths, PairLogps

KNOWN_DISAGREEMENTS = {
    "trl_alpha_coefficient": "TRL 1.16 counts alpha of the alpha divergence as 1 - alpha of the "
    "paper, in float32, and its exponent stops at 80",
    "exo_smoothing": "TRL 0.24 takes 0.001 where EXO's label smoothing is 0; the loss is infinite",
    "exo_float32": "TRL 1.16 rounds EXO's label smoothing to float32",
    "trl_ignores_smoothing": "TRL 1.16's sigmoid ignores label_smoothing; cDPO applies it",
    "bco_mean_of_means": "TRL 0.24's shift in DPO is a float32 mean of batch means; BCO's is the "
    "mean of all rewards",
    "pooled_likelihood": "TRL's likelihood term is a mean over all tokens of a micro-batch; CPO's, "
    "ORPO's and TPO's are means of responses",
    "orpo_prompt": "TRL's ORPO imitates the prompt too",
    "orpo_float32": "TRL's log odds are float32, and NaN where a probability rounds to 1",
    "alphapo_overflow": "TRL exponentiates log-probabilities before it takes their power, which "
    "underflows",
    "alpha_saturation": "beyond exp(354) ours goes on in a straight line; the peer overflows or "
    "stops",
    "reference_stays": "TRL 0.24's reference_free leaves the reference in "
    "BCO, SPPO, NCA, AOT and DiscoPOP",
    "torch_softplus": "PyTorch's softplus is the identity above 20, and so without a slope in the "
    "score of the Jensen-Shannon divergence",
    "discopop_without_divergence": "TRL 0.24's DiscoPOP ignores the divergence",
    "trl_sorted_weights": "TRL multiplies AOT's sorted losses by WPO's weights in the "
    "order of the batch",
    "peer_failed": "the peer raised an error or returned no finite number",
}


def first_half(x):
    """Chosen and rejected of an array of both."""
    return PairLogps(chosen=x[: len(x) // 2], rejected=x[len(x) // 2 :])


def torch_jensen_shannon(log_ratios):
    """With PyTorch's softplus, which is the identity above 20."""
    below = ja.jensen_shannon_score(jnp.minimum(log_ratios, 20))
    return jnp.where(log_ratios > 20, jnp.log(2.0), below)


def scores_of(args: dict, legacy: bool):
    """The divergence's score function, and the disagreement that it comes with."""
    kind = args.get("f_divergence_type", "reverse_kl")
    plain = {
        "reverse_kl": ja.reverse_kl_score,
        "forward_kl": ja.forward_kl_score,
        "js_divergence": torch_jensen_shannon if legacy else ja.jensen_shannon_score,
    }
    if kind in plain:
        return plain[kind], None
    coefficient = args.get("f_alpha_divergence_coef", 1.0 if legacy else 0.5)
    if legacy:
        return functools.partial(ja.alpha_score, alpha=coefficient), None
    alpha = 1 - coefficient
    if abs(alpha) < 1e-6:
        return ja.reverse_kl_score, "trl_alpha_coefficient"

    def capped(log_ratios):
        beyond = -alpha * log_ratios > 80
        return ja.alpha_score(jnp.where(beyond, -80 / alpha, log_ratios), alpha=alpha)

    return capped, "trl_alpha_coefficient"


def smoothing(args: dict) -> float:
    return args.get("label_smoothing") or 0.0


def loss_of(kind: str, args: dict, *, lengths, weights, score, shift=0.0):
    """`(policy, reference) -> [B]`, the loss that TRL calls `kind`."""
    beta, e = args["beta"], smoothing(args)

    def scored(loss):
        """A loss of the divergence's scores in place of log-ratios."""

        def of_scores(policy, reference):
            scores = jax.tree.map(score, ja.log_ratios(policy, reference))
            return loss(scores, ja.no_reference(scores))

        return of_scores

    fill = functools.partial
    losses = {
        "sigmoid": fill(ja.f_dpo_loss, beta=beta, score=score, label_smoothing=e),
        "hinge": scored(fill(ja.hinge_loss, beta=beta)),
        "ipo": scored(
            fill(ja.ipo_loss, beta=beta)
            if lengths is None
            else lambda p, r: ja.averaged_ipo_loss(p, r, lengths, beta=beta)
        ),
        "exo_pair": scored(fill(ja.exo_pair_loss, beta=beta, label_smoothing=e or 1e-3)),
        "nca_pair": fill(ja.nca_pair_loss, beta=beta),
        "robust": scored(fill(ja.robust_dpo_loss, beta=beta, label_smoothing=e)),
        "bco_pair": fill(ja.bco_pair_loss, beta=beta, shift=shift),
        "sppo_hard": fill(ja.sppo_hard_loss, beta=beta),
        "aot": lambda p, r: ja.aot_loss(p, r, weights, beta=beta, label_smoothing=e),
        "aot_unpaired": lambda p, r: ja.aot_unpaired_loss(
            p, r, weights, beta=beta, label_smoothing=e
        ),
        "apo_zero": fill(ja.apo_zero_loss, beta=beta),
        "apo_down": fill(ja.apo_down_loss, beta=beta),
        "discopop": scored(
            fill(ja.discopop_loss, beta=beta, temperature=args.get("discopop_tau", 0.05))
        ),
        "sigmoid_norm": scored(
            lambda p, r: ja.length_normalised_dpo_loss(p, r, lengths, beta=beta)
        ),
    }
    losses["aot_pair"] = losses["aot_unpaired"]
    return losses.get(kind)


def dpo(case: Case) -> Answer | Uncovered:
    """TRL 1.16: token log-probabilities in, chosen rows first."""
    args, x = dict(case.args), case.inputs
    if "policy_per_token_logps" not in x:
        return Uncovered("a whole model, not a function")
    kinds = args["loss_type"]
    score, name = scores_of(args, legacy=False)
    known = [name] if name else []
    tolerance = _single_sums(x, args) if name else 1e-10
    settings = [args | {"label_smoothing": 0.0} if kind == "sigmoid" else args for kind in kinds]
    if smoothing(args) and "sigmoid" in kinds:
        known.append("trl_ignores_smoothing")
    if "exo_pair" in kinds:
        known.append("exo_float32")
        tolerance = max(tolerance, SINGLE)
    mask = x["completion_mask"][:, 1:] != 0
    counts = first_half(np.maximum(x["completion_mask"].sum(axis=1), 1.0))
    lengths = PairLengths(chosen=counts.chosen, rejected=counts.rejected)
    pairs = len(mask) // 2
    public = np.tile(np.minimum(*(mask[:pairs].sum(1), mask[pairs:].sum(1))), 2)

    def logps(tokens):
        if args.get("ld_alpha") is None:
            return first_half(ja.sequence_logps(tokens, mask))
        return first_half(
            ja.length_desensitised_logps(tokens, mask, public, alpha=args["ld_alpha"])
        )

    weight, weighted = 1.0, args.get("use_weighting", False)
    if weighted:
        each = ja.wpo_weights(x["policy_per_token_logps"], mask, x["log_sum_sq_probs"])
        weight = each[:pairs] * each[pairs:]
        known += ["trl_sorted_weights"] if any(kind.startswith("aot") for kind in kinds) else []
    reference = logps(jnp.asarray(x["ref_per_token_logps"]))
    straight = np.zeros(pairs, bool)
    if args.get("f_divergence_type") == "forward_kl":
        straight = _steep(ja.log_ratios(reference, logps(tokens_of(x))))
    shares = args.get("loss_weights") or [1.0] * len(kinds)
    terms = [
        loss_of(kind, setting, lengths=lengths, weights=np.ones(pairs), score=score)
        for kind, setting in zip(kinds, settings, strict=True)
    ]
    if any(term is None and kind != "sft" for term, kind in zip(terms, kinds, strict=True)):
        return Uncovered(f"loss type {kinds}")

    def losses(policy, tokens):
        total = jnp.zeros(pairs)
        for kind, term, share in zip(kinds, terms, shares, strict=True):
            if term is None:
                chosen = jnp.where(mask[:pairs], ja.cross_entropy_loss(tokens[:pairs]), 0)
                one = jnp.broadcast_to(chosen.sum() / mask[:pairs].sum(), (pairs,))
            else:
                one = term(policy, reference)
            if kind.startswith("aot") and weighted:
                one = one[jnp.argsort(ranking(kind, policy, reference))]
            total += share * one * weight
        return total

    tokens = tokens_of(x)
    policy = logps(tokens)
    loss, by_token = with_gradients(lambda t: losses(logps(t), t).mean(), tokens)
    _, chosen, rejected = with_gradients(
        lambda c, r: losses(PairLogps(chosen=c, rejected=r), tokens).mean(),
        policy.chosen,
        policy.rejected,
    )
    ours = {
        "loss": loss,
        "per_pair_loss": losses(policy, tokens),
        "grad_per_token_logps": by_token,
        "grad_chosen_logps": chosen,
        "grad_rejected_logps": rejected,
    }
    # Elsewhere the peer's gradients are of log-probabilities that are not there.
    where = {"grad_per_token_logps": mask}
    return named(case, ours, known, tolerance, where=where, straight=straight)


def _steep(*sides: PairLogps):
    """Pairs of which an exponential passes exp(354), where ours goes on in a straight line."""
    return np.any([np.asarray(side) > 354 for pair in sides for side in jax.tree.leaves(pair)], 0)


def _single_sums(inputs: dict, args: dict) -> float:
    """float32 log-ratios are sums of log-probabilities; alpha times their error is the score's."""
    sums = [np.abs(inputs[f"{k}_per_token_logps"]).sum(axis=1).max() for k in ("policy", "ref")]
    alpha = 1 - args.get("f_alpha_divergence_coef", 0.5)
    return SINGLE + 8 * 2.0**-24 * abs(alpha) * float(max(sums))


def tokens_of(inputs):
    """Token log-probabilities of the policy, chosen rows first."""
    return jnp.asarray(inputs["policy_per_token_logps"])


def named(
    case: Case, ours: dict, known: list[str], tolerance=1e-10, *, where=None, straight=None
) -> Answer:
    """Our numbers for the outputs that the case has.

    Entries that the manifest flags as not finite are not compared, but ours must not be NaN there;
    nor are those of the pairs in `straight`, and sums over them.
    """
    outputs, because, kept = {}, {}, {}
    for name, theirs in case.outputs.items():
        if name not in ours:
            continue
        reasons, finite = list(known), np.isfinite(theirs)
        counted = np.broadcast_to((where or {}).get(name, True), finite.shape)
        if name not in case.info.get("nonfinite_outputs", ()):
            finite = np.ones_like(finite)
        if straight is not None and straight.any():
            reasons.append("alpha_saturation")
            counted = counted & _of_pairs(~straight, finite.shape)
        if (counted & ~finite).any():
            reasons.append("peer_failed")
            if np.isnan(np.broadcast_to(ours[name], finite.shape)[counted & ~finite]).any():
                raise ValueError(f"{name}: ours is NaN too")
        counted = counted & finite
        outputs[name] = None if reasons and not counted.any() else ours[name]
        kept[name] = counted
        because |= {name: " + ".join(reasons)} if reasons else {}
    return Answer(outputs, known=because, tolerance=tolerance, where=kept)


def _of_pairs(good, shape):
    """Which entries of an output are of good pairs: a row each, two rows each, or all of them."""
    if shape[:1] == (2 * len(good),):
        return np.tile(good, 2).reshape(-1, *[1] * (len(shape) - 1))
    return good if shape == good.shape else good.all()


REFERENCE_STAYS = ("bco_pair", "sppo_hard", "nca_pair", "aot_pair", "aot", "discopop")


def dpo_legacy(case: Case) -> Answer | Uncovered:
    """TRL 0.24: summed log-probabilities (averages for IPO) in, a loss for each pair out."""
    args, x = dict(case.args), case.inputs
    kind = args["loss_type"]
    known = []
    reference = PairLogps(chosen=x["ref_chosen_logps"], rejected=x["ref_rejected_logps"])
    frozen = reference
    if args.get("reference_free"):
        if kind in REFERENCE_STAYS:
            known = ["reference_stays"]
        else:
            frozen = ja.no_reference(reference)
    if kind == "exo_pair" and not smoothing(args):
        known.append("exo_smoothing")
    shift = 0.0
    if kind == "bco_pair":
        shift = mean_of_means(case)
        known.append("bco_mean_of_means")
    if kind == "discopop" and args.get("f_divergence_type", "reverse_kl") != "reverse_kl":
        args["f_divergence_type"] = "reverse_kl"
        known.append("discopop_without_divergence")
    if args.get("f_divergence_type") == "js_divergence":
        known.append("torch_softplus")
    score, _ = scores_of(args, legacy=True)
    loss = loss_of(
        kind, args, lengths=None, weights=np.ones(len(frozen.chosen)), score=score, shift=shift
    )
    if loss is None:
        return Uncovered(f"loss type {kind}")
    each, chosen, rejected = mean_with_gradients(
        lambda c, r: loss(PairLogps(chosen=c, rejected=r), frozen),
        x["policy_chosen_logps"],
        x["policy_rejected_logps"],
    )
    policy = PairLogps(chosen=x["policy_chosen_logps"], rejected=x["policy_rejected_logps"])
    straight = np.zeros(len(frozen.chosen), bool)
    if args.get("f_divergence_type") == "alpha_divergence":
        alpha = args.get("f_alpha_divergence_coef", 1.0)
        steepness = jax.tree.map(lambda u: alpha * u, ja.log_ratios(frozen, policy))
        straight = _steep(steepness)
    rewards = ja.implicit_rewards(policy, reference, beta=args["beta"])
    order = jnp.argsort(ranking(kind, policy, frozen))
    ours = {
        "losses": each[order] if kind.startswith("aot") else each,
        "loss": each.mean(),
        "grad_chosen_logps": chosen,
        "grad_rejected_logps": rejected,
        "chosen_rewards": rewards.chosen,
        "rejected_rewards": rewards.rejected,
    }
    return named(case, ours, known, SINGLE if kind == "bco_pair" else 1e-10, straight=straight)


def ranking(kind: str, policy: PairLogps, reference: PairLogps):
    """What AOT sorts rows by: the peer returns its losses in that order."""
    if kind == "aot":
        return policy.chosen - policy.rejected
    return ja.log_ratios(policy, reference).chosen


def mean_of_means(case: Case):
    """The shift after this call: each earlier call of its sequence counts once."""
    place = case.info.get("runs") or {}
    earlier = [
        other
        for other in read_cases(case.folder, case.file)
        if place
        and (other.info.get("runs") or {}).get("sequence") == place["sequence"]
        and other.args["beta"] == case.args["beta"]
        and other.info["runs"]["step"] < place["step"]
    ]
    state = ja.RunningMean(mean=jnp.zeros(()), count=jnp.zeros(()))
    for call in [*sorted(earlier, key=lambda other: other.info["runs"]["step"]), case]:
        x = call.inputs
        sides = [x[f"policy_{k}_logps"] - x[f"ref_{k}_logps"] for k in ("chosen", "rejected")]
        mean = call.args["beta"] * np.concatenate(sides).mean()
        state = ja.running_shift(state, jnp.array([mean]), jnp.ones(1, bool))
    return state.mean


def odds(case: Case) -> Answer:
    """ORPO's odds ratio on average log-probabilities."""
    x, beta = case.inputs, case.args["beta"]
    one = np.ones(len(x["chosen_logps"]))
    lengths = PairLengths(chosen=one, rejected=one)

    def losses(chosen, rejected):
        pair = PairLogps(chosen=chosen, rejected=rejected)
        return -ja.orpo_loss(pair, lengths, beta=beta, nll_coef=0.0)

    each, chosen, rejected = mean_with_gradients(losses, x["chosen_logps"], x["rejected_logps"])
    margin = ja.log_odds(x["chosen_logps"]) - ja.log_odds(x["rejected_logps"])
    ours = {
        "beta_logsigmoid_log_odds": each,
        "mean_logsigmoid_log_odds": each.mean() / beta,
        "mean_log_odds": margin.mean(),
        "chosen_rewards": beta * x["chosen_logps"],
        "rejected_rewards": beta * x["rejected_logps"],
        "grad_chosen_logps": chosen,
        "grad_rejected_logps": rejected,
    }
    return named(case, ours, ["orpo_float32"], SINGLE)


def cpo_family(args: dict, policy: PairLogps, lengths: PairLengths):
    """CPO's losses without their likelihood term; `[B]`."""
    kind, beta, e = args["loss_type"], args["beta"], smoothing(args)
    kind = "simpo" if kind == "alphapo" else kind
    gamma, alpha = args.get("simpo_gamma", 0.5), args.get("alpha")
    if alpha and kind == "simpo":
        settings = {"alpha": alpha, "gamma": gamma, "label_smoothing": e}
        return ja.alphapo_loss(policy, lengths, beta=beta, **settings)
    if alpha:
        counts = jax.tree.leaves(lengths) if kind == "ipo" else (1, 1)
        sides = zip(jax.tree.leaves(policy), counts, strict=True)
        chosen, rejected = (ja.alpha_score(side / n, alpha=alpha) for side, n in sides)
        policy = PairLogps(chosen=chosen, rejected=rejected)
        lengths = jax.tree.map(jnp.ones_like, lengths)
    free = ja.no_reference(policy)
    if kind in ("simpo", "tpo-l"):
        gamma = args.get("tpo_l_gamma", 0.5) if kind == "tpo-l" else gamma
        return ja.simpo_loss(policy, lengths, beta=beta, gamma=gamma, label_smoothing=e)
    if kind == "sigmoid":
        return ja.cpo_loss(policy, lengths, beta=beta, nll_coef=0.0, label_smoothing=e)
    if kind == "hinge":
        return ja.hinge_loss(policy, free, beta=beta)
    if kind == "ipo":
        return ja.averaged_ipo_loss(policy, free, lengths, beta=beta)
    return None


def cpo(case: Case) -> Answer | Uncovered:
    """`cpo_loss` on log-probabilities as they come: sums or averages."""
    x, args = case.inputs, case.args
    one = np.ones(len(x["chosen_logps"]))
    lengths = PairLengths(chosen=one, rejected=one)

    def losses(chosen, rejected):
        return cpo_family(args, PairLogps(chosen=chosen, rejected=rejected), lengths)

    if losses(jnp.zeros(len(one)), jnp.zeros(len(one))) is None:
        return Uncovered(f"loss type {args['loss_type']}")
    each, chosen, rejected = mean_with_gradients(losses, x["chosen_logps"], x["rejected_logps"])
    shaped = (x["chosen_logps"], x["rejected_logps"])
    if args.get("alpha"):
        shaped = tuple(ja.alpha_score(jnp.asarray(s), alpha=args["alpha"]) for s in shaped)
    ours = {
        "losses": each,
        "chosen_rewards": args["beta"] * shaped[0],
        "rejected_rewards": args["beta"] * shaped[1],
        "grad_chosen_logps": chosen,
        "grad_rejected_logps": rejected,
    }
    known, where = [], None
    if args.get("alpha"):
        normal = [side > -700 for side in (x["chosen_logps"], x["rejected_logps"])]
        where = dict.fromkeys(ours, normal[0] & normal[1])
        where |= {"chosen_rewards": normal[0], "rejected_rewards": normal[1]}
        known = [] if all(map(np.all, normal)) else ["alphapo_overflow"]
    return named(case, ours, known, tolerance_of(case), where=where)


def tolerance_of(case: Case) -> float:
    return SINGLE if case.info.get("dtype") == "float32" else 1e-10


def end_to_end(case: Case) -> Answer | Uncovered:
    """From logits: the pair's loss, and a likelihood pooled over tokens as the peer does it."""
    args, x = case.args, case.inputs
    labels = np.asarray(x["labels"])
    tpo, orpo = "TPO" in case.function, "ORPO" in case.function
    tpo_alpha = args.get("tpo_alpha", 1.0)
    parts = 3 if tpo and tpo_alpha else 2
    mask = labels != -100
    mask[:, 0] = False
    tokens = np.where(mask, labels, 0)
    rows = len(labels) // parts
    if tpo:
        imitated, coefficient = slice((parts - 1) * rows, None), tpo_alpha
    else:
        imitated, coefficient = slice(0, rows), 1.0 if orpo else args.get("cpo_alpha", 1.0)
        coefficient = 0.0 if args.get("loss_type") == "alphapo" else coefficient
    imitation = mask[imitated]
    if orpo:
        imitation = np.asarray(x["attention_mask"][imitated]) != 0
        imitation[:, 0] = False
    counts = mask.sum(axis=1).astype(float)
    lengths = PairLengths(chosen=counts[:rows], rejected=counts[rows : 2 * rows])

    def loss(logits):
        logps = ja.sequence_logps(ja.token_logps(logits, tokens), mask)
        policy = PairLogps(chosen=logps[:rows], rejected=logps[rows : 2 * rows])
        ids = np.asarray(x["input_ids"])[imitated] if orpo else tokens[imitated]
        likelihood = ja.cross_entropy_loss(ja.token_logps(logits[imitated], ids))
        pooled = ja.masked_mean(likelihood, imitation)
        if orpo:
            pair = ja.orpo_loss(policy, lengths, beta=args["beta"], nll_coef=0.0)
        else:
            pair = cpo_family(args, policy, lengths)
        return pair.mean() + coefficient * pooled

    known_types = ("sigmoid", "hinge", "ipo", "simpo", "tpo-l", "alphapo")
    if not orpo and args["loss_type"] not in known_types:
        return Uncovered(f"loss type {args['loss_type']}")
    value, gradient = with_gradients(loss, x["logits"])
    known = ["pooled_likelihood"] + (["orpo_prompt", "orpo_float32"] if orpo else [])
    return named(case, {"loss": value, "grad_logits": gradient}, known, SINGLE if orpo else 1e-10)


_CPO = "trl.experimental.cpo.cpo_trainer.CPOTrainer"
_ORPO = "trl.experimental.orpo.orpo_trainer.ORPOTrainer"
ADAPTERS = {
    "trl.DPOTrainer._compute_loss": dpo,
    "trl.DPOTrainer.dpo_loss": dpo_legacy,
    f"{_ORPO}.odds_ratio_loss": odds,
    f"{_ORPO}.get_batch_loss_metrics": end_to_end,
    f"{_CPO}.cpo_loss": cpo,
    f"{_CPO}.get_batch_loss_metrics": end_to_end,
    "trl.experimental.tpo.tpo_trainer.TPOTrainer._compute_loss": end_to_end,
}
