"""The configuration of `jaxalign reward`."""

import dataclasses
from typing import Literal

from jaxalign.config.checks import config, require
from jaxalign.config.data import DataConfig, require_in_memory
from jaxalign.config.dpo import check_beta
from jaxalign.config.loop import FitConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.model import ModelConfig
from jaxalign.config.names import RewardLossName, given_hyperparameters, with_hyperparameters
from jaxalign.config.overrides import changed_fields
from jaxalign.config.ranges import LongSize, Power, ShareBelowOne, SmallSize, TokenLength, Weight
from jaxalign.config.training import NewModelFields
from jaxalign.losses import REWARD_LOSSES
from jaxalign.losses.declarations import COMPARISONS, STEPS, Loss


@config
@with_hyperparameters(REWARD_LOSSES)
class RewardSettings:
    """Reward model of whole texts: what its score reads, its loss and training loop."""

    loss: RewardLossName = "bradley_terry"
    """Loss on preferences, on rankings, or on labelled steps. Of this section, one on steps reads
    nothing else but its hyper-parameters: `process` holds its settings."""
    pooling: Literal["last", "mean", "both", "none"] = "last"
    """What the score reads of the transformer's trunk: its last token, the mean over tokens, both,
    or nothing, which leaves the bag."""
    layers: SmallSize | None = None
    """Read the trunk after so many of its layers, and leave out the others; None: all."""
    trunk: Literal["trained", "frozen"] = "trained"
    """Whether the trunk is trained with the head; frozen, it reads each text once, without
    dropout."""
    bag: bool = False
    """Add a bag of words: a weight for every token and bigram, times its inverse document
    frequency. It reads a prompt and its response as one heap of words: good for the mood of single
    texts, which it learns from few, and blind to whether a response answers its prompt."""
    bag_characters: TokenLength = 16
    """Longest token, in characters, whose character n-grams (4 to 6) the bag reads too; 0: none."""
    bag_buckets: LongSize = 262_144
    """Weights that bigrams share by hashing, and as many that character n-grams share."""
    bag_power: Power = 0.4
    """The sum is divided by the number of terms to this power, in [0, 10]: 0 sums, 1 averages;
    smaller values favour longer texts."""
    bag_l2: Weight = 3e-3
    """Ridge penalty on those weights, for every comparison or ranking, >= 0."""
    dropout: ShareBelowOne = 0.1
    """Dropout of the trunk while the reward model is trained, in [0, 1)."""
    centering: Weight = 0.0
    """Coefficient of the squared sum of two scores, which keeps scores near 0, >= 0."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts texts, or rankings. Where nothing is given: for a published
    model, or one of 10 million parameters, learning_rate 1e-5 (with LoRA 1e-4), cosine, warm-up of
    10%, 1 epoch, batches of 128, b2 0.999 (InstructGPT); for a small one learning_rate 1e-3,
    cosine, 20 steps of warm-up, 400 steps, batches of 128, b2 0.99; for a head by itself (pooling
    none, or trunk frozen; also beside a bag above a small model) 0.02, cosine, no warm-up, 400
    steps, 128, 0.999."""

    def __post_init__(self):
        check_beta("reward", self.declared_loss)
        require(
            self.bag or self.pooling != "none",
            "reward.pooling none without reward.bag leaves nothing to score; set reward.bag True, "
            "or pooling to last or mean",
        )
        require(
            self.trunk == "trained" or self.pooling != "none",
            "reward.pooling none reads nothing of the trunk; reward.trunk frozen needs another",
        )
        require(
            self.layers is None or self.pooling != "none",
            f"reward.layers is {self.layers} and reward.pooling none reads no layer; leave one of "
            "them out",
        )
        changed = changed_fields(self, type(self), "reward")
        unread = [] if self.bag else [name for name in changed if name.startswith("reward.bag_")]
        require(
            not unread,
            f"reward.bag False does not read {', '.join(unread)}; leave them out",
        )

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with the hyper-parameters that are given in place of its own."""
        return REWARD_LOSSES[self.loss].given(**given_hyperparameters(self, REWARD_LOSSES))


@config
class ProcessSettings:
    """Process reward model: a transformer that scores every step of a solution."""

    dropout: ShareBelowOne = 0.1
    """Dropout of the trunk while it is trained, in [0, 1)."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts solutions. Where nothing is given: for a published model, or
    one of 10 million parameters, learning_rate 1e-5 (with LoRA 1e-4), cosine, warm-up of 10%,
    1 epoch, batches of 64, b2 0.999 (TRL's PRMConfig, InstructGPT); for a small one learning_rate
    1e-3, cosine, 20 steps of warm-up, 300 steps, batches of 32, b2 0.99."""


@config
class RewardConfig(NewModelFields):
    """A reward model from preferences, from rankings or from labelled steps.

    Example: jaxalign reward --init smollm2 --data.path pairs.jsonl --lora.rank 8
    """

    init: str = ""
    """Policy whose trunk and vocabulary it starts from: a run directory, a Hugging Face folder or
    hub id, a .gguf file, or smollm2; empty: new ones."""
    data: DataConfig = DataConfig()
    """Rows with `chosen` and `rejected`, with or without `prompt` and `margin`; with `prompt` and
    `responses`, the best first; or with `prompt`, `completions` (the steps) and `labels`."""
    reward: RewardSettings = RewardSettings()
    """Loss; head and training loop of losses on preferences and rankings."""
    process: ProcessSettings = ProcessSettings()
    """Head and training loop of losses on steps."""

    def __post_init__(self):
        super().__post_init__()
        require_in_memory(self.data, "reward")
        loss, scores_steps = self.reward.declared_loss, self.scores_steps
        for field, instead in (("dropout", "its own dropout"), ("value_trunk", "no values")):
            require(
                getattr(self.model, field) == getattr(ModelConfig, field),
                f"a reward model has {instead}; leave model.{field} out",
            )
        check_lora(self.lora, self.fit.optimizer)
        require(
            not self.lora.rank or scores_steps or self.reward.pooling != "none",
            "reward.pooling none reads nothing of the trunk that lora.rank adapts; "
            "set it to last or mean",
        )
        require(
            not self.lora.rank or self.reward.trunk == "trained",
            "reward.trunk frozen trains no adapters; leave out one of it and lora.rank",
        )
        if scores_steps:
            given = given_hyperparameters(self.reward, REWARD_LOSSES)
            read = dataclasses.replace(RewardSettings(loss=loss.name), **given)
            unread = changed_fields(self.reward, read, "reward")
        else:
            unread = changed_fields(self.process, ProcessSettings(), "process")
        texts = self.reward.fit.batch_size
        require(
            loss.kind is not COMPARISONS or texts is None or texts % 2 == 0,
            f"reward.fit.batch_size {texts} is odd; a batch counts texts, two a preference",
        )
        require(
            not unread,
            f"loss {loss.name} does not read {', '.join(unread)}; its settings are those of "
            f"{'process' if scores_steps else 'reward'}",
        )

    @property
    def scores_steps(self) -> bool:
        """Whether the model scores steps of solutions, not whole texts."""
        return self.reward.declared_loss.kind is STEPS

    @property
    def fit(self) -> FitConfig:
        """Training loop of the chosen loss."""
        return self.process.fit if self.scores_steps else self.reward.fit

    @property
    def unread_sections(self) -> tuple[str, ...]:
        """The section whose training loop is not that of the chosen loss."""
        return ("reward",) if self.scores_steps else ("process",)
