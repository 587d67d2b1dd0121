"""DPO under other divergences than the reverse KL."""

import functools
from collections.abc import Callable

import jax

from jaxalign.batches.preferences import PairLogps
from jaxalign.losses.declarations import PAIRED, Loss
from jaxalign.losses.dpo import dpo_loss, log_ratios, no_reference
from jaxalign.numerics.bounds import Real
from jaxalign.numerics.precision import saturating_expm1, widen

__all__ = (
    "FORWARD_KL",
    "JENSEN_SHANNON",
    "ALPHA_DIVERGENCE",
    "reverse_kl_score",
    "forward_kl_score",
    "jensen_shannon_score",
    "alpha_score",
    "f_dpo_loss",
)

Score = Callable[[jax.Array], jax.Array]


def reverse_kl_score(log_ratios: jax.Array) -> jax.Array:
    """f'(t) of the reverse KL, up to a constant: DPO's own.

      f(t) = t log t,  f'(t) = log t

    Args:
      log_ratios: `[...]` nats, log t = log(pi / pi_ref).

    Returns:
      `[...]`.

    When: the default; seeks the mode.
    TRL: `f_divergence_type="reverse_kl"`.
    Source: Wang et al. 2023, https://arxiv.org/abs/2309.16240, the table of f-divergences.

    >>> import jax.numpy as jnp
    >>> reverse_kl_score(jnp.array([2.0])).tolist()
    [2.0]
    """
    return widen(log_ratios)[0]


def forward_kl_score(log_ratios: jax.Array) -> jax.Array:
    """f'(t) of the forward KL, up to a constant.

      f(t) = -log t,  f'(t) = -1 / t = (1 - 1 / t) - 1

    The constant is chosen so that t = 1 scores 0.

    Args:
      log_ratios: `[...]` nats, log t = log(pi / pi_ref).

    Returns:
      `[...]`, below 1; finite where 1 / t is not.

    When: the policy should cover all that people prefer.
    TRL: `f_divergence_type="forward_kl"`.
    Source: Wang et al. 2023, https://arxiv.org/abs/2309.16240, the table of f-divergences.

    >>> import jax.numpy as jnp
    >>> print(forward_kl_score(jnp.log(jnp.array([0.5, 1.0]))))
    [-1.  0.]
    """
    return -saturating_expm1(-widen(log_ratios)[0])


def jensen_shannon_score(log_ratios: jax.Array) -> jax.Array:
    """f'(t) of the Jensen-Shannon divergence.

      f'(t) = log(2 t / (1 + t)) = log 2 + log sigmoid(log t)

    Args:
      log_ratios: `[...]` nats, log t = log(pi / pi_ref).

    Returns:
      `[...]`, below log 2.

    When: between mode seeking and covering.
    TRL: `f_divergence_type="js_divergence"`.
    Source: Wang et al. 2023, https://arxiv.org/abs/2309.16240, the table of f-divergences.

    >>> import jax.numpy as jnp
    >>> jensen_shannon_score(jnp.array([0.0])).tolist()
    [0.0]
    """
    (log_ratios,) = widen(log_ratios)
    return jax.nn.softplus(0 * log_ratios) - jax.nn.softplus(-log_ratios)


def alpha_score(log_ratios: jax.Array, *, alpha: float) -> jax.Array:
    """f'(t) of the alpha divergence.

      f'(t) = (1 - t^-alpha) / alpha

    alpha -> 0 is the reverse KL, alpha = 1 the forward KL. TRL 1.16 counts its coefficient the
    other way: 1 - alpha.

    Args:
      log_ratios: `[...]` nats, log t = log(pi / pi_ref).
      alpha: not 0; in (0, 1) in the paper.

    Returns:
      `[...]`.

    Raises:
      ValueError: alpha is 0.

    When: a dial between the two KLs.
    TRL: `f_divergence_type="alpha_divergence"`, `f_alpha_divergence_coef=1 - alpha`.
    Source: Wang et al. 2023, https://arxiv.org/abs/2309.16240, the table of f-divergences.

    >>> import jax.numpy as jnp
    >>> print(alpha_score(jnp.log(jnp.array([4.0])), alpha=0.5))  # (1 - 1/2) / (1/2)
    [1.]
    """
    if alpha == 0:
        raise ValueError("alpha must not be 0; there it is reverse_kl_score")
    return -saturating_expm1(-alpha * widen(log_ratios)[0]) / alpha


def f_dpo_loss(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: float,
    score: Score,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """The DPO loss where the policy is held to the reference by another f-divergence.

      L = -log sigmoid(beta f'(t_chosen) - beta f'(t_rejected)),  t = pi / pi_ref

    Args:
      policy: `[B]` nats a side, summed over the response.
      reference: the same under the frozen reference; gets no gradient.
      beta: strength of the pull towards the reference, above 0.
      score: f' as a function of log t: `reverse_kl_score`, `forward_kl_score`,
        `jensen_shannon_score`, or `alpha_score` with its alpha bound.
      label_smoothing: assumed share of flipped labels, in [0, 0.5).

    Returns:
      `[B]` nats; log 2 where policy and reference agree.

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: the diversity of the policy matters.
    TRL: `f_divergence_type`.
    Source: Wang et al. 2023, https://arxiv.org/abs/2309.16240, the f-DPO objective.

    >>> import jax.numpy as jnp
    >>> pair = PairLogps(chosen=jnp.array([-1.0]), rejected=jnp.array([-2.0]))
    >>> print(f_dpo_loss(pair, pair, beta=0.1, score=forward_kl_score).round(4))  # log 2
    [0.6931]
    """
    scores = jax.tree.map(score, log_ratios(policy, reference))
    return dpo_loss(scores, no_reference(scores), beta=beta, label_smoothing=label_smoothing)


def forward_kl_dpo_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float = 0.0
) -> jax.Array:
    """`f_dpo_loss` with the forward KL: `[B]` nats."""
    settings = {"beta": beta, "label_smoothing": label_smoothing}
    return f_dpo_loss(policy, reference, score=forward_kl_score, **settings)


def jensen_shannon_dpo_loss(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float = 0.0
) -> jax.Array:
    """`f_dpo_loss` with the Jensen-Shannon divergence: `[B]` nats."""
    settings = {"beta": beta, "label_smoothing": label_smoothing}
    return f_dpo_loss(policy, reference, score=jensen_shannon_score, **settings)


def alpha_dpo_loss(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: float,
    alpha: Real = 0.5,
    label_smoothing: float = 0.0,
) -> jax.Array:
    """`f_dpo_loss` with the alpha divergence: `[B]` nats.

    Args:
      policy, reference, beta, label_smoothing: as in `f_dpo_loss`.
      alpha: shape of the divergence, not 0; in (0, 1) in the paper.
    """
    settings = {"beta": beta, "label_smoothing": label_smoothing}
    return f_dpo_loss(
        policy, reference, score=functools.partial(alpha_score, alpha=alpha), **settings
    )


FORWARD_KL = Loss(
    name="forward_kl",
    kind=PAIRED,
    function=forward_kl_dpo_loss,
    hyperparameters={"beta": 0.1},
    formula=f_dpo_loss,
)
JENSEN_SHANNON = Loss(
    name="jensen_shannon",
    kind=PAIRED,
    function=jensen_shannon_dpo_loss,
    hyperparameters={"beta": 0.1},
    formula=f_dpo_loss,
)
ALPHA_DIVERGENCE = Loss(
    name="alpha_divergence",
    kind=PAIRED,
    function=alpha_dpo_loss,
    hyperparameters={"beta": 0.1},
    formula=f_dpo_loss,
)
