"""Supervised fine-tuning of a small new model on the sentences of the human ratings.

jaxalign ratings --output data
jaxalign sft --config sft_ratings --output runs/sft

Device: CPU, two cores; 2 min 22 s.
Expected: perplexity 254 of the held-out sentences (their own vocabulary, seed 0).
"""

from jaxalign.config.data import DataConfig
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.model import ModelConfig, TokenizerConfig
from jaxalign.config.sft import SFTConfig


def get_config() -> SFTConfig:
    """Muon for the matrices; longer sentences than 64 tokens are left out."""
    return SFTConfig(
        model=ModelConfig(width=96, layers=2, dropout=0.1),
        tokenizer=TokenizerConfig(kind="word", vocab_size=8192),
        data=DataConfig(
            path="data/texts_train.jsonl",
            evaluation_path="data/texts_test.jsonl",
            on_bad_row="skip",
            max_length=64,
        ),
        fit=FitConfig(
            steps=1100,
            batch_size=20,
            micro_batches=2,
            optimizer=OptimizerConfig(
                name="muon", learning_rate=0.02, warmup_steps=30, weight_decay=0.1
            ),
        ),
    )
