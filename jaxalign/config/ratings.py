"""The configuration of `jaxalign ratings`."""

from jaxalign.config.checks import config
from jaxalign.config.ranges import Count, Seed, Size


@config
class RatingsConfig:
    """The embedded human ratings as files for the commands: texts, prompts and preferences.

    Example: jaxalign ratings --output data
    """

    pairs: Count = 4000
    """Preferences of single people in each part."""
    prompt_words: Size = 3
    """Words of a text that become its prompt."""
    seed: Seed = 0
    """Of the choice of pairs."""
