"""Kullback-Leibler divergence from a reference: estimators, the exact sum, its coefficient."""

import dataclasses
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxalign.logprobs import Ranges, log_softmax, logits_of, map_time_chunks, shift_right, tempered
from jaxalign.numerics.arguments import assert_rank, assert_same_shape
from jaxalign.numerics.named import by_name
from jaxalign.numerics.precision import saturating_exp, widen

__all__ = (
    "k1",
    "k2",
    "k3",
    "importance_corrected_k3",
    "exact_kl",
    "fused_exact_kl",
    "adapted_coef",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KLEstimator:
    """An estimator of the KL to the reference under its name on the command line.

    name: after `--grpo.kl_estimator`.
    reward: what is charged to the reward, `(policy_logps, reference_logps) -> [...]`; None: it is
      no estimator for the reward.
    loss: a term of the loss, `(logps, behaviour_logps, reference_logps) -> [...]`; None: it has no
      gradient to learn from.
    """

    name: str
    reward: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    loss: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None


def k1(policy_logps: jax.Array, reference_logps: jax.Array) -> jax.Array:
    """The plain KL estimator: unbiased, but negative for about half of the samples.

      k1 = log pi(x) - log pi_ref(x),  E_pi[k1] = KL(pi, pi_ref)

    As a *loss* on policy it has no effect: its expected gradient is 0. Use it in the reward.

    Args:
      policy_logps: `[...]` nats, of samples from the policy.
      reference_logps: `[...]` nats, of the same samples under the reference.

    Returns:
      `[...]` nats.

    Raises:
      AssertionError: the shapes differ.

    When: in the reward, and to report the KL.
    TRL: `kl_estimator="k1"`.
    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html, k1.

    >>> float(k1(jnp.float32(-1.0), jnp.float32(-1.5)))
    0.5
    """
    assert_same_shape(policy_logps=policy_logps, reference_logps=reference_logps)
    policy_logps, reference_logps = widen(policy_logps, reference_logps)
    return policy_logps - reference_logps


def k2(policy_logps: jax.Array, reference_logps: jax.Array) -> jax.Array:
    """The squared KL estimator: never negative, biased; on policy its gradient is that of the KL.

      k2 = (log pi(x) - log pi_ref(x))^2 / 2

    Args:
      policy_logps: `[...]` nats, of samples from the policy.
      reference_logps: `[...]` nats, of the same samples under the reference.

    Returns:
      `[...]` nats.

    Raises:
      AssertionError: the shapes differ.

    When: as a term of the loss, on policy.
    TRL: not there.
    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html, k2.

    >>> float(k2(jnp.float32(-1.0), jnp.float32(-3.0)))
    2.0
    """
    return k1(policy_logps, reference_logps) ** 2 / 2


def k3(policy_logps: jax.Array, reference_logps: jax.Array) -> jax.Array:
    """The KL estimator of low variance: unbiased and never negative.

      k3 = exp(-d) - 1 + d,  d = log pi(x) - log pi_ref(x),  E_pi[k3] = KL(pi, pi_ref)

    As a loss its expected gradient on policy is that of the *other* KL, KL(pi_ref, pi).

    Args:
      policy_logps: `[...]` nats, of samples from the policy.
      reference_logps: `[...]` nats, of the same samples under the reference.

    Returns:
      `[...]` nats.

    Raises:
      AssertionError: the shapes differ.

    When: to report the KL with little noise.
    TRL: `kl_estimator="k3"`; the KL term of `GRPOTrainer`.
    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html, k3.

    >>> float(k3(jnp.float32(0.0), jnp.float32(0.0)))
    0.0
    """
    return _exp_less_tangent(-k1(policy_logps, reference_logps))


def importance_corrected_k3(
    logps: jax.Array, behaviour_logps: jax.Array, reference_logps: jax.Array
) -> jax.Array:
    """The importance-weighted KL estimator, whose gradient as a loss is unbiased, also off policy.

      L = r k3,  r = pi(x) / pi_behaviour(x),  E_behaviour[L] = KL(pi, pi_ref)

    The gradient flows through ratio and estimate alike; the mean over samples x of the behaviour
    policy is then an unbiased estimate of the gradient of KL(pi, pi_ref). x is a whole response:
    give sums of log-probabilities. Token by token, as GRPO uses it, it is the KL of the next token
    alone and misses that a token decides which prefixes follow (Tang and Munos 2025,
    https://arxiv.org/abs/2506.09477). As losses on samples: k1 has the expected gradient 0, k2 on
    policy the right one, k3 that of KL(pi_ref, pi).

    Args:
      logps: `[...]` nats under the policy that is trained.
      behaviour_logps: `[...]` under the policy that sampled; get no gradient.
      reference_logps: `[...]` under the reference.

    Returns:
      `[...]` nats.

    Raises:
      AssertionError: the shapes differ.

    When: the KL is a term of the loss (GRPO and relatives).
    TRL: `use_bias_correction_kl=True`, the default of 1.16.
    Source: DeepSeek-AI 2025, https://arxiv.org/abs/2512.02556, the unbiased KL estimate.

    >>> float(importance_corrected_k3(jnp.float32(0.0), jnp.float32(0.0), jnp.float32(0.0)))
    0.0
    """
    assert_same_shape(logps=logps, behaviour_logps=behaviour_logps, reference_logps=reference_logps)
    logps, behaviour_logps = widen(logps, behaviour_logps)
    ratios = saturating_exp(logps - jax.lax.stop_gradient(behaviour_logps))
    return ratios * k3(logps, reference_logps)


def _exp_less_tangent(x: jax.Array) -> jax.Array:
    """The remainder exp(x) - 1 - x, by its Taylor series near 0: no cancellation."""
    near = jnp.abs(x) < 0.25
    small = jnp.where(near, x, 0)
    series = jnp.zeros_like(x)
    for power in range(14, 1, -1):  # the next term is 2e-19 of the first
        series = series * small + 1 / math.factorial(power)
    return jnp.where(near, series * small**2, saturating_exp(x) - 1 - x)


def exact_kl(policy_logits: jax.Array, reference_logits: jax.Array) -> jax.Array:
    """KL divergence between two categorical distributions, summed over every outcome.

      KL(p, q) = sum_v p_v (log p_v - log q_v) = sum_v p_v (exp(-d_v) - 1 + d_v),  d = log p - log q

    The second form, used here, has no negative terms: a KL of 1e-9 is right in float32 too. No
    shift in time: entry t belongs to logits t.

    Args:
      policy_logits: `[..., V]`, unnormalised log-probabilities of p.
      reference_logits: `[..., V]`, of q.

    Returns:
      `[...]` nats, at least 0; infinite where p allows what q forbids (a logit of -inf).

    Raises:
      AssertionError: the shapes differ.

    When: logits of both are at hand: no sampling noise at all.
    TRL: not there.
    Source: Kullback and Leibler 1951, https://doi.org/10.1214/aoms/1177729694.

    >>> kl = exact_kl(jnp.array([0.0, -jnp.inf]), jnp.array([0.0, 0.0]))
    >>> round(float(kl), 6)  # log 2
    0.693147
    """
    assert_same_shape(policy_logits=policy_logits, reference_logits=reference_logits)
    log_p, log_q = map(log_softmax, widen(policy_logits, reference_logits))
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    d = jnp.where(p > 0, log_p - log_q, 0)
    near = d > -1
    terms = jnp.where(near, p * _exp_less_tangent(-d), q - p + p * d)
    return jnp.sum(jnp.where(p > 0, terms, q), axis=-1)


def fused_exact_kl(
    policy_hidden: jax.Array,
    policy_unembedding: jax.Array,
    reference_hidden: jax.Array,
    reference_unembedding: jax.Array,
    *,
    temperature: float = 1.0,
    softcaps: tuple[float | None, float | None] = (None, None),
    chunk_size: int,
    token_ranges: Ranges = (),
) -> jax.Array:
    """Exact KL per token of two language models, without either's `[B, T, V]` logits in memory.

    Entry t is the KL of the distributions that tokens[t] was drawn from, as in `token_logps`.
    For scoring: chunks are not rematerialised, so take no gradient through it.

    Args:
      policy_hidden, reference_hidden: `[B, T, D]`, after the last norm (widths may differ).
      policy_unembedding, reference_unembedding: `[D, V]`.
      temperature: both logits are divided by it.
      softcaps: of the policy's and the reference's logits, see `softcapped`; None: none.
      chunk_size: tokens whose logits exist at one time.
      token_ranges: of both, see `only_tokens`.

    Returns:
      `[B, T]` nats, at least 0.

    Raises:
      AssertionError: batch, time or vocabulary differ.

    When: the vocabulary is large.
    TRL: not there.
    Source: Kullback and Leibler 1951, https://doi.org/10.1214/aoms/1177729694.
    """
    assert_rank(3, policy_hidden=policy_hidden, reference_hidden=reference_hidden)
    assert_same_shape(axes=2, policy_hidden=policy_hidden, reference_hidden=reference_hidden)
    chex.assert_equal(policy_unembedding.shape[-1], reference_unembedding.shape[-1])

    def chunk_kl(policy: jax.Array, reference: jax.Array) -> jax.Array:
        return exact_kl(
            tempered(logits_of(policy, policy_unembedding, softcaps[0], token_ranges), temperature),
            tempered(
                logits_of(reference, reference_unembedding, softcaps[1], token_ranges), temperature
            ),
        )

    return shift_right(map_time_chunks(chunk_kl, (policy_hidden, reference_hidden), chunk_size))


def adapted_coef(
    coef: jax.Array, kl: jax.Array, *, target: float, horizon: float, batch_size: int
) -> jax.Array:
    """The KL coefficient after one batch of a controller that holds the KL near its target.

      e = clip(KL / target - 1, -0.2, 0.2)        coef' = coef (1 + e batch_size / horizon)

    A fixed coefficient is a plain float and needs no function.

    Args:
      coef: `[]`, the present coefficient.
      kl: `[]` nats per sequence, the mean over the batch.
      target: nats per sequence.
      horizon: episodes in which a persistent error of 0.2 changes the coefficient by a factor
        e^0.2.
      batch_size: episodes in this batch.

    Returns:
      `[]`, the next coefficient.

    Raises:
      AssertionError: `coef` or `kl` is no scalar.

    When: the KL to hold is known, the coefficient that holds it is not.
    TRL: `AdaptiveKLController` (until 0.11).
    Source: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, sec. 2.2, with
      K_beta = batch_size / horizon.

    >>> coef, kl = jnp.float32(0.1), jnp.float32(12.0)  # twice the target: e is clipped at 0.2
    >>> round(float(adapted_coef(coef, kl, target=6.0, horizon=10, batch_size=5)), 6)
    0.11
    """
    coef, kl = widen(coef, kl)
    assert_rank(0, coef=coef, kl=kl)
    return coef * (1 + jnp.clip(kl / target - 1, -0.2, 0.2) * batch_size / horizon)


K1 = KLEstimator(name="k1", reward=k1)
K2 = KLEstimator(
    name="k2", reward=k2, loss=lambda logps, behaviour_logps, reference: k2(logps, reference)
)
K3 = KLEstimator(
    name="k3", reward=k3, loss=lambda logps, behaviour_logps, reference: k3(logps, reference)
)
CORRECTED = KLEstimator(name="corrected", loss=importance_corrected_k3)
KL_ESTIMATORS = by_name((K1, K2, K3, CORRECTED))
