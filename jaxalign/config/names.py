"""What a configuration can choose by name, and the hyper-parameters, as the losses declare them."""

import dataclasses
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

from jaxalign.envs import CONTROL_TASKS
from jaxalign.losses import (
    DISTILLATION_LOSSES,
    GROUP_LOSSES,
    ONLINE_LOSSES,
    PAIR_LOSSES,
    UNPAIRED_LOSSES,
)
from jaxalign.losses.declarations import Loss
from jaxalign.losses.group_methods import ADVANTAGES, AGGREGATIONS, GroupMethod

Class = TypeVar("Class", bound=type)
# Losses on pairs that two log-probabilities a side determine: any pair of samples has them.
ONLINE_PAIR_LOSSES = {
    name: loss for name, loss in PAIR_LOSSES.items() if loss.inputs == ("policy", "reference")
}
RewardLossName = Literal["bradley_terry", "plackett_luce", "process"]
if typing.TYPE_CHECKING:  # a type checker does not know what is declared
    PairLossName = UnpairedLossName = OnlineLossName = OnlinePairLossName = str
    DistillationLossName = GroupLossName = AdvantagesName = AggregationName = ControlTaskName = str
else:
    PairLossName = Literal[tuple(PAIR_LOSSES)]
    UnpairedLossName = Literal[tuple(UNPAIRED_LOSSES)]
    OnlineLossName = Literal[tuple(ONLINE_LOSSES)]
    OnlinePairLossName = Literal[tuple(ONLINE_PAIR_LOSSES)]
    DistillationLossName = Literal[tuple(DISTILLATION_LOSSES)]
    GroupLossName = Literal[tuple(GROUP_LOSSES)]
    AdvantagesName = Literal[ADVANTAGES]
    AggregationName = Literal[AGGREGATIONS]
    ControlTaskName = Literal[tuple(CONTROL_TASKS)]


def with_hyperparameters(*tables: Mapping[str, Loss | GroupMethod]) -> Callable[[Class], Class]:
    """Class decorator of settings: a field for every hyper-parameter of the losses that has none.

    Its type is that of the argument or None, which is the default of the chosen loss; its help is
    what the docstring of the loss says of the argument.

    >>> @with_hyperparameters({"simpo": PAIR_LOSSES["simpo"]})
    ... class Settings:
    ...     beta: float | None = None
    >>> Settings.__annotations__
    {'beta': float | None, 'gamma': float | None, 'label_smoothing': float | None}
    >>> Settings.gamma.metadata["help"]
    'target margin, reward units (simpo).'
    """
    losses = [loss for table in tables for loss in table.values()]

    def decorated(cls: Class) -> Class:
        for name in hyperparameter_names(losses):
            if name not in cls.__annotations__:
                takers = [loss for loss in losses if name in loss.hyperparameters]
                about = argument_text(takers[0].formula, name)
                text = f"{about.rstrip('.')} ({', '.join(loss.name for loss in takers)})."
                cls.__annotations__[name] = typing.get_type_hints(takers[0].function)[name] | None
                field = dataclasses.field(default=None, metadata={"help": text})
                setattr(cls, name, field)
        return cls

    return decorated


def hyperparameter_names(losses: Iterable[Loss | GroupMethod]) -> list[str]:
    """The names of all their hyper-parameters, each once."""
    return list(dict.fromkeys(name for loss in losses for name in loss.hyperparameters))


def given_hyperparameters(settings: Any, table: Mapping[str, Loss]) -> dict[str, float | None]:
    """The fields of settings that are hyper-parameters of some loss of a table."""
    return {name: getattr(settings, name) for name in hyperparameter_names(table.values())}


def argument_text(function: Callable[..., Any], name: str) -> str:
    """Description of an argument in the docstring of its function, on one line.

    >>> argument_text(PAIR_LOSSES["simpo"].function, "gamma")
    'target margin, reward units.'
    """
    text = function.__doc__ or ""
    found = re.search(rf"^ +{name}: ((?:.+\n)(?:        +\S.*\n)*)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else name.replace("_", " ")
