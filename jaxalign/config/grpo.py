"""The configuration of `jaxalign grpo`: policy gradients without a value function."""

from typing import Any

from jaxalign.config.checks import config, require, require_one
from jaxalign.config.data import require_in_memory
from jaxalign.config.iterations import IterationSettings
from jaxalign.config.loop import OptimizerConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.names import (
    METHOD_PARTS,
    AdvantagesName,
    AggregationName,
    GroupLossName,
    ImportanceLevelName,
    ImportanceModeName,
    KLEstimatorName,
    hyperparameter_names,
    with_hyperparameters,
)
from jaxalign.config.ranges import Positive, Share, Size, Weight, WholePasses
from jaxalign.config.training import SampledFields
from jaxalign.losses import GROUP_LOSSES
from jaxalign.losses.group_methods import PARTS, GroupMethod, KLPlace, with_parts


@config
@with_hyperparameters(GROUP_LOSSES)
class GRPOSettings(IterationSettings):
    """GRPO and its relatives on groups of sampled responses.

    Of what belongs to the method, None is the choice of the chosen loss; what the loss has no use
    for is refused.
    """

    loss: GroupLossName = "grpo"
    """Published method: advantages, surrogate, aggregation, KL."""
    prompts: Size = 32
    """Prompts of an iteration."""
    group_size: Size = 8
    """Responses sampled for each of them."""
    update_epochs: WholePasses = 1
    """Passes over the responses of an iteration."""
    minibatches: Size = 1
    """Optimizer steps in a pass; after the first one of an iteration, ratios leave 1."""
    advantages: AdvantagesName | None = None
    """How scores are compared: within the group and scaled by its deviation (group), by that of the
    batch, or not scaled (centred); with the others of the group, with the second best, with a mean
    weighted by lengths; or returns of tokens whitened over the batch."""
    aggregation: AggregationName | None = None
    """How token losses become one number: mean over tokens, mean over responses of their means or
    of their sums, or sums over a constant length (that of the longest response)."""
    clip_range: tuple[Weight, Weight] | None = None
    """How far the ratio may fall below and rise above 1; for gmpo, its logarithm from 0."""
    dual_clip: Positive | None = None
    """Bound of the ratio where the advantage is negative (two-sided clip), above 1 + the upper
    range; None: none."""
    positive_temperature: Positive | None = None
    """How fast the gate of sapo closes where the advantage is positive, > 0."""
    negative_temperature: Positive | None = None
    """How fast it closes where the advantage is 0 or negative, > 0."""
    positive: tuple[float, float] | None = None
    """Exponent and rate of vespo's weight for advantages of at least 0."""
    negative: tuple[float, float] | None = None
    """Exponent and rate of vespo's weight for advantages below 0."""
    gamma: Share | None = None
    """Discount of reinforce_plus_plus advantages, in [0, 1]; None: 1."""
    kl_coef: Weight | None = None
    """KL coefficient: reward lost for every nat of KL to the reference, >= 0; 0: none."""
    kl_in: KLPlace | None = None
    """Whether the KL is a term of the loss or charged to the reward."""
    kl_estimator: KLEstimatorName | None = None
    """k1, k2 or k3 in the reward (None: k1); k2, k3 or corrected, which is the ratio times k3, in
    the loss (None: k3)."""
    entropy_coef: Weight = 0.0
    """Weight of the entropy bonus, >= 0."""
    top_entropy: Share | None = None
    """Train only this share of the tokens, in [0, 1], those the sampling policy was least certain
    of; None: all. The divisor counts all."""
    mask_truncated: bool | None = None
    """Leave responses that were cut off out of loss and divisor."""
    drop_equal_groups: bool | None = None
    """Leave groups of equal scores, which teach nothing, out of loss and divisor."""
    overlong_share: Share | None = None
    """Share of max_new_tokens, in [0, 1], at the end of which every token costs reward, up to 1; 0:
    none."""
    importance_cap: Positive | None = None
    """Largest importance weight between sampler and trainer, whose numbers differ, > 0; None: no
    weights."""
    importance_mode: ImportanceModeName | None = None
    """Weights above the cap become the cap, or 0; None: truncate."""
    importance_level: ImportanceLevelName | None = None
    """A weight for each token, or for each response; None: token."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule. Where nothing is given: for a published model, or one of 10 million parameters,
    learning_rate 1e-6 (with LoRA 1e-5), constant, no warm-up, b2 0.999 (DeepSeekMath, DAPO, TRL)
    and 1 pass over the prompts; for a small one learning_rate 1e-3, constant, no warm-up, b2 0.99
    and 40 iterations."""

    def __post_init__(self):
        super().__post_init__()
        method = self.method
        require_one("grpo.", self, "iterations", "prompt_epochs")
        require(
            self.batch_size % self.minibatches == 0,
            f"grpo.prompts {self.prompts} x group_size {self.group_size} is not a multiple of "
            f"minibatches {self.minibatches}",
        )
        require(
            self.group_size > 1 or method.per_token,
            f"advantages {method.advantages.name} compare the responses to one prompt; "
            "set grpo.group_size to at least 2",
        )
        require(
            method.surrogate.uses_ratios or self.update_epochs * self.minibatches == 1,
            f"loss {self.loss} knows no ratio to correct for an older policy; "
            "set grpo.update_epochs and grpo.minibatches to 1",
        )

    @property
    def batch_size(self) -> int:
        """Number of responses in an iteration."""
        return self.prompts * self.group_size

    @property
    def method(self) -> GroupMethod:
        """The chosen loss with the parts that are given in place of its own."""
        names = (*PARTS, *hyperparameter_names(GROUP_LOSSES.values()))
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        for name, parts in METHOD_PARTS.items():
            given[name] = parts.get(given[name])
        return with_parts(GROUP_LOSSES[self.loss], **given)


@config
class GRPOConfig(SampledFields):
    """GRPO or a relative of it: a policy gradient with rewards of models and functions, without
    values.

    Example: jaxalign grpo --policy smollm2 --reward rewards.py:brevity --data.path prompts.jsonl
    """

    grpo: GRPOSettings = GRPOSettings()
    """Method and loop. Of what belongs to the method, None is the choice of the chosen loss; what
    the loss has no use for is refused."""

    def __post_init__(self):
        super().__post_init__()
        require_in_memory(self.data, "grpo")
        check_lora(self.lora, self.grpo.optimizer, sampled=True)
