"""Labels of single responses: TRL's KTO and BCO trainers."""

import jax.numpy as jnp
import numpy as np

import jaxalign as ja
from benchmarks.conformance.adapters.common import SINGLE, mean_with_gradients, with_gradients
from benchmarks.conformance.adapters.pairs import named
from benchmarks.conformance.answers import Answer, Uncovered
from benchmarks.conformance.cases import Case, read_cases

KNOWN_DISAGREEMENTS = {
    "bco_float32": "TRL 0.24 keeps BCO's running shift in float32",
}


def kto(case: Case) -> Answer | Uncovered:
    """Token log-probabilities of responses and of mismatched ones in."""
    args, x = case.args, case.inputs
    mask, other = (x[f"{k}completion_mask"][:, 1:] != 0 for k in ("", "KL_"))
    labels, ones = np.asarray(x["label"], bool), np.ones(len(mask))
    reference = ja.sequence_logps(x["ref_per_token_logps"], mask)
    mismatched = [ja.sequence_logps(x[f"KL_{k}_per_token_logps"], other) for k in ("policy", "ref")]
    kl = ja.kto_kl(*mismatched, ones)
    weights = {
        "desirable_weight": args.get("desirable_weight", 1.0),
        "undesirable_weight": args.get("undesirable_weight", 1.0),
    }

    def losses(policy):
        if args.get("loss_type", "kto") == "kto":
            return ja.kto_loss(policy, reference, labels, beta=args["beta"], kl=kl, **weights)
        each = ja.apo_zero_unpaired_loss(policy, reference, labels, beta=args["beta"])
        return each * jnp.where(labels, *weights.values())

    if args.get("loss_type", "kto") not in ("kto", "apo_zero_unpaired"):
        return Uncovered(f"loss type {args['loss_type']}")
    tokens = x["policy_per_token_logps"]
    value, by_token = with_gradients(lambda t: losses(ja.sequence_logps(t, mask)).mean(), tokens)
    _, summed = with_gradients(lambda s: losses(s).mean(), ja.sequence_logps(tokens, mask))
    ours = {"loss": value, "grad_per_token_logps": by_token, "grad_logps": summed}
    ours["kl"] = kl if args.get("loss_type", "kto") == "kto" else 0.0
    return named(case, ours, [], where={"grad_per_token_logps": mask})


def bco(case: Case) -> Answer:
    """Consecutive calls of a run share the shift; each updates it before its loss."""
    x, beta = case.inputs, case.args["beta"]
    run, step = case.info.get("run"), case.info.get("step", 0)
    calls = [
        other
        for other in read_cases(case.folder, case.file)
        if run is not None and other.info.get("run") == run and other.info.get("step", 0) < step
    ]
    state = ja.RunningMean(mean=jnp.zeros(()), count=jnp.zeros(()))
    for call in [*sorted(calls, key=lambda other: other.info.get("step", 0)), case]:
        rewards = call.args["beta"] * np.concatenate(ratios(call))
        state = ja.running_shift(state, rewards, np.ones(len(rewards), bool))
    good = len(x["policy_chosen_logps"])
    labels = np.arange(good + len(x["policy_rejected_logps"])) < good
    reference = np.concatenate([x["ref_chosen_logps"], x["ref_rejected_logps"]])
    weights = np.ones(len(labels))
    if "udm_weights" in x:
        weights[good:] = np.ravel(x["udm_weights"])

    def losses(chosen, rejected):
        policy = jnp.concatenate([chosen, rejected])
        each = ja.bco_loss(policy, reference, labels, beta=beta, shift=state.mean)
        return each * weights

    each, chosen, rejected = mean_with_gradients(
        losses, x["policy_chosen_logps"], x["policy_rejected_logps"]
    )
    rewards = [beta * side for side in ratios(case)]
    ours = {
        "losses": each,
        "loss": each.mean(),
        "delta": state.mean,
        "chosen_rewards": rewards[0],
        "rejected_rewards": rewards[1],
        "grad_chosen_logps": chosen,
        "grad_rejected_logps": rejected,
    }
    return named(case, ours, ["bco_float32"], SINGLE)


def ratios(case: Case):
    """Log-ratios of good and of bad responses."""
    x = case.inputs
    sides = ("chosen", "rejected")
    return tuple(x[f"policy_{side}_logps"] - x[f"ref_{side}_logps"] for side in sides)


ADAPTERS = {"trl.KTOTrainer._compute_loss": kto, "trl.BCOTrainer.bco_loss": bco}
