"""Batches: immutable pytrees of arrays, the data of a training step."""

from jaxalign.batches.experience import Experience, ResponseBatch
from jaxalign.batches.preferences import (
    ComparisonBatch,
    DistillationBatch,
    OnlineBatch,
    PairLengths,
    PairLogps,
    PreferenceBatch,
    RankingBatch,
    ScoredResponses,
    SharedPreferenceBatch,
    StepBatch,
    UnpairedBatch,
)
from jaxalign.batches.tokens import PackedBatch, SharedPrompts, TokenBatch, pytree

__all__ = [
    "ComparisonBatch",
    "DistillationBatch",
    "Experience",
    "OnlineBatch",
    "PackedBatch",
    "PairLengths",
    "PairLogps",
    "PreferenceBatch",
    "RankingBatch",
    "ResponseBatch",
    "ScoredResponses",
    "SharedPreferenceBatch",
    "SharedPrompts",
    "StepBatch",
    "TokenBatch",
    "UnpairedBatch",
    "pytree",
]
