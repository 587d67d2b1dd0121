"""The configuration of `jaxalign ppo` on text."""

import dataclasses

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


@config
class PPOSettings:
    """PPO on sampled responses with a KL penalty to the reference."""

    iterations: int | None = None
    """Rounds of sampling and learning; None: as `prompt_epochs` says, or else following the
    model."""
    prompt_epochs: float | None = None
    """Passes over the prompts in place of iterations, above 0; a part of one is rounded up to
    rounds."""
    batch_size: int = 256
    """Responses sampled in a round."""
    epochs: int = 2
    """Passes over a round's responses."""
    minibatches: int = 4
    """Optimizer steps in a pass."""
    micro_batches: int = 1
    """Parts of a minibatch whose gradients are added up one after the other."""
    kl_coef: float = 0.12
    """Price of a nat of KL to the reference, in reward units."""
    kl_target: float | None = None
    """Adapt the price until a response costs this many nats; None: fixed price."""
    kl_horizon: int | None = None
    """Responses over which the price adapts: by at most a fifth of batch_size / kl_horizon in a
    round. None: twice the batch, so that it may move by 10% a round."""
    clip_range: float = 0.2
    """How far the ratio may leave 1."""
    dual_clip: float | None = None
    """Bound for unlikely actions with negative advantage; None: none."""
    value_clip_range: float | None = 0.2
    """How far a value may leave its old prediction; None: anywhere."""
    value_coef: float = 0.1
    """Weight of the value loss."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    gamma: float = 1.0
    """Discount."""
    gae_lambda: float = 0.95
    """Trace decay of the advantage estimator."""
    missing_eos_penalty: float = 0.0
    """Taken from the score of a response that did not end by itself; 0: nothing."""
    log_every: int = 1
    """Rounds between lines of metrics."""
    checkpoint_every: int = 10
    """Rounds between checkpoints."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule. Where nothing is given: for a published model, or one of 10 million parameters,
    learning_rate 3e-6 (with LoRA 3e-5), linear, no warm-up, b2 0.999 (TRL's PPOConfig) and 1 pass
    over the prompts; for a small one learning_rate 2e-4, linear, no warm-up, b2 0.99 and 14
    rounds."""

    @property
    def rounds(self) -> int:
        """`iterations`, which a run settles before it trains."""
        assert self.iterations is not None, "iterations follow the model, which nobody has asked"
        return self.iterations

    def __post_init__(self):
        require_at_least(0, "ppo.", self, "iterations", "kl_coef", "value_coef", "entropy_coef")
        require_passes("ppo.prompt_epochs", self.prompt_epochs)
        require_one("ppo.", self, "iterations", "prompt_epochs")
        loop = ("batch_size", "epochs", "minibatches", "micro_batches")
        require_at_least(1, "ppo.", self, *loop, "log_every", "checkpoint_every")
        horizon = self.kl_horizon
        require(horizon is None or horizon > 0, f"ppo.kl_horizon is {horizon}; it must be above 0")
        require_penalty("ppo", self.missing_eos_penalty)
        for name in ("gamma", "gae_lambda"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"ppo.{name} is {value}; it must lie in [0, 1]")
        for name in ("clip_range", "value_clip_range", "kl_target"):
            value = getattr(self, name)
            require(value is None or value > 0, f"ppo.{name} is {value}; it must be above 0")
        require(
            self.dual_clip is None or self.dual_clip > 1 + self.clip_range,
            f"ppo.dual_clip is {self.dual_clip}; it must be above 1 + clip_range",
        )
        require(
            self.kl_target is not None or self.kl_horizon is None,
            "ppo.kl_horizon says how fast the price follows ppo.kl_target; set that too",
        )
        require(
            self.batch_size % self.minibatches == 0,
            f"ppo.batch_size {self.batch_size} is not a multiple of minibatches {self.minibatches}",
        )

    @property
    def horizon(self) -> int:
        """Responses over which the price of the KL adapts."""
        return 2 * self.batch_size if self.kl_horizon is None else self.kl_horizon


@config
class TextPPOConfig:
    """PPO of a policy against reward models and functions."""

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
    ppo: PPOSettings = PPOSettings()
    """Objective and loop."""
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
        require_no_held_out(self.data, "ppo")
        check_lora(self.lora, self.ppo.optimizer, sampled=True)
