"""The losses on pairs by name: what each is computed from, and its hyper-parameters.

This table is all that the command line, the stages and the tests know of a loss; a new one is one
line here and one name in `config.PairLossName`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.errors import UserError
from jaxalign.losses.alphapo import alphapo_loss
from jaxalign.losses.aot import aot_loss, aot_unpaired_loss
from jaxalign.losses.apo import apo_down_loss, apo_zero_loss, apo_zero_unpaired_loss
from jaxalign.losses.bco import bco_loss, bco_pair_loss
from jaxalign.losses.cpo import cpo_loss
from jaxalign.losses.discopop import discopop_loss
from jaxalign.losses.dpo import dpo_loss, robust_dpo_loss
from jaxalign.losses.exo import exo_pair_loss
from jaxalign.losses.f_dpo import (
    alpha_score,
    f_dpo_loss,
    forward_kl_score,
    jensen_shannon_score,
)
from jaxalign.losses.hinge import hinge_loss
from jaxalign.losses.ipo import averaged_ipo_loss, ipo_loss
from jaxalign.losses.kto import kto_loss
from jaxalign.losses.length_normalised_dpo import length_normalised_dpo_loss
from jaxalign.losses.nca import nca_pair_loss
from jaxalign.losses.orpo import orpo_loss
from jaxalign.losses.simpo import simpo_loss
from jaxalign.losses.sppo import sppo_hard_loss
from jaxalign.losses.tpo import tpo_l_loss, tpo_loss


@dataclasses.dataclass(frozen=True)
class NamedLoss:
    """A loss function with what an objective must give it.

    function: gives `[B]` losses.
    inputs: names of its positional arguments, then (after "*") of keyword arguments that are
      computed from the batch or the run.
    defaults: its hyper-parameters.
    per_token: rewards are compared per token of the response, not in total.
    """

    function: Callable[..., jax.Array]
    inputs: tuple[str, ...]
    defaults: Mapping[str, float]
    per_token: bool = False

    def needs(self, name: str) -> bool:
        """Whether it reads that input."""
        return name in self.inputs

    @property
    def couples_rows(self) -> bool:
        """Whether it compares all rows of a batch, so that it cannot take them in parts."""
        return self.needs("axis_name")

    def __call__(self, given: Mapping[str, object], hyperparameters: Mapping[str, float]):
        """The losses `[B]`; `given` has an entry for every input, and may have more."""
        where = self.inputs.index("*") if "*" in self.inputs else len(self.inputs)
        positional = [given[name] for name in self.inputs[:where]]
        keywords = {name: given[name] for name in self.inputs[where + 1 :]}
        return self.function(*positional, **keywords, **hyperparameters)


def alpha_divergence_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, alpha: float
) -> jax.Array:
    """`f_dpo_loss` with the alpha-divergence: `[B]` nats."""
    score = functools.partial(alpha_score, alpha=alpha)
    return f_dpo_loss(policy, reference, beta=beta, score=score)


def tempered_discopop_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, discopop_temperature: float
) -> jax.Array:
    """`discopop_loss` with a name for its temperature that says whose it is: `[B]` nats."""
    return discopop_loss(policy, reference, beta=beta, temperature=discopop_temperature)


BETA = {"beta": 0.1}
SMOOTHED = BETA | {"label_smoothing": 0.0}
PAIR = ("policy", "reference")
SORTED = (*PAIR, "weights", "*", "axis_name")
LENGTHS = ("policy", "lengths")
GOLD = ("gold_logps", "gold_lengths")

PAIR_LOSSES: dict[str, NamedLoss] = {
    "dpo": NamedLoss(dpo_loss, PAIR, SMOOTHED),
    "robust": NamedLoss(robust_dpo_loss, PAIR, BETA | {"label_smoothing": 0.1}),
    "ipo": NamedLoss(ipo_loss, PAIR, BETA),
    "averaged_ipo": NamedLoss(averaged_ipo_loss, (*PAIR, "lengths"), BETA, per_token=True),
    "hinge": NamedLoss(hinge_loss, PAIR, BETA),
    "exo_pair": NamedLoss(exo_pair_loss, PAIR, BETA | {"label_smoothing": 1e-3}),
    "nca_pair": NamedLoss(nca_pair_loss, PAIR, BETA),
    "bco_pair": NamedLoss(bco_pair_loss, (*PAIR, "*", "shift"), BETA),
    "sppo_hard": NamedLoss(sppo_hard_loss, PAIR, {"beta": 1e-3}),
    "aot": NamedLoss(aot_loss, SORTED, SMOOTHED),
    "aot_unpaired": NamedLoss(aot_unpaired_loss, SORTED, SMOOTHED),
    "apo_zero": NamedLoss(apo_zero_loss, PAIR, BETA),
    "apo_down": NamedLoss(apo_down_loss, PAIR, BETA),
    "discopop": NamedLoss(
        tempered_discopop_loss, PAIR, {"beta": 0.05, "discopop_temperature": 0.05}
    ),
    "length_normalised_dpo": NamedLoss(
        length_normalised_dpo_loss,
        (*PAIR, "lengths"),
        {"beta": 5.0, "label_smoothing": 0.0},
        per_token=True,
    ),
    "forward_kl": NamedLoss(functools.partial(f_dpo_loss, score=forward_kl_score), PAIR, BETA),
    "jensen_shannon": NamedLoss(
        functools.partial(f_dpo_loss, score=jensen_shannon_score), PAIR, BETA
    ),
    "alpha_divergence": NamedLoss(alpha_divergence_loss, PAIR, BETA | {"alpha": 0.5}),
    "simpo": NamedLoss(
        simpo_loss, LENGTHS, {"beta": 2.0, "gamma": 1.0, "label_smoothing": 0.0}, per_token=True
    ),
    "alphapo": NamedLoss(
        alphapo_loss, LENGTHS, {"beta": 2.5, "gamma": 0.25, "alpha": 0.25}, per_token=True
    ),
    "cpo": NamedLoss(cpo_loss, LENGTHS, SMOOTHED | {"nll_coef": 1.0}),
    "orpo": NamedLoss(orpo_loss, LENGTHS, BETA, per_token=True),
    "tpo": NamedLoss(tpo_loss, ("policy", *GOLD), {"beta": 0.01, "nll_coef": 1.0}),
    "tpo_l": NamedLoss(
        tpo_l_loss, (*LENGTHS, *GOLD), {"beta": 2.0, "gamma": 0.5, "nll_coef": 1.0}, per_token=True
    ),
}

SINGLE = ("policy", "reference", "labels")
WEIGHTS = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
UNPAIRED_LOSSES: dict[str, NamedLoss] = {
    "kto": NamedLoss(kto_loss, (*SINGLE, "*", "kl"), BETA | WEIGHTS),
    "apo_zero_unpaired": NamedLoss(apo_zero_unpaired_loss, SINGLE, BETA),
    "bco": NamedLoss(bco_loss, (*SINGLE, "*", "shift"), BETA),
}


def hyperparameters_of(
    losses: Mapping[str, NamedLoss], name: str, given: Mapping[str, float | None]
) -> dict[str, float]:
    """The hyper-parameters of a loss: those that are given (not None), its defaults otherwise.

    Raises:
      UserError: no such loss, or it does not take what was given.

    >>> hyperparameters_of(PAIR_LOSSES, "dpo", {"beta": 0.3, "gamma": None})
    {'beta': 0.3, 'label_smoothing': 0.0}
    """
    if name not in losses:
        raise UserError(f"no loss {name!r}; there are {', '.join(losses)}")
    defaults = losses[name].defaults
    chosen = {key: value for key, value in given.items() if value is not None}
    if unknown := sorted(set(chosen) - set(defaults)):
        takes = ", ".join(f"{key} ({value:g})" for key, value in defaults.items()) or "none"
        raise UserError(f"loss {name} takes no {unknown[0]}; it takes {takes}")
    return dict(defaults) | chosen
