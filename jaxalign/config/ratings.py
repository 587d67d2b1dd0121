"""The configuration of `jaxalign ratings`."""

from jaxalign.config.checks import config


@config
class RatingsConfig:
    """The embedded human ratings as files for the stages: texts, prompts and preferences."""

    pairs: int = 4000
    """Preferences of single people in each part."""
    prompt_words: int = 3
    """Words of a text that become its prompt."""
    seed: int = 0
    """Of the choice of pairs."""
