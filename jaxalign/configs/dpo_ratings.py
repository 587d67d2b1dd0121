"""DPO of the fine-tuned model on single people's preferences between two sentences.

jaxalign dpo --config dpo_ratings --output runs/dpo

after `sft_ratings`.

Device: CPU, two cores; 1 min 31 s.
Expected: the implicit reward has the order of 56.8% [55.2, 58.2] of the held-out preferences (seed
0).
"""

from jaxalign.config.data import DataConfig
from jaxalign.config.dpo import DPOConfig, DPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig


def get_config() -> DPOConfig:
    """A weak pull to the reference: single people disagree in every fifth pair."""
    return DPOConfig(
        policy="runs/sft",
        data=DataConfig(
            path="data/preferences_train.jsonl",
            evaluation_path="data/preferences_test.jsonl",
            on_bad_row="skip",
            max_length=64,
        ),
        dpo=DPOSettings(
            beta=0.05,
            fit=FitConfig(
                steps=100,
                batch_size=32,
                micro_batches=4,
                optimizer=OptimizerConfig(learning_rate=4e-4, warmup_steps=10),
            ),
        ),
        temperature=0.7,
    )
