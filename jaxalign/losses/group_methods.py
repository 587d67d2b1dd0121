"""The declaration of a critic-free policy gradient: what a published method is made of.

A method is a surrogate loss, the advantages it multiplies, the way token losses become one number,
where the KL is paid, and which responses are left out. It is declared in the file of its paper; any
part of a method can be replaced by that of another.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax

from jaxalign.advantages import GROUP
from jaxalign.advantages.declarations import AdvantageEstimator
from jaxalign.errors import UserError
from jaxalign.kl import K1, K3, KLEstimator
from jaxalign.losses.aggregation import SEQUENCE_MEAN, Aggregation
from jaxalign.losses.declarations import SAMPLED, Kind, filled_hyperparameters
from jaxalign.losses.importance import (
    ImportanceLevel,
    ImportanceWeights,
    of_tokens,
    truncated_importance_weights,
)
from jaxalign.numerics.named import by_name

KLPlace = Literal["loss", "reward"]
KL_IN: dict[KLPlace, KLEstimator] = {"loss": K3, "reward": K1}  # unless another one is given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A loss whose gradient on policy is the policy gradient.

    losses: gives `[B, T]`, or `[B]` if `whole`, of `(logps, behaviour_logps, mask, advantages)`;
      its keyword arguments are hyper-parameters. The advantages are `[B]` where the surrogate has
      one for a response, `[B, T]` otherwise.
    formula: the public function that it calls.
    clipped: gives `[B, T]` bool, where the clip acts; None: there is none.
    one_advantage: advantages are one a response, `[B]`.
    one_ratio: so are ratios.
    whole: losses are of whole responses.
    uses_ratios: knows how far the policy has moved, so that samples can be used more than once.
    """

    losses: Callable[..., jax.Array]
    formula: Callable[..., jax.Array]
    clipped: Callable[..., jax.Array] | None = None
    one_advantage: bool = False
    one_ratio: bool = False
    whole: bool = False
    uses_ratios: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupMethod:
    """A critic-free policy gradient from scored responses, with all its parts.

    name: after `--loss`.
    surrogate: the loss of tokens or responses.
    hyperparameters: keyword arguments of the surrogate that have no default in its signature, or
      another one here; the signature's are added.
    aggregation: of token losses to one number, declared in `losses/aggregation.py`.
    advantages: declared in `advantages/`; GRPO's without another.
    kl_coef: weight of the KL to the reference; 0: none.
    kl_in: whether the KL is a term of the "loss" or charged to the "reward".
    kl_estimator: declared in `kl.py`.
    gamma: discount of advantages of tokens.
    mask_truncated: leave responses that were cut off out of loss and divisor.
    drop_equal_groups: leave groups of equal scores out of loss and divisor.
    overlong_share: the last share of the longest response in which length costs reward.
    missing_eos_penalty: reward units that a response without end costs.
    entropy_coef: weight of the entropy bonus.
    top_entropy: share of the tokens, the least certain ones, that the surrogate trains; None: all.
    importance_cap: largest weight that corrects for a sampler that differs from the trainer; None:
      no correction. importance_mode: the weights, `truncated_importance_weights` or masked ones.
      importance_level: of what they are, `of_tokens` or `of_sequences`.
    """

    name: str
    surrogate: Surrogate
    aggregation: Aggregation
    hyperparameters: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    advantages: AdvantageEstimator = GROUP
    kl_coef: float = 0.0
    kl_in: KLPlace = "loss"
    kl_estimator: KLEstimator = K3
    gamma: float = 1.0
    mask_truncated: bool = False
    drop_equal_groups: bool = False
    overlong_share: float = 0.0
    missing_eos_penalty: float = 0.0
    entropy_coef: float = 0.0
    top_entropy: float | None = None
    importance_cap: float | None = None
    importance_mode: ImportanceWeights = truncated_importance_weights
    importance_level: ImportanceLevel = of_tokens

    def __post_init__(self):
        filled = filled_hyperparameters(self.function, self.kind.inputs, self.hyperparameters)
        object.__setattr__(self, "hyperparameters", filled)
        _check_parts(self)

    @property
    def kind(self) -> Kind:
        """Kind of the data that it learns from."""
        return SAMPLED

    @property
    def function(self) -> Callable[..., jax.Array]:
        """The surrogate losses; their keyword arguments are the hyper-parameters."""
        return self.surrogate.losses

    @property
    def formula(self) -> Callable[..., jax.Array]:
        """The public function that they call."""
        return self.surrogate.formula

    @property
    def per_token(self) -> bool:
        """Whether advantages differ from token to token of a response."""
        return self.advantages.of_tokens is not None

    @property
    def reward_kl_coef(self) -> float:
        """KL coefficient in the reward; 0: no KL is charged there."""
        return self.kl_coef if self.kl_in == "reward" else 0.0

    @property
    def loss_kl_coef(self) -> float:
        """KL coefficient in the loss; 0: it has no such term."""
        return self.kl_coef if self.kl_in == "loss" else 0.0


# The fields that can be those of another method, in alphabetical order.
PARTS = tuple(
    sorted(
        field.name
        for field in dataclasses.fields(GroupMethod)
        if field.name not in ("name", "surrogate", "hyperparameters")
    )
)


def with_parts(method: GroupMethod, **given: Any) -> GroupMethod:
    """A method with what is given (not None) in place of its own.

    Args:
      method: a declared one.
      given: fields of `GroupMethod`, or hyper-parameters of its surrogate.

    Raises:
      UserError: the method has no use for what is given, or it cannot be.

    >>> from jaxalign.losses import DAPO, GRPO
    >>> with_parts(DAPO, kl_coef=0.1).hyperparameters["clip_range"]
    (0.2, 0.28)
    >>> with_parts(GRPO, kl_in="reward").kl_estimator.name
    'k1'
    """
    given = {key: value for key, value in given.items() if value is not None}
    own = {key: value for key, value in given.items() if key in PARTS}
    numbers = {key: value for key, value in given.items() if key not in PARTS}
    if unknown := sorted(set(numbers) - set(method.hyperparameters)):
        takes = ", ".join(f"{key} {value}" for key, value in method.hyperparameters.items())
        raise UserError(f"loss {method.name} takes no {unknown[0]}; it takes {takes or 'none'}")
    if "kl_in" in own:
        places = get_args(KLPlace)
        _refuse(
            own["kl_in"] not in places, f"no kl_in {own['kl_in']!r}; there are {', '.join(places)}"
        )
        own = {"kl_estimator": KL_IN[own["kl_in"]]} | own
    numbers = dict(method.hyperparameters) | numbers
    changed = dataclasses.replace(method, hyperparameters=numbers, **own)
    _check_ranges(changed)
    _check_used(changed, given)
    return changed


def methods_of(namespace: Mapping[str, Any]) -> dict[str, GroupMethod]:
    """The declared methods among the values of a namespace, by name, in its order."""
    return by_name([value for value in namespace.values() if isinstance(value, GroupMethod)])


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise UserError(message)


def _check_ranges(method: GroupMethod) -> None:
    """Refuse numbers that no method could take."""
    for name in ("kl_coef", "entropy_coef", "missing_eos_penalty"):
        value = getattr(method, name)
        _refuse(value < 0, f"{name} is {value}; it must not be negative")
    numbers = method.hyperparameters
    low, high = numbers.get("clip_range", (1.0, 1.0))
    _refuse(min(low, high) <= 0, f"clip_range is ({low}, {high}); both must be above 0")
    dual = numbers.get("dual_clip")
    _refuse(
        dual is not None and dual <= 1 + high,
        f"dual_clip is {dual}; it must be above 1 + the upper clip range {high}",
    )
    for name in ("positive_temperature", "negative_temperature"):
        value = numbers.get(name, 1.0)
        _refuse(value <= 0, f"{name} is {value}; it must be above 0")
    cap, share = method.importance_cap, method.top_entropy
    _refuse(cap is not None and cap <= 0, f"importance_cap is {cap}; it must be above 0")
    _refuse(
        share is not None and not 0 < share < 1,
        f"top_entropy is {share}; it must lie in (0, 1)",
    )
    overlong, gamma = method.overlong_share, method.gamma
    _refuse(not 0 <= overlong <= 1, f"overlong_share is {overlong}; it must lie in [0, 1]")
    _refuse(not 0 <= gamma <= 1, f"gamma is {gamma}; it must lie in [0, 1]")


def _check_parts(method: GroupMethod) -> None:
    """Refuse parts that do not go together."""
    name = method.name
    _refuse(
        method.surrogate.one_advantage and method.per_token,
        f"loss {name} takes one advantage a response, {method.advantages.name} gives one a token",
    )
    _refuse(
        method.drop_equal_groups and method.per_token,
        f"advantages {method.advantages.name} are not 0 in groups of equal scores; "
        "leave drop_equal_groups out",
    )
    if method.surrogate.whole:
        _refuse(
            method.aggregation is not SEQUENCE_MEAN,
            f"loss {name} is of whole responses: its only aggregation is sequence_mean",
        )
        _refuse(
            method.top_entropy is not None,
            f"loss {name} is of whole responses: leave top_entropy out",
        )
        _refuse(
            method.importance_cap is not None and method.importance_level is of_tokens,
            f"loss {name} is of whole responses: set importance_level to sequence",
        )
    estimator = method.kl_estimator
    _refuse(
        bool(method.loss_kl_coef) and estimator.loss is None,
        f"kl_estimator {estimator.name} in the loss teaches nothing, its expected gradient is 0: "
        "use k2, k3 or corrected, or set kl_in to reward",
    )
    _refuse(
        bool(method.reward_kl_coef) and estimator.reward is None,
        f"kl_estimator {estimator.name} is about gradients and a reward has none: use k1, k2 or k3",
    )


def _check_used(method: GroupMethod, given: Mapping[str, Any]) -> None:
    """Refuse what is given but would change nothing."""
    for name in ("kl_in", "kl_estimator"):
        _refuse(name in given and not method.kl_coef, f"kl_coef is 0: leave {name} out")
    for name in ("importance_mode", "importance_level"):
        _refuse(
            name in given and method.importance_cap is None,
            f"importance_cap is not set: leave {name} out",
        )
    _refuse(
        "gamma" in given and not method.per_token,
        f"advantages {method.advantages.name} have no discount: leave gamma out",
    )
