"""The configuration of `jaxalign explain`."""

import dataclasses
from typing import Literal

from jaxalign.config.checks import config, require, require_one_reward
from jaxalign.config.data import DataConfig, require_in_memory
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.grpo import GRPOSettings
from jaxalign.config.kto import KTOSettings
from jaxalign.config.overrides import changed_fields
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.ranges import Seed, Size, Steps, Temperature

ALL = ("sft", "dpo", "kto", "ppo", "grpo")


@config
class ExplainConfig:
    """Explanation of one batch, token by token: log-probabilities, rewards, advantages, clipping,
    gradients.

    Example: jaxalign explain --run runs/dpo --batch 3
    """

    run: str = ""
    """Run directory of `sft`, `dpo`, `kto`, `ppo` or `grpo`: its trained policy, data and settings;
    empty: the fields below."""
    method: Literal["sft", "dpo", "kto", "ppo", "grpo"] = "dpo"
    """The training method whose loss is explained."""
    policy: str = ""
    """Policy: a run directory, a Hugging Face folder or hub id, a .gguf file, or smollm2."""
    reference: str = ""
    """Reference, given as `policy` is; empty: the policy."""
    behaviour: str = ""
    """Policy that samples for PPO and GRPO, given as `policy` is; empty: the policy."""
    reward: str = ""
    """Reward model, given as `policy` is, or a function, FILE.py:NAME; for PPO and GRPO."""
    rewards: dict[str, float] = dataclasses.field(default_factory=dict)
    """Several of them instead, each with its weight in the sum of scores."""
    data: DataConfig = DataConfig()
    """Rows as the method takes them: texts, preferences, labelled responses or prompts."""
    dpo: DPOSettings = DPOSettings()
    """The preference loss; its training loop gives the optimizer of `updates`."""
    kto: KTOSettings = KTOSettings()
    """The loss on labelled responses; its training loop gives the optimizer of `updates`."""
    ppo: PPOSettings = PPOSettings()
    """The PPO loss."""
    grpo: GRPOSettings = GRPOSettings()
    """The policy gradient without a value function, and its groups."""
    temperature: Temperature = 1.0
    """Of policy, reference and behaviour, > 0; supervised fine-tuning has none."""
    max_new_tokens: Size = 32
    """Longest sampled response in tokens, for PPO and GRPO."""
    batch: Steps = 0
    """Index of the batch, from 0, in the order of a run with this seed whose batches have as many
    rows; texts come in an order of their own, since runs sort them by length."""
    rows: Size = 8
    """Pairs, texts or responses in the batch; for GRPO prompts, with all responses of a group."""
    updates: Steps = 0
    """Optimizer steps on this very batch before it is explained: after none, all ratios are 1."""
    check: bool = False
    """Run the step under checkify too: NaN, empty mask, ratio overflow, dtypes that truncate."""
    output: str = "explain.html"
    """File for the page."""
    seed: Seed = 0
    """Of the order of rows and of sampling."""

    def __post_init__(self):
        require_one_reward(self.reward, self.rewards)
        if self.method not in ("sft", "dpo"):
            require_in_memory(self.data, f"explain --method {self.method}")
        require(
            not self.data.evaluation_path,
            "explain reads --data.path; leave --data.evaluation_path empty",
        )
        unread = [] if self.run else self.unread
        require(
            not unread,
            f"method {self.method} does not read {', '.join(unread)}; leave them out, or set "
            "--method",
        )

    @property
    def unread_sections(self) -> tuple[str, ...]:
        """The sections of other methods."""
        section = "dpo" if self.method == "sft" else self.method
        return tuple(name for name in ALL if name != section)

    @property
    def unread(self) -> list[str]:
        """Names of given fields that the method does not read."""
        changed = changed_fields(self, type(self), "")
        sampled = {"ppo", "grpo"}
        readers = dict.fromkeys(("behaviour", "reward", "rewards", "max_new_tokens"), sampled)
        readers |= {name: {name} for name in ("kto", *sampled)}
        readers |= {"dpo": {"dpo", "sft"}}
        readers |= {name: {"dpo", "kto", *sampled} for name in ("reference", "temperature")}
        sections = [(name, name.partition(".")[0]) for name in changed]
        return [name for name, section in sections if self.method not in readers.get(section, ALL)]
