"""A reward model from single people's preferences between two sentences.

jaxalign reward --config configs/reward_ratings.py --run_dir runs/reward

after `configs/sft_ratings.py`, whose vocabulary it reads.
"""

from jaxalign.config import DataConfig, RewardConfig


def get_config() -> RewardConfig:
    """The defaults: a bag of tokens, pairs of tokens and runs of characters."""
    return RewardConfig(
        init="runs/sft",
        data=DataConfig(
            path="data/preferences_train.jsonl",
            evaluation_path="data/preferences_test.jsonl",
            on_bad_row="skip",
            max_length=64,
        ),
    )
