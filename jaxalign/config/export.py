"""The configuration of `jaxalign export`."""

from jaxalign.config.checks import config
from jaxalign.config.ranges import Gigabytes, Steps


@config
class ExportConfig:
    """A model as a Hugging Face folder: what `transformers` loads, and a model card.

    Example: jaxalign export --model runs/dpo --output dpo_model
    """

    model: str = ""
    """Model: a run directory, a Hugging Face folder or hub id, a .gguf file, or smollm2."""
    step: Steps | None = None
    """Step of the run's checkpoint to write instead of its model; None: the model."""
    output: str = ""
    """Folder to write; it must not exist, or be empty."""
    shard_gigabytes: Gigabytes = 5.0
    """Largest file of weights, in 10^9 bytes, > 0; a larger model is written in several."""
