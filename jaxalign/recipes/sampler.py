"""The policy of the moment answers prompts; frozen models say in the same pass what they think."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxalign.batches.tokens import TokenBatch
from jaxalign.recipes.reward_sources import Judges
from jaxalign.recipes.run import Run
from jaxalign.recipes.text_models import TextModel
from jaxalign.train.step import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """Samples of a policy with what frozen models have to say of them.

    collect: `((policy, reference, reward parameters, key), prompts) -> samples`, compiled.
    reference: values of the trained parameters in the reference, on the devices.
    rewards: parameters of the reward models, on the devices.
    """

    collect: Callable[[Any, TokenBatch], Any]
    reference: Any
    rewards: Any

    def __call__(self, state: TrainState, key: jax.Array, prompts: TokenBatch) -> Any:
        """What `collect` gives for the policy of that state."""
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
