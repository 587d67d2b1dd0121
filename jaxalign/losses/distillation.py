"""Distillation on full distributions: forward, reverse and in between."""

import math

import jax
import jax.numpy as jnp

from jaxalign.kl import exact_kl
from jaxalign.logprobs import log_softmax
from jaxalign.losses.declarations import DISTILLATION, Loss
from jaxalign.numerics.arguments import assert_range, assert_same_shape
from jaxalign.numerics.bounds import INNER_SHARE
from jaxalign.numerics.precision import widen

__all__ = (
    "FORWARD_KL_DISTILLATION",
    "REVERSE_KL_DISTILLATION",
    "JSD_DISTILLATION",
    "forward_kl_loss",
    "reverse_kl_loss",
    "generalised_jsd_loss",
)


def forward_kl_loss(student_logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """KL from the teacher to the student, token by token: cover all that the teacher does.

      L = sum_v p_v (log p_v - log q_v),  p the teacher, q the student

    Args:
      student_logits: `[..., V]`.
      teacher_logits: `[..., V]`; get no gradient.

    Returns:
      `[...]` nats, at least 0.

    Raises:
      AssertionError: the shapes differ.

    When: the student is nearly as able as the teacher; texts of the teacher or of people.
    TRL: `GKDTrainer` with `beta=0`.
    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531; for sequences: Agarwal et al.
      2023, https://arxiv.org/abs/2306.13649, Eq. 1.

    >>> uniform = jnp.zeros(2)
    >>> print(f"{forward_kl_loss(uniform, jnp.log(jnp.array([0.75, 0.25]))):.4f}")
    0.1308
    """
    return exact_kl(jax.lax.stop_gradient(teacher_logits), student_logits)


def reverse_kl_loss(student_logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """KL from the student to the teacher, token by token: write only what the teacher would.

      L = sum_v q_v (log q_v - log p_v),  p the teacher, q the student

    Args:
      student_logits: `[..., V]`.
      teacher_logits: `[..., V]`; get no gradient.

    Returns:
      `[...]` nats, at least 0.

    Raises:
      AssertionError: the shapes differ.

    When: the student is much smaller than the teacher; its own samples.
    TRL: `GKDTrainer` with `beta=1`.
    Source: Gu et al. 2023, https://arxiv.org/abs/2306.08543 (MiniLLM), Eq. 1.

    >>> uniform = jnp.zeros(2)
    >>> print(f"{reverse_kl_loss(uniform, jnp.log(jnp.array([0.75, 0.25]))):.4f}")
    0.1438
    """
    return exact_kl(student_logits, jax.lax.stop_gradient(teacher_logits))


def generalised_jsd_loss(
    student_logits: jax.Array, teacher_logits: jax.Array, *, mixture: float
) -> jax.Array:
    """Jensen-Shannon divergence with unequal weights, between the two KLs.

      L = b KL(p, m) + (1 - b) KL(q, m),  m = b p + (1 - b) q,  p the teacher, q the student

    L / b tends to the forward KL as b -> 0, L / (1 - b) to the reverse KL as b -> 1.

    Args:
      student_logits: `[..., V]`.
      teacher_logits: `[..., V]`; get no gradient.
      mixture: b, in (0, 1); at the ends use the two KLs.

    Returns:
      `[...]` nats, in [0, log 2].

    Raises:
      AssertionError: the shapes differ.
      ValueError: a number outside its range.

    When: a bounded loss; on-policy distillation (GKD).
    TRL: `GKDTrainer`, `beta`, which is the KLs themselves at 0 and 1.
    Source: Agarwal et al. 2023, https://arxiv.org/abs/2306.13649, Eq. 2 (generalized JSD).

    >>> certain = jnp.array([0.0, -jnp.inf])
    >>> print(f"{generalised_jsd_loss(certain, certain[::-1], mixture=0.5):.4f}")  # log 2
    0.6931
    """
    assert_range(INNER_SHARE, mixture=mixture)
    assert_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    student, teacher = map(log_softmax, widen(student_logits, teacher_logits))
    teacher = jax.lax.stop_gradient(teacher)
    middle = _log_mixture(student, teacher, mixture)
    return mixture * exact_kl(teacher, middle) + (1 - mixture) * exact_kl(student, middle)


def _log_mixture(student: jax.Array, teacher: jax.Array, mixture: float) -> jax.Array:
    """log(b p + (1 - b) q); -inf, with a gradient of 0, where both are -inf."""
    possible = jnp.maximum(student, teacher) > -jnp.inf
    p = jnp.where(possible, teacher, 0)  # one finite number is enough for a finite gradient
    mixed = jnp.logaddexp(p + math.log(mixture), student + math.log1p(-mixture))
    return jnp.where(possible, mixed, -jnp.inf)


FORWARD_KL_DISTILLATION = Loss(name="forward_kl", kind=DISTILLATION, function=forward_kl_loss)
REVERSE_KL_DISTILLATION = Loss(name="reverse_kl", kind=DISTILLATION, function=reverse_kl_loss)
JSD_DISTILLATION = Loss(
    name="jsd", kind=DISTILLATION, function=generalised_jsd_loss, hyperparameters={"mixture": 0.5}
)
