"""Sampling from the current policy, and scoring of its samples by frozen models in one pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxalign.batches.tokens import TokenBatch
from jaxalign.data.tokenizer import Tokenizer
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
    """

    collect: Callable[[Any, TokenBatch], Any]
    reference: Any
    rewards: Any

    def __call__(self, state: TrainState, key: jax.Array, prompts: TokenBatch) -> Any:
        """Samples of the policy of that state, as `collect` returns them."""
        policies = state.all_params, state.completed(self.reference)
        return self.collect((*policies, self.rewards, key), prompts)


def make_sampler(run: Run, collect: Callable, *, reference: TextModel, judges: Judges) -> Sampler:
    """A sampler on the run's devices.

    Args:
      collect: `((policy, reference, reward parameters, key), prompts) -> samples`.
      reference: what training began with.
      judges: of the samples.
    """
    return Sampler(
        collect=run.layout.rows(collect),
        reference=run.layout.place(reference.trained),
        rewards=run.layout.place(judges.params),
    )
