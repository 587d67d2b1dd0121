"""Every loss function alone, on ready log-probabilities: value and gradient, no model."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.losses.material import Material
from benchmarks.losses.steps import MODIFIERS, PPO
from jaxalign.batches.preferences import PairLogps
from jaxalign.logprobs import sequence_logps
from jaxalign.losses import (
    DISTILLATION_LOSSES,
    GROUP_LOSSES,
    ONLINE_LOSSES,
    PAIR_LOSSES,
    UNPAIRED_LOSSES,
)
from jaxalign.losses.bradley_terry import bradley_terry_loss
from jaxalign.losses.cross_entropy import cross_entropy_loss
from jaxalign.losses.declarations import Loss
from jaxalign.losses.group_methods import GroupMethod
from jaxalign.losses.kto import kto_kl
from jaxalign.losses.ld_dpo import length_desensitised_logps
from jaxalign.losses.plackett_luce import plackett_luce_loss
from jaxalign.losses.ppo import ppo_loss, ppo_policy_loss, ppo_value_loss
from jaxalign.losses.process_reward import process_reward_loss
from jaxalign.losses.wpo import wpo_weights
from jaxalign.objectives.policy_gradient import advantages_for
from jaxalign.objectives.preferences import response_lengths

# The inputs of a named loss that a policy makes; all others are data.
TRAINED = (*("policy", "policy_logps", "gold_logps", "reference_sample_logps", "student_logits"),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """A loss function and its arguments.

    name: of the loss.
    losses: `(trained, data) -> [...]`, the unreduced losses.
    trained: pytree that the gradient is with respect to.
    data: pytree of everything else.
    """

    name: str
    losses: Callable[[Any, Any], jax.Array]
    trained: Any
    data: Any

    def run(self) -> Callable[[], Any]:
        """A function of no arguments: losses, summed, and the gradient of the sum, jitted."""

        def total(trained, data):
            return self.losses(trained, data).sum()

        return functools.partial(jax.jit(jax.value_and_grad(total)), self.trained, self.data)

    @property
    def shape(self) -> str:
        """Of the losses, as `[64, 40]`."""
        return str(list(jax.eval_shape(self.losses, self.trained, self.data).shape))


def functions(material: Material) -> list[Function]:
    """All losses, in the order of the steps; before them what a call costs that does nothing."""
    logps = material.pairs.reference.chosen
    nothing = Function(name="the sum of 64 numbers", losses=lambda x, _: x, trained=logps, data=())
    makers = (pairs, labelled, online, group, with_values, from_texts, rewards)
    return [nothing, *(case for make in makers for case in make(material))]


def named(name: str, loss: Loss, inputs: dict[str, Any]) -> Function:
    """A loss of one of the tables, with its default hyper-parameters."""
    needed = {key: inputs[key] for key in loss.inputs}
    return Function(
        name=name,
        losses=lambda trained, data: loss(trained | data),
        trained={key: x for key, x in needed.items() if key in TRAINED},
        data={key: x for key, x in needed.items() if key not in TRAINED},
    )


def pairs(material: Material) -> Iterator[Function]:
    """Losses on pairs of a file, and the modifiers, which read token log-probabilities."""
    batch = material.pairs
    lengths = response_lengths([batch.chosen.response_mask, batch.rejected.response_mask])
    inputs = {
        "policy": PairLogps(
            chosen=material.logps(batch.chosen), rejected=material.logps(batch.rejected)
        ),
        "reference": batch.reference,
        "lengths": lengths,
        "weights": batch.weights,
        "axis_name": None,
        "shift": jnp.float32(0),
        "gold_logps": material.logps(batch.gold),
        "gold_lengths": batch.gold.response_mask.sum(axis=1).astype(jnp.float32),
    }
    for name, loss in PAIR_LOSSES.items():
        yield named(name, loss, inputs)
    tokens = PairLogps(
        chosen=material.token_logps(batch.chosen), rejected=material.token_logps(batch.rejected)
    )
    masks = PairLogps(chosen=batch.chosen.response_mask, rejected=batch.rejected.response_mask)
    data = (batch.reference, masks, jnp.minimum(lengths.chosen, lengths.rejected))
    for name, modifier in MODIFIERS.items():
        losses = functools.partial(modified_dpo, **modifier)
        yield Function(name=name, losses=losses, trained=tokens, data=data)


def modified_dpo(tokens, data, *, loss: Loss, ld_alpha: float | None = None, wpo: bool = False):
    """DPO from token log-probabilities, as `objectives.paired` modifies it."""
    reference, masks, public = data
    summed = sequence_logps
    if ld_alpha is not None:

        def summed(x, mask):
            return length_desensitised_logps(x, mask, public, alpha=ld_alpha)

    policy = jax.tree.map(summed, tokens, masks)
    losses = loss({"policy": policy, "reference": reference})
    if wpo:
        sides = (tokens.chosen, masks.chosen), (tokens.rejected, masks.rejected)
        chosen, rejected = (wpo_weights(x, mask, -jnp.ones_like(x)) for x, mask in sides)
        losses = losses * jnp.minimum(chosen * rejected, 1)
    return losses


def labelled(material: Material) -> Iterator[Function]:
    """Losses on single labelled responses."""
    batch = material.labelled
    other = material.logps(batch.mismatched)
    inputs = {
        "policy_logps": material.logps(batch.responses),
        "reference_logps": batch.reference,
        "labels": batch.labels,
        "shift": jnp.float32(0),
        "kl": kto_kl(other, batch.mismatched_reference, batch.weights),
    }
    for name, loss in UNPAIRED_LOSSES.items():
        yield named(name, loss, inputs)


def online(material: Material) -> Iterator[Function]:
    """Losses on ranked samples."""
    first, second = material.online.first, material.online.second
    own, other = material.logps(first.responses), material.logps(second.responses)
    inputs = {
        "policy": PairLogps(chosen=own, rejected=other),
        "reference": PairLogps(chosen=first.reference, rejected=second.reference),
        "reference_sample_logps": other,
        "policy_logps": own,
        "reference_logps": first.reference,
        "preferences": jax.nn.sigmoid(first.scores),
    }
    for name, loss in ONLINE_LOSSES.items():
        yield named(name, loss, inputs)


def group(material: Material) -> Iterator[Function]:
    """Surrogates of tokens or responses, with the KL of a method that has it in the loss."""
    batch = material.responses
    logps = material.token_logps(batch.inputs)
    for name, method in GROUP_LOSSES.items():
        advantages = material.experience.advantages if method.per_token else batch.advantages
        yield Function(
            name=name,
            losses=functools.partial(surrogate, method=method),
            trained=logps,
            data=dataclasses.replace(batch, advantages=advantages),
        )


def surrogate(logps, batch, *, method: GroupMethod):
    """What the method adds up, before its weights."""
    advantages = advantages_for(method, batch)
    decision = (logps, batch.behaviour_logps, batch.mask, advantages)
    losses = method.surrogate.losses(*decision, **method.hyperparameters)
    if method.loss_kl_coef:
        kl = method.kl_estimator.loss(logps, batch.behaviour_logps, batch.reference_logps)
        losses += method.loss_kl_coef * kl
    return losses


def with_values(material: Material) -> Iterator[Function]:
    """PPO: policy, value and entropy terms."""
    clip = {"clip_range": PPO["clip_range"]}
    value_clip = {"value_clip_range": PPO["value_clip_range"]}

    def losses(trained, batch):
        logps, entropy, values = trained
        return ppo_loss(
            ppo_policy_loss(logps, batch.behaviour_logps, batch.advantages, **clip),
            ppo_value_loss(values, batch.values, batch.returns, **value_clip),
            entropy,
            value_coef=PPO["value_coef"],
            entropy_coef=0.01,
        )

    batch = material.experience
    trained = (material.token_logps(batch.inputs), batch.advantages**2, batch.values)
    yield Function(name="ppo, entropy bonus", losses=losses, trained=trained, data=batch)


def from_texts(material: Material) -> Iterator[Function]:
    """Imitation; distillation reads logits, not log-probabilities of tokens."""
    logps = material.token_logps(material.pairs.chosen)
    yield Function(
        name="sft",
        losses=lambda logps, _: cross_entropy_loss(logps),
        trained=logps,
        data=(),
    )
    teacher = material.taught.teacher_logits
    inputs = {"student_logits": material.noise(*teacher.shape), "teacher_logits": teacher}
    for name, loss in DISTILLATION_LOSSES.items():
        yield named(f"distillation, {name}", loss, inputs)


def rewards(material: Material) -> Iterator[Function]:
    """Losses on scores."""
    scores = material.noise(*material.rankings.mask.shape)
    yield Function(
        name="reward (bradley_terry)",
        losses=lambda scores, _: bradley_terry_loss(scores[:, 0] - scores[:, 1]),
        trained=scores[:, :2],
        data=(),
    )
    ranking = {"trained": scores, "data": material.rankings.mask}
    yield Function(name="ranking (plackett_luce)", losses=plackett_luce_loss, **ranking)
    logits = material.noise(*material.steps.labels.shape)
    step = {"trained": logits, "data": material.steps.labels}
    yield Function(name="process_reward", losses=process_reward_loss, **step)
