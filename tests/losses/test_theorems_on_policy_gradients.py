"""What is true of all policy gradients: on policy each is REINFORCE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import (
    cispo_loss,
    grpo_loss,
    ppo_policy_loss,
    reinforce_loss,
    rloo_loss,
    sapo_loss,
    sequence_log_ratios,
    token_log_ratios,
    vespo_weights,
)
from tests.decisions import ADVANTAGES, CLOSE, B, T, draw, spread


def on_policy(behaviour, mask):
    """Every surrogate of a response's advantage, as functions of the log-probabilities."""
    each = np.broadcast_to(ADVANTAGES[:, None], (B, T))
    zero = np.zeros((B, T))
    tokens = {"clip_range": 0.2}
    return {
        "ppo": lambda x: ppo_policy_loss(x, behaviour, each, **tokens),
        "dual clip": lambda x: ppo_policy_loss(x, behaviour, each, dual_clip=3.0, **tokens),
        "grpo": lambda x: grpo_loss(x, behaviour, ADVANTAGES, zero, kl_coef=0.0, **tokens),
        "cispo": lambda x: cispo_loss(x, behaviour, each, highest=2.0),
        "sapo": lambda x: sapo_loss(x, behaviour, each),
        "other sapo": lambda x: sapo_loss(
            x, behaviour, each, positive_temperature=3.0, negative_temperature=0.2
        ),
        "gspo token": lambda x: ppo_policy_loss(
            token_log_ratios(x, behaviour, mask), zero, each, **tokens
        ),
        "gspo": lambda x: ppo_policy_loss(
            sequence_log_ratios(x, behaviour, mask), zero, each, **tokens
        ),
        "vespo": lambda x: reinforce_loss(
            x, each * vespo_weights(x, behaviour, mask, ADVANTAGES)[:, None]
        ),
        "rloo": lambda x: rloo_loss(x, behaviour, mask, ADVANTAGES, **tokens),
    }


@pytest.mark.parametrize("name", on_policy(*draw(0)[1:]))
def test_on_policy_all_are_the_policy_gradient(x64, name):
    """At ratio 1 the gradient of each is -A at every token: REINFORCE's."""
    _, behaviour, mask = draw(0)
    loss = on_policy(behaviour, mask)[name]
    found = jax.grad(lambda x: spread(loss(x), mask))(jnp.asarray(behaviour))
    np.testing.assert_allclose(found, -ADVANTAGES[:, None] * mask, **CLOSE)
