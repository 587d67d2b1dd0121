"""The declaration of a loss: what stands beside a formula so that everything else can be derived.

Names on the command line, defaults, help, checks, the table of losses and the tests all read it.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxalign.errors import UserError
from jaxalign.numerics.named import by_name


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of data that losses learn from.

    command: that trains them, of `jaxalign COMMAND --loss NAME`.
    heading: over them in the table of losses.
    inputs: what the objective has for them, by the names of their arguments.
    """

    command: str
    heading: str
    inputs: frozenset[str]


PAIRED = Kind(
    "dpo",
    "Paired preferences",
    frozenset(
        (
            *("policy", "reference", "lengths", "weights", "gold_logps", "gold_lengths"),
            *("shift", "axis_name"),
        )
    ),
)
UNPAIRED = Kind(
    "kto",
    "Unpaired preferences",
    frozenset(("policy_logps", "reference_logps", "labels", "kl", "shift")),
)
ONLINE = Kind(
    "online",
    "Online preferences",
    frozenset(
        (
            *("policy", "reference", "reference_sample_logps"),
            *("policy_logps", "reference_logps", "preferences"),
        )
    ),
)
SAMPLED = Kind(
    "grpo",
    "Policy gradients",
    frozenset(("logps", "behaviour_logps", "mask", "advantages")),
)
COMPARISONS = Kind("reward", "Rewards", frozenset(("differences", "margins")))
RANKINGS = Kind("reward", "Rewards", frozenset(("scores", "mask")))
STEPS = Kind("reward", "Rewards", frozenset(("logits", "labels")))
DISTILLATION = Kind("distill", "Distillation", frozenset(("student_logits", "teacher_logits")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss function under its name on the command line, with its hyper-parameters.

    name: after `--loss`.
    kind: of the data that it learns from; arguments of those names are its inputs.
    function: gives the unreduced losses, `[B]` or `[B, T]`. All its arguments that are no inputs
      are keyword-only numbers, the hyper-parameters.
    hyperparameters: those that have no default in the signature, or another one here; the
      signature's are added.
    per_token: rewards are compared per token of the response, not in total.
    opponent: weight of the reference in the mixture with the policy that draws the second response
      (losses on fresh pairs).
    formula: the public function, where `function` only binds or renames an argument of it; itself
      otherwise.

    >>> def square(policy, reference, *, beta: float, power: float = 2.0): ...
    >>> square_loss = Loss(name="square", kind=PAIRED, function=square, hyperparameters={"beta": 1})
    >>> square_loss.inputs, square_loss.hyperparameters
    (('policy', 'reference'), {'beta': 1, 'power': 2.0})
    >>> square_loss.given(power=3.0, beta=None).hyperparameters
    {'beta': 1, 'power': 3.0}
    """

    name: str
    kind: Kind
    function: Callable[..., jax.Array]
    hyperparameters: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    per_token: bool = False
    opponent: float = 0.0
    formula: Callable[..., jax.Array] = None  # pyright: ignore[reportAssignmentType]  filled below

    def __post_init__(self):
        object.__setattr__(self, "formula", self.formula or self.function)
        filled = filled_hyperparameters(self.function, self.kind.inputs, self.hyperparameters)
        object.__setattr__(self, "hyperparameters", filled)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the arguments that an objective gives."""
        arguments = inspect.signature(self.function).parameters
        return tuple(name for name in arguments if name in self.kind.inputs)

    @property
    def reward_scale(self) -> float:
        """Implicit reward of a nat of log-ratio, for metrics: beta, or 1 for a loss without."""
        return self.hyperparameters.get("beta", 1.0)

    @property
    def couples_rows(self) -> bool:
        """Whether it compares all rows of a batch, so that it cannot take them in parts."""
        return self.needs("axis_name")

    def needs(self, name: str) -> bool:
        """Whether it reads that input."""
        return name in self.inputs

    def given(self, **numbers: float | None) -> "Loss":
        """The same loss with those hyper-parameters that are given (not None).

        Raises:
          UserError: it does not take what is given.
        """
        own = self.hyperparameters
        chosen = {key: value for key, value in numbers.items() if value is not None}
        if unknown := sorted(set(chosen) - set(own)):
            takes = ", ".join(f"{key} ({value:g})" for key, value in own.items()) or "none"
            raise UserError(f"loss {self.name} takes no {unknown[0]}; it takes {takes}")
        return dataclasses.replace(self, hyperparameters=dict(own) | chosen)

    def __call__(self, inputs: Mapping[str, Any]) -> jax.Array:
        """The losses; `inputs` has an entry for every input, and may have more."""
        bound = {name: inputs[name] for name in self.inputs}
        positional = [
            bound.pop(name)
            for name, argument in inspect.signature(self.function).parameters.items()
            if argument.kind is not argument.KEYWORD_ONLY
        ]
        return self.function(*positional, **bound, **self.hyperparameters)


def filled_hyperparameters(
    function: Callable[..., Any], inputs: frozenset[str], declared: Mapping[str, Any]
) -> dict[str, Any]:
    """The hyper-parameters of a loss function, declared ones in place of the signature's defaults.

    Args:
      function: the loss.
      inputs: names of arguments that are data.
      declared: hyper-parameters by name.

    Raises:
      TypeError: an argument that is neither data nor a number by keyword, a number that is missing,
        or one that the function does not take.
    """
    filled: dict[str, Any] = {}
    for name, argument in inspect.signature(function).parameters.items():
        if name in inputs:
            continue
        if argument.kind is not argument.KEYWORD_ONLY:
            given = ", ".join(sorted(inputs))
            raise TypeError(
                f"{function.__name__} takes {name}, which is no data ({given}); a hyper-parameter "
                "stands behind *"
            )
        filled[name] = declared.get(name, argument.default)
        if filled[name] is argument.empty:
            raise TypeError(f"{function.__name__} needs a number for {name} in its declaration")
    if unknown := sorted(set(declared) - set(filled)):
        raise TypeError(f"{function.__name__} takes no {unknown[0]}, which is declared for it")
    return filled


def losses_of(namespace: Mapping[str, Any], *kinds: Kind) -> dict[str, Loss]:
    """The declared losses of some kinds among the values of a namespace, by name, in its order."""
    declared = [value for value in namespace.values() if isinstance(value, Loss)]
    return by_name([loss for loss in declared if loss.kind in kinds])
