"""The critic-free policy gradients by name: what each published method is made of.

A method is a surrogate loss, the advantages it multiplies, the way token losses become one number,
where the KL is paid, and which responses are left out. This table is all that the command line, the
stages and the tests know of a method; a new one is one entry here and one name in
`config_grpo.GroupLossName`. Any part of a method can be replaced by that of another.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxalign.errors import UserError
from jaxalign.objectives.surrogates import (
    CAPPED_WEIGHT,
    GEOMETRIC_MEAN,
    PLAIN,
    RESPONSE_CLIP,
    SEQUENCE_CLIP,
    SMOOTH_WEIGHT,
    SOFT_GATE,
    TOKEN_CLIP,
    TOKEN_OF_SEQUENCE_CLIP,
    Surrogate,
)

ADVANTAGES = (
    *("group", "batch", "centred", "leave_one_out", "best_of_group", "length_weighted"),
    "reinforce_plus_plus",
)
AGGREGATIONS = ("token_mean", "sequence_mean", "sequence_sum", "constant_length")
KL_ESTIMATORS = {"loss": "k3", "reward": "k1"}  # what each place is given unless another is named


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupMethod:
    """One way to learn from scored responses.

    surrogate: the loss of tokens or responses; `hyperparameters` are its keyword arguments.
    advantages: "group" (standardised within the group), "batch" (centred within the group, scaled
      by the deviation of the batch), "centred" (not scaled), "leave_one_out", "best_of_group",
      "length_weighted", or "reinforce_plus_plus" (returns of tokens, whitened over the batch).
    aggregation: "token_mean", "sequence_mean", "sequence_sum" or "constant_length".
    kl_coef: price of a nat of KL to the reference; 0: none.
    kl_in: whether the KL is a term of the "loss" or charged to the "reward".
    kl_estimator: "k1", "k2", "k3" or "corrected" (`importance_corrected_k3`).
    gamma: discount of "reinforce_plus_plus".
    mask_truncated: leave responses that were cut off out of loss and divisor.
    drop_equal_groups: leave groups of equal scores out of loss and divisor.
    overlong_share: the last share of the longest response in which length costs reward.
    missing_eos_penalty: reward units that a response without end costs.
    entropy_coef: weight of the entropy bonus.
    top_entropy: share of the tokens, the least certain ones, that the surrogate trains; None: all.
    importance_cap: largest weight that corrects for a sampler that differs from the trainer; None:
      no correction. importance_mode: "truncate" or "mask" what exceeds it. importance_level:
      weights of "token" or "sequence".
    """

    surrogate: Surrogate
    hyperparameters: Mapping[str, Any]
    aggregation: str
    advantages: str = "group"
    kl_coef: float = 0.0
    kl_in: str = "loss"
    kl_estimator: str = "k3"
    gamma: float = 1.0
    mask_truncated: bool = False
    drop_equal_groups: bool = False
    overlong_share: float = 0.0
    missing_eos_penalty: float = 0.0
    entropy_coef: float = 0.0
    top_entropy: float | None = None
    importance_cap: float | None = None
    importance_mode: str = "truncate"
    importance_level: str = "token"

    @property
    def per_token(self) -> bool:
        """Whether advantages differ from token to token of a response."""
        return self.advantages == "reinforce_plus_plus"


def clip(low: float, high: float) -> dict[str, Any]:
    """Hyper-parameters of the clipped surrogates."""
    return {"clip_range": (low, high), "dual_clip": None}


GROUP_LOSSES: dict[str, GroupMethod] = {
    # Shao et al. 2024, arXiv 2402.03300, Eq. 3: KL coefficient 0.04 (Sec. 4.2), clip range of PPO
    "grpo": GroupMethod(
        surrogate=TOKEN_CLIP,
        hyperparameters=clip(0.2, 0.2),
        aggregation="sequence_mean",
        kl_coef=0.04,
    ),
    # Liu et al. 2025, arXiv 2503.20783: no bias from lengths or deviations, no KL
    "dr_grpo": GroupMethod(
        surrogate=TOKEN_CLIP,
        hyperparameters=clip(0.2, 0.2),
        aggregation="constant_length",
        advantages="centred",
    ),
    # Yu et al. 2025, arXiv 2503.14476: clip-higher, token mean, no KL, overlong filtering, soft
    # overlong punishment over the last 4,096 of 20,480 tokens. Its dynamic sampling draws until a
    # batch is full of unequal groups; here equal ones are dropped and no other is drawn.
    "dapo": GroupMethod(
        surrogate=TOKEN_CLIP,
        hyperparameters=clip(0.2, 0.28),
        aggregation="token_mean",
        mask_truncated=True,
        drop_equal_groups=True,
        overlong_share=0.2,
    ),
    # TRL's loss_type "bnpo": GRPO without KL and with the token mean of a batch. There it is the
    # mean of one micro-batch, so it changes with their number; here of the optimizer batch. It is
    # DAPO with a symmetric clip, and without filtering, dropping and punishment. (The paper called
    # BNPO, arXiv 2506.02864, is about rewards that follow a beta distribution.)
    "bnpo": GroupMethod(
        surrogate=TOKEN_CLIP,
        hyperparameters=clip(0.2, 0.2),
        aggregation="token_mean",
    ),
    # Zheng et al. 2025, arXiv 2507.18071, Eqs. 5 and 7; clip range of Sec. 5.1
    "gspo": GroupMethod(
        surrogate=SEQUENCE_CLIP,
        hyperparameters=clip(3e-4, 4e-4),
        aggregation="sequence_mean",
    ),
    # the same, Eqs. 13 and 14: equal to gspo unless advantages differ from token to token
    "gspo_token": GroupMethod(
        surrogate=TOKEN_OF_SEQUENCE_CLIP,
        hyperparameters=clip(3e-4, 4e-4),
        aggregation="sequence_mean",
    ),
    # MiniMax 2025, arXiv 2506.13585, Eqs. 4 and 5, no floor; ratios up to 5 as in ScaleRL,
    # arXiv 2510.13786 (the first paper gives no number)
    "cispo": GroupMethod(
        surrogate=CAPPED_WEIGHT,
        hyperparameters={"clip_range": (1.0, 4.0)},
        aggregation="token_mean",
    ),
    # Gao et al. 2025, arXiv 2511.20347, Eqs. 5 and 6
    "sapo": GroupMethod(
        surrogate=SOFT_GATE,
        hyperparameters={"positive_temperature": 1.0, "negative_temperature": 1.05},
        aggregation="sequence_mean",
    ),
    # Liu et al. 2026, arXiv 2602.05261: gspo, each response times its length; clip of Sec. 5.1
    "luspo": GroupMethod(
        surrogate=SEQUENCE_CLIP,
        hyperparameters=clip(2e-3, 2.5e-3),
        aggregation="sequence_sum",
    ),
    # Zhao et al. 2025, arXiv 2507.20673: log-ratios between -0.4 and 0.4
    "gmpo": GroupMethod(
        surrogate=GEOMETRIC_MEAN,
        hyperparameters={"clip_range": (0.4, 0.4)},
        aggregation="sequence_mean",
    ),
    # arXiv 2602.10693
    "vespo": GroupMethod(
        surrogate=SMOOTH_WEIGHT,
        hyperparameters={"positive": (2.0, 3.0), "negative": (3.0, 2.0)},
        aggregation="token_mean",
    ),
    # Ahmadian et al. 2024, arXiv 2402.14740, Eq. 8; KL in the reward. The clip, which its single
    # update from a batch does not need, and the coefficient are TRL's.
    "rloo": GroupMethod(
        surrogate=RESPONSE_CLIP,
        hyperparameters={"clip_range": (0.2, 0.2)},
        aggregation="sequence_mean",
        advantages="leave_one_out",
        kl_coef=0.05,
        kl_in="reward",
        kl_estimator="k1",
    ),
    # Williams 1992, with the baseline of RLOO
    "reinforce": GroupMethod(
        surrogate=PLAIN,
        hyperparameters={},
        aggregation="sequence_sum",
        advantages="leave_one_out",
    ),
    # Hu et al. 2025, arXiv 2501.03262: whitened returns of tokens, PPO's clip, k1 in the reward;
    # the coefficient is that of OpenRLHF
    "reinforce_plus_plus": GroupMethod(
        surrogate=TOKEN_CLIP,
        hyperparameters=clip(0.2, 0.2),
        aggregation="token_mean",
        advantages="reinforce_plus_plus",
        kl_coef=0.01,
        kl_in="reward",
        kl_estimator="k1",
    ),
}

OWN = {field.name for field in dataclasses.fields(GroupMethod)} - {"surrogate", "hyperparameters"}


def group_method(name: str, **given: Any) -> GroupMethod:
    """The method of that name, with what is given (not None) in place of its own.

    Args:
      name: in `GROUP_LOSSES`.
      given: fields of `GroupMethod`, or hyper-parameters of its surrogate.

    Raises:
      UserError: no such method, or it has no use for what is given.

    >>> group_method("dapo").hyperparameters["clip_range"]
    (0.2, 0.28)
    >>> group_method("grpo", kl_in="reward").kl_estimator
    'k1'
    """
    if name not in GROUP_LOSSES:
        raise UserError(f"no loss {name!r}; there are {', '.join(GROUP_LOSSES)}")
    base = GROUP_LOSSES[name]
    given = {key: value for key, value in given.items() if value is not None}
    own = {key: value for key, value in given.items() if key in OWN}
    hyperparameters = {key: value for key, value in given.items() if key not in OWN}
    if unknown := sorted(set(hyperparameters) - set(base.hyperparameters)):
        takes = ", ".join(f"{key} {value}" for key, value in base.hyperparameters.items())
        raise UserError(f"loss {name} takes no {unknown[0]}; it takes {takes or 'none'}")
    if "kl_in" in own:
        own = {"kl_estimator": KL_ESTIMATORS.get(own["kl_in"])} | own
    hyperparameters = dict(base.hyperparameters) | hyperparameters
    method = dataclasses.replace(base, hyperparameters=hyperparameters, **own)
    _check_ranges(method)
    _check_parts(name, method)
    _check_used(method, given)
    return method


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise UserError(message)


def _check_ranges(method: GroupMethod) -> None:
    """Numbers that no method could take."""
    choices = {
        "advantages": ADVANTAGES,
        "aggregation": AGGREGATIONS,
        "kl_in": ("loss", "reward"),
        "kl_estimator": ("k1", "k2", "k3", "corrected"),
        "importance_mode": ("truncate", "mask"),
        "importance_level": ("token", "sequence"),
    }
    for name, known in choices.items():
        value = getattr(method, name)
        _refuse(value not in known, f"no {name} {value!r}; there are {', '.join(known)}")
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


def _check_parts(name: str, method: GroupMethod) -> None:
    """Parts that do not go together."""
    _refuse(
        method.surrogate.one_advantage and method.per_token,
        f"loss {name} takes one advantage a response, {method.advantages} gives one a token",
    )
    _refuse(
        method.drop_equal_groups and method.per_token,
        f"advantages {method.advantages} are not 0 in groups of equal scores; "
        "leave drop_equal_groups out",
    )
    if method.surrogate.whole:
        _refuse(
            method.aggregation != "sequence_mean",
            f"loss {name} is of whole responses: its only aggregation is sequence_mean",
        )
        _refuse(
            method.top_entropy is not None,
            f"loss {name} is of whole responses: leave top_entropy out",
        )
        _refuse(
            method.importance_cap is not None and method.importance_level == "token",
            f"loss {name} is of whole responses: set importance_level to sequence",
        )
    place, estimator = method.kl_in, method.kl_estimator
    _refuse(
        bool(method.kl_coef) and place == "loss" and estimator == "k1",
        "kl_estimator k1 in the loss teaches nothing, its expected gradient is 0: "
        "use k2, k3 or corrected, or set kl_in to reward",
    )
    _refuse(
        bool(method.kl_coef) and place == "reward" and estimator == "corrected",
        "kl_estimator corrected is about gradients and a reward has none: use k1, k2 or k3",
    )


def _check_used(method: GroupMethod, given: Mapping[str, Any]) -> None:
    """What is given but would change nothing."""
    for name in ("kl_in", "kl_estimator"):
        _refuse(name in given and not method.kl_coef, f"kl_coef is 0: leave {name} out")
    for name in ("importance_mode", "importance_level"):
        _refuse(
            name in given and method.importance_cap is None,
            f"importance_cap is not set: leave {name} out",
        )
    _refuse(
        "gamma" in given and not method.per_token,
        f"advantages {method.advantages} have no discount: leave gamma out",
    )
