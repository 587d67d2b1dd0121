"""Judges, agreement with people, win rates, reward-KL frontier and text statistics; NumPy only."""

from jaxalign.evaluation.agreement import human_ceiling, scorer_agreement, scorer_row
from jaxalign.evaluation.best_of_n import best_of_n_kl, best_of_n_mean
from jaxalign.evaluation.bootstrap import Estimate, mean_estimate
from jaxalign.evaluation.calibration import preference_calibration
from jaxalign.evaluation.frontier import GaoFit, fit_best_of_n, fit_reinforced
from jaxalign.evaluation.judges import RidgeJudge, rule_based_scorer
from jaxalign.evaluation.tables import (
    METHOD_COLUMNS,
    MORE_METHOD_COLUMNS,
    SCORER_COLUMNS,
    Column,
    rich_table,
)
from jaxalign.evaluation.text_statistics import sample_statistics
from jaxalign.evaluation.win_rates import win_rate, wins

__all__ = [
    "METHOD_COLUMNS",
    "MORE_METHOD_COLUMNS",
    "SCORER_COLUMNS",
    "Column",
    "Estimate",
    "GaoFit",
    "RidgeJudge",
    "best_of_n_kl",
    "best_of_n_mean",
    "fit_best_of_n",
    "fit_reinforced",
    "human_ceiling",
    "mean_estimate",
    "preference_calibration",
    "rich_table",
    "rule_based_scorer",
    "sample_statistics",
    "scorer_agreement",
    "scorer_row",
    "win_rate",
    "wins",
]
