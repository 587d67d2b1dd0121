"""Next-token cross-entropy: supervised fine-tuning."""

import jax

from jaxalign.numerics.precision import widen

__all__ = ("cross_entropy_loss",)


def cross_entropy_loss(token_logps: jax.Array) -> jax.Array:
    """Negative log-likelihood of every token.

      L_t = -log pi(y_t | x, y_<t)

    Sum over the response mask, count the response tokens of the *global* batch, divide once.

    Args:
      token_logps: `[...]` nats.

    Returns:
      `[...]` nats.

    When: supervised fine-tuning, and the likelihood part of other losses.
    TRL: `SFTTrainer`; `loss_type="sft"` in DPO.
    Source: Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, sec. 3.5 (SFT).

    >>> import jax.numpy as jnp
    >>> cross_entropy_loss(jnp.array([[0.0, -1.5]])).tolist()
    [[-0.0, 1.5]]
    """
    return -widen(token_logps)[0]
