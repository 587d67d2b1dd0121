"""LoRA adapters for a trained model."""

from typing import Literal

from jaxalign.config.checks import config, require
from jaxalign.config.loop import OptimizerConfig
from jaxalign.config.overrides import changed_fields
from jaxalign.config.ranges import Positive, Rank, ShareBelowOne


@config
class LoraConfig:
    """LoRA: low-rank adapters in place of full fine-tuning. The trunk is frozen, heads of values
    and scores are trained beside them.
    """

    rank: Rank = 0
    """Rank r of every adapter; 0: no adapters, all parameters are trained."""
    alpha: Positive = 16.0
    """What an adapter adds is multiplied by alpha / rank, > 0."""
    rslora: bool = False
    """Multiply by alpha / sqrt(rank) instead."""
    dropout: ShareBelowOne = 0.0
    """Share of the features of an adapter's input that is dropped in training, in [0, 1)."""
    targets: tuple[str, ...] = (
        "trunk/layers_[0-9]+/attention/(query|key|value|output)",
        "trunk/layers_[0-9]+/feed_forward/(gate|up|down)",
    )
    """Regular expressions of the dense layers that get one, by whole paths such as
    `trunk/layers_3/attention/query`."""
    base: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision in which the frozen weights are kept; int8 has a scale for every output."""

    def __post_init__(self):
        require(bool(self.targets), "lora.targets is empty; name at least one dense layer")
        unread = [] if self.rank else changed_fields(self, LoraConfig, "lora")
        require(
            not unread,
            f"lora.rank 0 trains all parameters and does not read {', '.join(unread)}; "
            "set lora.rank",
        )


def check_lora(lora: LoraConfig, optimizer: OptimizerConfig, *, sampled: bool = False):
    """Raise a one-line `UserError` for an optimizer or a dropout that cannot go with adapters.

    Args:
      lora: of a command.
      optimizer: of its training loop.
      sampled: whether it learns from its own samples by their log-probabilities.
    """
    require(
        not lora.rank or optimizer.name != "muon",
        "muon is for the matrices that lora.rank freezes; choose adamw or rmsprop",
    )
    require(
        not sampled or not lora.dropout,
        f"lora.dropout is {lora.dropout}; samples are drawn without, and with it the policy that "
        "learns from them would be another one: set it to 0",
    )
