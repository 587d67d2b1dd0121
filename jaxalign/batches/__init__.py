"""Frozen pytrees that go into a step."""

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.preferences import (
    ComparisonBatch,
    DistillationBatch,
    Judged,
    OnlineBatch,
    PairLengths,
    PairLogps,
    PreferenceBatch,
    RankingBatch,
    SharedPreferenceBatch,
    StepBatch,
    UnpairedBatch,
)
from jaxalign.batches.tokens import PackedBatch, SharedPrompts, TokenBatch, pytree

__all__ = [
    "ComparisonBatch",
    "DistillationBatch",
    "Experience",
    "Judged",
    "OnlineBatch",
    "PackedBatch",
    "PairLengths",
    "PairLogps",
    "PreferenceBatch",
    "RankingBatch",
    "ResponseBatch",
    "SharedPreferenceBatch",
    "SharedPrompts",
    "StepBatch",
    "TokenBatch",
    "UnpairedBatch",
    "pytree",
]
