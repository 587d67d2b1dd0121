"""The configuration of `jaxalign grpo`: policy gradients without a value function."""

import dataclasses
from typing import Any, Literal

from jaxalign.config.checks import (
    config,
    require,
    require_at_least,
    require_no_held_out,
    require_one,
    require_one_reward,
    require_passes,
    require_penalty,
    require_temperature,
)
from jaxalign.config.data import DataConfig, PlaceConfig
from jaxalign.config.loop import OptimizerConfig
from jaxalign.config.model import LoraConfig, check_lora
from jaxalign.config.names import (
    AdvantagesName,
    AggregationName,
    GroupLossName,
    hyperparameter_names,
    with_hyperparameters,
)
from jaxalign.losses import GROUP_LOSSES
from jaxalign.losses.group_methods import PARTS, GroupMethod, with_parts


@config
@with_hyperparameters(GROUP_LOSSES)
class GRPOSettings:
    """GRPO and its relatives on groups of sampled responses.

    Of what belongs to the method, None is the choice of the chosen loss; what the loss has no use
    for is refused.
    """

    loss: GroupLossName = "grpo"
    """Published method; `--loss` for short."""
    iterations: int | None = None
    """Rounds of sampling and learning; None: as `prompt_epochs` says, or else following the
    model."""
    prompt_epochs: float | None = None
    """Passes over the prompts in place of iterations, above 0; a part of one is rounded up to
    rounds."""
    prompts: int = 32
    """Prompts of a round."""
    group_size: int = 8
    """Responses sampled for each of them."""
    epochs: int = 1
    """Passes over a round's responses."""
    minibatches: int = 1
    """Optimizer steps in a pass; after the first one of a round, ratios leave 1."""
    micro_batches: int = 1
    """Parts of a minibatch whose gradients are added up one after the other; the update is the
    same."""
    advantages: AdvantagesName | None = None
    """How scores are compared: within the group and scaled by its deviation (group), by that of the
    batch, or not scaled (centred); with the others of the group, with the second best, with a mean
    weighted by lengths; or returns of tokens whitened over the batch."""
    aggregation: AggregationName | None = None
    """How token losses become one number: mean over tokens, mean over responses of their means or
    of their sums, or sums over a constant length (that of the longest response)."""
    clip_range: tuple[float, float] | None = None
    """How far the ratio may fall below and rise above 1; for gmpo, its logarithm from 0."""
    dual_clip: float | None = None
    """Bound of the ratio where the advantage is negative (two-sided clip), above 1 + the upper
    range; None: none."""
    positive_temperature: float | None = None
    """How fast the gate of sapo closes where the advantage is positive."""
    negative_temperature: float | None = None
    """The same elsewhere."""
    positive: tuple[float, float] | None = None
    """Exponent and rate of vespo's weight for advantages of at least 0."""
    negative: tuple[float, float] | None = None
    """The same below."""
    gamma: float | None = None
    """Discount of reinforce_plus_plus advantages, in [0, 1]; None: 1."""
    kl_coef: float | None = None
    """Price of a nat of KL to the reference, in reward units; 0: none."""
    kl_in: Literal["loss", "reward"] | None = None
    """Whether the KL is a term of the loss or charged to the reward."""
    kl_estimator: Literal["k1", "k2", "k3", "corrected"] | None = None
    """k1, k2 or k3 in the reward (None: k1); k2, k3 or corrected, which is the ratio times k3, in
    the loss (None: k3)."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    top_entropy: float | None = None
    """Train only this share of the tokens, those the sampling policy was least certain of; None:
    all. The divisor counts all."""
    mask_truncated: bool | None = None
    """Leave responses that were cut off out of loss and divisor."""
    drop_equal_groups: bool | None = None
    """Leave groups of equal scores, which teach nothing, out of loss and divisor."""
    overlong_share: float | None = None
    """In the last so large share of max_new_tokens every token costs reward, up to 1; 0: none."""
    missing_eos_penalty: float = 0.0
    """Taken from the score of a response that did not end by itself; 0: nothing."""
    importance_cap: float | None = None
    """Largest importance weight between sampler and trainer, whose numbers differ; None: no
    weights."""
    importance_mode: Literal["truncate", "mask"] | None = None
    """Weights above the cap become the cap, or 0; None: truncate."""
    importance_level: Literal["token", "sequence"] | None = None
    """A weight for each token, or for each response; None: token."""
    log_every: int = 1
    """Rounds between lines of metrics."""
    checkpoint_every: int = 10
    """Rounds between checkpoints."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule. Where nothing is given: for a published model, or one of 10 million parameters,
    learning_rate 1e-6 (with LoRA 1e-5), constant, no warm-up, b2 0.999 (DeepSeekMath, DAPO, TRL)
    and 1 pass over the prompts; for a small one learning_rate 1e-3, constant, no warm-up, b2 0.99
    and 40 rounds."""

    def __post_init__(self):
        method = self.method
        loop = ("prompts", "group_size", "epochs", "minibatches", "micro_batches")
        require_at_least(1, "grpo.", self, *loop, "log_every", "checkpoint_every")
        require_at_least(0, "grpo.", self, "iterations", "entropy_coef")
        require_penalty("grpo", self.missing_eos_penalty)
        require_passes("grpo.prompt_epochs", self.prompt_epochs)
        require_one("grpo.", self, "iterations", "prompt_epochs")
        require(
            self.batch_size % self.minibatches == 0,
            f"grpo.prompts {self.prompts} x group_size {self.group_size} is not a multiple of "
            f"minibatches {self.minibatches}",
        )
        require(
            self.group_size > 1 or method.per_token,
            f"advantages {method.advantages} compare the responses to one prompt; "
            "set grpo.group_size to at least 2",
        )
        require(
            method.surrogate.uses_ratios or self.epochs * self.minibatches == 1,
            f"loss {self.loss} knows no ratio to correct for an older policy; "
            "set grpo.epochs and grpo.minibatches to 1",
        )

    @property
    def rounds(self) -> int:
        """`iterations`, which a run settles before it trains."""
        assert self.iterations is not None, "iterations follow the model, which nobody has asked"
        return self.iterations

    @property
    def batch_size(self) -> int:
        """Responses of a round."""
        return self.prompts * self.group_size

    @property
    def method(self) -> GroupMethod:
        """The chosen loss with what is given in place of its own."""
        names = (*PARTS, *hyperparameter_names(GROUP_LOSSES.values()))
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        return with_parts(GROUP_LOSSES[self.loss], **given)


@config
class GRPOConfig:
    """GRPO or a relative of it: a policy against reward models and functions, without values."""

    policy: str = ""
    """Run directory of the policy to start from; it is the reference too."""
    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for it: merged, or trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    reward: str = ""
    """Run directory of a reward model of the same vocabulary, or FILE.py:NAME, a function that
    gives a score for each sample, def NAME(prompts, responses, **columns); NAME may be left out
    if it is `reward`."""
    rewards: dict[str, float] = dataclasses.field(default_factory=dict)
    """Several of them instead, each with its weight in the sum of scores:
    `runs/reward 1 rewards.py:brevity 0.2`."""
    data: DataConfig = DataConfig()
    """Rows with `prompt`; functions get their other fields too, as columns."""
    grpo: GRPOSettings = GRPOSettings()
    """Method and loop."""
    temperature: float = 1.0
    """Of the policy and the reference, in sampling and training alike, > 0."""
    max_new_tokens: int = 32
    """Longest response in tokens."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""
    seed: int = 0
    """Of prompts' order and sampling."""

    def __post_init__(self):
        require_temperature(self.temperature)
        require_one_reward(self.reward, self.rewards)
        require_at_least(1, "", self, "max_new_tokens")
        require_no_held_out(self.data, "grpo")
        check_lora(self.lora, self.grpo.optimizer, sampled=True)
