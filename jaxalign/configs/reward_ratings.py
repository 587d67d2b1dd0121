"""A reward model from single people's preferences between two sentences.

jaxalign reward --config reward_ratings --output runs/reward

after `sft_ratings`, whose vocabulary it reads.

Device: CPU, two cores; 14 s.
Expected: 63.4% [61.8, 64.8] of the held-out preferences, half of them of one person between two
sentences of one block, which are the hard ones (seed 0).
"""

from jaxalign.config.data import DataConfig
from jaxalign.config.reward import RewardConfig, RewardSettings


def get_config() -> RewardConfig:
    """A bag of tokens, bigrams and character n-grams, which is enough to tell the mood of a
    sentence.
    """
    return RewardConfig(
        init="runs/sft",
        data=DataConfig(
            path="data/preferences_train.jsonl",
            evaluation_path="data/preferences_test.jsonl",
            on_bad_row="skip",
            max_length=64,
        ),
        reward=RewardSettings(pooling="none", bag=True),
    )
