"""The configuration of `jaxalign evaluate`."""

import dataclasses
from typing import Literal

from jaxalign.config.checks import config, require, require_one_reward
from jaxalign.config.data import DataConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ranges import Seed, Size, Temperature

# what nothing but answers to prompts has a use for
OF_PROMPTS = ("reward", "rewards", "samples", "max_new_tokens", "seed", "responses")


@config
class EvaluateConfig:
    """Perplexity of a policy on texts, rewards of its answers to prompts, accuracy of a policy or
    reward model on preferences, of a reward model on rankings, of a process reward model on steps.

    Example: jaxalign evaluate --model runs/dpo --on preferences --data.path pairs.jsonl
    """

    model: str = ""
    """Model: a run directory, a Hugging Face folder or hub id, a .gguf file, or smollm2."""
    reference: str = ""
    """Reference of a policy trained by DPO, given as `model` is; empty: plain log-probabilities.
    Their sums over responses are compared, also for a policy whose loss took means over tokens.
    On prompts: what the KL is measured to."""
    on: Literal["texts", "prompts", "preferences", "rankings", "steps"] = "texts"
    """What the rows are: those that `sft` takes, prompts as `ppo` takes them, pairs as `dpo`, or
    what `reward` takes with the losses plackett_luce and process."""
    reward: str = ""
    """On prompts, what scores an answer: a reward model, as `model` is given, or FILE.py:NAME, a
    function as `ppo` takes it."""
    rewards: dict[str, float] = dataclasses.field(default_factory=dict)
    """Several of them instead, each with its weight in the sum of scores:
    `runs/reward 1 rewards.py:brevity 0.2`."""
    samples: Size = 1
    """Answers sampled to each prompt."""
    max_new_tokens: Size = 32
    """Longest answer in tokens."""
    seed: Seed = 0
    """Of the answers."""
    responses: str = ""
    """File for the answers with their scores, a JSON line each; empty: none."""
    data: DataConfig = DataConfig()
    """The rows, in `path`."""
    temperature: Temperature = 1.0
    """Logits of a policy are divided by it, > 0; a policy that was trained at one is that one's."""
    output: str = ""
    """File for the measures, as JSON; empty: none."""
    chances: str = ""
    """File for the predicted chance that each step is right, a JSON list for every row of
    `--on steps`; empty: none."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""

    def __post_init__(self):
        for name in ("evaluation_path", "evaluation_share", "mixture", "streaming"):
            require(
                not getattr(self.data, name),
                f"evaluate reads --data.path; leave --data.{name} out",
            )
        require_one_reward(self.reward, self.rewards)
        on_prompts = self.on == "prompts"
        require(
            not on_prompts or bool(self.reward or self.rewards),
            "--on prompts scores answers; say by what: --reward FILE.py:NAME or a reward model",
        )
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in OF_PROMPTS:
            value = getattr(self, name)
            require(
                on_prompts or value in (defaults[name], {}),
                f"--on {self.on} samples no answers; leave --{name} out",
            )
        require(
            not self.reference or self.on in ("preferences", "prompts"),
            f"--on {self.on} has no use for a reference; leave --reference out",
        )
        require(
            self.temperature == 1 or self.on in ("texts", "prompts", "preferences"),
            f"--on {self.on} measures scores, which no temperature divides; leave it out",
        )
        require(
            not self.chances or self.on == "steps",
            f"--on {self.on} predicts no chances of steps; leave --chances out",
        )
