"""Names that a configuration can choose, and hyper-parameters, from the losses' declarations."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from jaxalign.advantages import ADVANTAGES
from jaxalign.envs import CONTROL_TASKS
from jaxalign.kl import KL_ESTIMATORS
from jaxalign.losses import (
    DISTILLATION_LOSSES,
    GROUP_LOSSES,
    ONLINE_LOSSES,
    PAIR_LOSSES,
    REWARD_LOSSES,
    UNPAIRED_LOSSES,
)
from jaxalign.losses.aggregation import AGGREGATIONS
from jaxalign.losses.declarations import Loss
from jaxalign.losses.group_methods import PARTS, GroupMethod
from jaxalign.losses.importance import IMPORTANCE_LEVELS, IMPORTANCE_MODES

Class = TypeVar("Class", bound=type)
# Losses on pairs that two log-probabilities a side determine: any pair of samples has them.
ONLINE_PAIR_LOSSES = {
    name: loss for name, loss in PAIR_LOSSES.items() if loss.inputs == ("policy", "reference")
}
# What a policy gradient without values is made of, by the fields of `GroupMethod`.
METHOD_PARTS: dict[str, Mapping[str, Any]] = {
    "advantages": ADVANTAGES,
    "aggregation": AGGREGATIONS,
    "kl_estimator": KL_ESTIMATORS,
    "importance_mode": IMPORTANCE_MODES,
    "importance_level": IMPORTANCE_LEVELS,
}
if typing.TYPE_CHECKING:  # a type checker does not know what is declared
    PairLossName = UnpairedLossName = OnlineLossName = OnlinePairLossName = str
    DistillationLossName = GroupLossName = RewardLossName = ControlTaskName = str
    AdvantagesName = AggregationName = KLEstimatorName = str
    ImportanceModeName = ImportanceLevelName = str
else:
    PairLossName = Literal[tuple(PAIR_LOSSES)]
    UnpairedLossName = Literal[tuple(UNPAIRED_LOSSES)]
    OnlineLossName = Literal[tuple(ONLINE_LOSSES)]
    OnlinePairLossName = Literal[tuple(ONLINE_PAIR_LOSSES)]
    DistillationLossName = Literal[tuple(DISTILLATION_LOSSES)]
    GroupLossName = Literal[tuple(GROUP_LOSSES)]
    RewardLossName = Literal[tuple(REWARD_LOSSES)]
    AdvantagesName = Literal[tuple(ADVANTAGES)]
    AggregationName = Literal[tuple(AGGREGATIONS)]
    KLEstimatorName = Literal[tuple(KL_ESTIMATORS)]
    ImportanceModeName = Literal[tuple(IMPORTANCE_MODES)]
    ImportanceLevelName = Literal[tuple(IMPORTANCE_LEVELS)]
    ControlTaskName = Literal[tuple(CONTROL_TASKS)]


def part_name(field: str, part: Any) -> Any:
    """Name of a method's part on the command line; what has none, such as a number, as it is.

    >>> from jaxalign.kl import K3
    >>> part_name("kl_estimator", K3), part_name("kl_coef", 0.04)
    ('k3', 0.04)
    """
    names = METHOD_PARTS.get(field, {})
    return next((name for name, known in names.items() if known is part), part)


def with_hyperparameters(*tables: Mapping[str, Loss | GroupMethod]) -> Callable[[Class], Class]:
    """Class decorator of settings: adds a field for every hyper-parameter of the losses.

    Its type is that of the argument or None, which is the default of the chosen loss; its help is
    what the docstrings of the losses say of the argument, with their defaults.

    Raises:
      TypeError: an argument without a range, with two, or with the name of another setting.

    >>> @with_hyperparameters({"cpo": PAIR_LOSSES["cpo"], "tpo": PAIR_LOSSES["tpo"]})
    ... class Settings:
    ...     beta: float | None = None
    ...     label_smoothing: float | None = None
    >>> Settings.__annotations__["nll_coef"].__args__[0].__metadata__[0].interval
    '[0, 1e+30]'
    >>> print(Settings.nll_coef.metadata["help"].replace("; ", ";\\n"))
    Weight of the likelihood of the chosen response (cpo: 1.0);
    weight of the likelihood of the gold response, alpha in the paper (tpo: 1.0).
    """
    losses = [loss for table in tables for loss in table.values()]

    def decorated(cls: Class) -> Class:
        for name in hyperparameter_names(losses):
            takers = [loss for loss in losses if name in loss.hyperparameters]
            is_part = name in PARTS and any(isinstance(loss, GroupMethod) for loss in takers)
            if getattr(cls, name, None) is not None or is_part:
                raise TypeError(f"{where(takers[0], name)} is a setting already; rename it")
            if name not in cls.__annotations__:
                cls.__annotations__[name] = argument_type(takers, name) | None
                metadata = {"help": help_text(takers, name)}
                setattr(cls, name, dataclasses.field(default=None, metadata=metadata))
        return cls

    return decorated


def where(loss: Loss | GroupMethod, name: str) -> str:
    """A hyper-parameter and the function that takes it, for error messages."""
    function = inspect.unwrap(loss.function)
    return f"{function.__module__}.{function.__name__}: argument {name}"


def argument_type(takers: Sequence[Loss | GroupMethod], name: str) -> Any:
    """Type of a hyper-parameter in the signatures, with its range.

    Raises:
      TypeError: it says none, or the losses that take it differ.
    """
    found = None
    for loss in takers:
        hint = typing.get_type_hints(loss.function, include_extras=True).get(name)
        if hint is None or without_range(hint):
            raise TypeError(
                f"{where(loss, name)} needs a type that says its range: Positive, Weight, Share or "
                "Real of jaxalign.numerics.bounds"
            )
        if found not in (None, hint):
            raise TypeError(f"{where(loss, name)} has another range in {where(takers[0], name)}")
        found = hint
    return found


def without_range(hint: Any) -> bool:
    """Whether a type has a number without a range.

    >>> from jaxalign.numerics.bounds import Weight
    >>> without_range(tuple[float, float]), without_range(Weight | None)
    (True, False)
    """
    if typing.get_origin(hint) is Annotated:
        return False
    return hint in (int, float) or any(map(without_range, typing.get_args(hint)))


def help_text(takers: Sequence[Loss | GroupMethod], name: str) -> str:
    """Help of a hyper-parameter: its texts in the docstrings, each with its losses and defaults.

    Raises:
      TypeError: one says nothing.
    """
    of_text: dict[str, list[str]] = {}
    for loss in takers:
        text = argument_text(loss.function, name) or argument_text(loss.formula, name)
        if not text:
            raise TypeError(f"{where(loss, name)} has no line under Args in the docstring")
        default = loss.hyperparameters[name]
        of_text.setdefault(text.rstrip("."), []).append(f"{loss.name}: {default}")
    joined = "; ".join(f"{text} ({', '.join(names)})" for text, names in of_text.items())
    return f"{joined[:1].upper()}{joined[1:]}." if joined[1:2].isalpha() else f"{joined}."


def hyperparameter_names(losses: Iterable[Loss | GroupMethod]) -> list[str]:
    """Names of all hyper-parameters of the losses, each once."""
    return list(dict.fromkeys(name for loss in losses for name in loss.hyperparameters))


def given_hyperparameters(settings: Any, table: Mapping[str, Loss]) -> dict[str, float | None]:
    """Hyper-parameters of the losses with their values in settings, None where not given."""
    return {name: getattr(settings, name) for name in hyperparameter_names(table.values())}


def argument_text(function: Callable[..., Any], name: str) -> str:
    """Description of an argument in the docstring of its function, on one line; empty: none.

    >>> argument_text(PAIR_LOSSES["simpo"].function, "gamma")
    'target margin, reward units.'
    """
    text = function.__doc__ or ""
    match = re.search(rf"^ +{name}: ((?:.+\n)(?:        +\S.*\n)*)", text, re.MULTILINE)
    return " ".join(match[1].split()) if match else ""
