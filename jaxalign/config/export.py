"""The configuration of `jaxalign export`."""

from jaxalign.config.checks import config, require


@config
class ExportConfig:
    """A model as a Hugging Face folder: what `transformers` loads, and a model card."""

    model: str = ""
    """Run directory, or whatever else `--model` of `jaxalign generate` takes."""
    output: str = ""
    """Folder to write; it must not exist, or be empty."""
    shard_gigabytes: float = 5.0
    """Largest file of weights, in 10^9 bytes; a larger model is written in several."""

    def __post_init__(self):
        require(
            self.shard_gigabytes > 0, f"shard_gigabytes is {self.shard_gigabytes}; it must be > 0"
        )
