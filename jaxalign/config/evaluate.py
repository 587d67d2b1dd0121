"""The configuration of `jaxalign evaluate`."""

from typing import Literal

from jaxalign.config.checks import config, require
from jaxalign.config.data import DataConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ranges import Temperature


@config
class EvaluateConfig:
    """Perplexity of a policy on texts, accuracy of a policy or reward model on preferences, of a
    reward model on rankings, of a process reward model on steps.
    """

    model: str = ""
    """Model: a run directory, a Hugging Face folder or hub id, a .gguf file, or smollm2."""
    reference: str = ""
    """Reference of a policy trained by DPO, given as `model` is; empty: plain log-probabilities.
    Their sums over responses are compared, also for a policy whose loss took means over tokens."""
    on: Literal["texts", "preferences", "rankings", "steps"] = "texts"
    """What the rows are: those that `sft` takes, those that `dpo` takes, or those that `reward`
    takes with the losses plackett_luce and process."""
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
        for name in ("evaluation_path", "evaluation_share"):
            require(
                not getattr(self.data, name),
                f"evaluate reads --data.path; leave --data.{name} out",
            )
        require(
            not self.reference or self.on == "preferences",
            f"--on {self.on} has no use for a reference; leave --reference out",
        )
        require(
            self.temperature == 1 or self.on in ("texts", "preferences"),
            f"--on {self.on} measures scores, which no temperature divides; leave it out",
        )
        require(
            not self.chances or self.on == "steps",
            f"--on {self.on} predicts no chances of steps; leave --chances out",
        )
