"""Fields that several training commands share.

A command's configuration adds the settings of its method, and says by its own `data` which rows it
reads.
"""

import dataclasses

from jaxalign.config.checks import config, require, require_one_reward
from jaxalign.config.data import DataConfig
from jaxalign.config.lora import LoraConfig
from jaxalign.config.model import ModelConfig, TokenizerConfig
from jaxalign.config.overrides import changed_fields
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ranges import Seed, Size, Temperature


@config
class TrainingFields:
    """Fields of every command that trains a transformer: adapters, rows, devices, seed."""

    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for the model that training starts from: merged, or
    trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    data: DataConfig = DataConfig()
    """The rows."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""
    seed: Seed = 0
    """Of all that is random: new parameters, order of rows, dropout, samples."""


@config
class NewModelFields(TrainingFields):
    """Fields of a command that starts from a trained model or makes a new one."""

    init: str = ""
    """Policy to start from: a run directory, a Hugging Face folder or hub id, a .gguf file, or
    smollm2; empty: a new model and a new vocabulary."""
    model: ModelConfig = ModelConfig()
    """The new model."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The new vocabulary."""

    def __post_init__(self):
        require(
            bool(self.init) or not (self.lora.rank or self.adapter),
            "lora.rank and adapter need a trained model below them; set init",
        )
        unread = changed_fields(self.model, ModelConfig(), "model")
        unread += changed_fields(self.tokenizer, TokenizerConfig(), "tokenizer")
        require(
            not (self.init and unread),
            f"init {self.init} has a model and a vocabulary, which does not go with "
            f"{', '.join(unread)}",
        )


@config
class PolicyFields(TrainingFields):
    """Fields of a command that fine-tunes a trained policy."""

    policy: str = ""
    """Policy to start from: a run directory, a Hugging Face folder or hub id, a .gguf file, or
    smollm2; it is the reference too."""
    temperature: Temperature = 1.0
    """Logits of the policy and of what it is compared with (reference, teacher) are divided by it,
    in training and in sampling alike, > 0; sample from the trained policy at the same one."""


@config
class ReferenceFields(PolicyFields):
    """Fields of a command that computes the reference's log-probabilities once."""

    reference_logps: str = ""
    """Folder in which the reference's log-probabilities are kept: a run with the same model, rows
    and temperature reads them instead of computing them. Empty: they are not kept."""


@config
class SampledFields(PolicyFields):
    """Fields of a command whose policy learns from rewards of its own samples."""

    reward: str = ""
    """A reward model of the same vocabulary, as `policy` is given, or FILE.py:NAME, a function that
    gives a score for each sample, def NAME(prompts, responses, **columns); NAME may be left out
    if it is `reward`."""
    rewards: dict[str, float] = dataclasses.field(default_factory=dict)
    """Several of them instead, each with its weight in the sum of scores:
    `runs/reward 1 rewards.py:brevity 0.2`."""
    data: DataConfig = DataConfig()
    """Rows with `prompt`; functions get their other fields too, as columns."""
    max_new_tokens: Size = 32
    """Longest response in tokens."""

    def __post_init__(self):
        require_one_reward(self.reward, self.rewards)
