"""Sampling from the current policy, and scoring of its samples by frozen models in one pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxalign.batches.tokens import TokenBatch
from jaxalign.data.tokenizer import Tokenizer
from jaxalign.models.layer_stack import is_stacked, unstacked
from jaxalign.recipes.prompts import NO_PROMPTS, Prompts
from jaxalign.recipes.reward_sources import Judges, Reward, judges_of
from jaxalign.recipes.run import Run
from jaxalign.recipes.stage import updates_left
from jaxalign.recipes.text_models import TextModel
from jaxalign.train.step import TrainState

SAMPLE_METRICS = ("scores/mean", "kl/reference")  # that the progress of sampling methods shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask:
    """Prompts to answer, the reward of an answer, and how answers are sampled.

    prompts: dealt out in random order.
    reward: of prompt and response together: a reward model, a function, or several with weights.
    temperature: of policy and reference, in sampling and training.
    max_new_tokens: longest response.
    held_out: prompts on which the policy is evaluated along the way.
    """

    prompts: Prompts
    reward: Reward
    temperature: float
    max_new_tokens: int
    held_out: Prompts = NO_PROMPTS

    def judges(self, run: Run, name: str, tokenizer: Tokenizer, *, updates: int) -> Judges:
        """The judges of all samples that a stage of so many updates has still to draw."""
        left = updates_left(run, name, updates)
        return judges_of(self.reward, tokenizer, self.prompts, iterations=left)

    def decoding(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Arguments of `sample` by name."""
        return {
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "eos_id": tokenizer.stop_ids,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Compiled sampling from a policy, with the outputs of frozen models on the samples.

    collect: `((policy, reference, reward parameters, key), prompts) -> samples`, compiled.
    reference: values of the trained parameters in the reference, on the devices.
    rewards: parameters of the reward models, on the devices.
    layers: of a policy with layers one by one, which training may have stacked; None: it has not.
    frozen: the policy's frozen parameters with their layers one by one, once they were asked for.
    """

    collect: Callable[[Any, TokenBatch], Any]
    reference: Any
    rewards: Any
    layers: int | None = None
    frozen: list[Any] = dataclasses.field(default_factory=list, repr=False)

    def __call__(self, state: TrainState, key: jax.Array, prompts: TokenBatch) -> Any:
        """Samples of the policy of that state, as `collect` returns them."""
        if self.layers is not None and is_stacked(state.params):
            state = self._one_by_one(state, self.layers)
        policies = state.all_params, state.completed(self.reference)
        return self.collect((*policies, self.rewards, key), prompts)

    def _one_by_one(self, state: TrainState, layers: int) -> TrainState:
        """The state with its layers as sampling reads them."""
        if not self.frozen:  # copies, for a step takes the memory of the state
            frozen = state.frozen and unstacked(state.frozen, layers)
            self.frozen.append(jax.tree.map(jnp.copy, frozen))
        params = unstacked(state.params, layers)
        return dataclasses.replace(state, params=params, frozen=self.frozen[0])


def make_sampler(run: Run, collect: Callable, *, reference: TextModel, judges: Judges) -> Sampler:
    """A sampler on the run's devices.

    Args:
      collect: `((policy, reference, reward parameters, key), prompts) -> samples`.
      reference: what training began with.
      judges: of the samples.
    """
    config = reference.model.config
    return Sampler(
        collect=run.layout.rows(collect),
        reference=run.layout.place(reference.trained),
        rewards=run.layout.place(judges.params),
        layers=None if config.scan_layers else config.layers,
    )
