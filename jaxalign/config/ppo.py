"""The configuration of `jaxalign ppo` on text."""

from jaxalign.config.checks import config, require, require_one
from jaxalign.config.data import require_in_memory
from jaxalign.config.iterations import IterationSettings
from jaxalign.config.loop import OptimizerConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.ppo_update import PPOUpdateFields
from jaxalign.config.ranges import Period, Positive, Size, Weight
from jaxalign.config.training import SampledFields


@config
class PPOSettings(PPOUpdateFields, IterationSettings):
    """PPO on sampled responses with a KL penalty to the reference."""

    batch_size: Size = 256
    """Responses sampled in an iteration."""
    kl_coef: Weight = 0.12
    """KL coefficient: reward lost for every nat of KL to the reference, >= 0."""
    kl_target: Positive | None = None
    """Adapt the KL coefficient until the KL of a response is this many nats, > 0; None: it stays.
    """
    kl_horizon: Period | None = None
    """Responses over which the KL coefficient adapts: by at most a fifth of batch_size / kl_horizon
    in an iteration. None: twice the batch, so that it may move by 10% an iteration."""
    dual_clip: Positive | None = None
    """Bound of the ratio where the advantage is negative, above 1 + clip_range; None: none."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule. Where nothing is given: for a published model, or one of 10 million parameters,
    learning_rate 3e-6 (with LoRA 3e-5), linear, no warm-up, b2 0.999 (TRL's PPOConfig) and 1 pass
    over the prompts; for a small one learning_rate 2e-4, linear, no warm-up, b2 0.99 and 14
    iterations."""

    def __post_init__(self):
        IterationSettings.__post_init__(self)
        require_one("ppo.", self, "iterations", "prompt_epochs")
        require(
            self.dual_clip is None or self.dual_clip > 1 + self.clip_range,
            f"ppo.dual_clip is {self.dual_clip}; it must be above 1 + clip_range",
        )
        require(
            self.kl_target is not None or self.kl_horizon is None,
            "ppo.kl_horizon says how fast the KL coefficient follows ppo.kl_target; set that too",
        )
        require(
            self.batch_size % self.minibatches == 0,
            f"ppo.batch_size {self.batch_size} is not a multiple of minibatches {self.minibatches}",
        )

    @property
    def horizon(self) -> int:
        """Responses over which the KL coefficient adapts."""
        return 2 * self.batch_size if self.kl_horizon is None else self.kl_horizon


@config
class TextPPOConfig(SampledFields):
    """PPO of a policy against reward models and functions.

    Example: jaxalign ppo --policy smollm2 --reward runs/reward --data.path prompts.jsonl
    """

    ppo: PPOSettings = PPOSettings()
    """Objective and loop."""

    def __post_init__(self):
        super().__post_init__()
        require_in_memory(self.data, "ppo")
        check_lora(self.lora, self.ppo.optimizer, sampled=True)
