"""Explanation of a loss: log-probabilities, rewards, advantages and gradient of every token."""

from jaxalign.explanation.policy_gradient import explain_decisions, explain_responses
from jaxalign.explanation.responses import explain_pairs, explain_texts, explain_unpaired
from jaxalign.explanation.table import Explanation, Sequence, Sum, from_table, mean_loss, on_table

__all__ = [
    "Explanation",
    "Sequence",
    "Sum",
    "explain_decisions",
    "explain_pairs",
    "explain_responses",
    "explain_texts",
    "explain_unpaired",
    "from_table",
    "mean_loss",
    "on_table",
]
