"""rlax: its surrogate loss and estimators; they take discounts and no masks."""

import jax
import jax.numpy as jnp
import numpy as np
import rlax

from benchmarks.conformance.peers.adapter import Adapter, Capability, NotOffered, installed


def surrogate_gradient(log_ratios, advantages, clip):
    """The loss is a mean over decisions."""

    def loss(logps):
        return rlax.clipped_surrogate_pg_loss(jnp.exp(logps), jnp.float32(advantages), clip)

    return np.asarray(jax.grad(loss)(jnp.float32(log_ratios))) * len(advantages)


def gae(rewards, values, discounts, gae_lambda):
    arrays = (jnp.float32(x) for x in (rewards, discounts))
    advantages = rlax.truncated_generalized_advantage_estimation(
        *arrays, gae_lambda, jnp.float32(values)
    )
    return np.asarray(advantages) + values[:-1]


def returns(rewards, values, mask, *, gamma, gae_lambda):
    if not np.all(mask):
        raise NotOffered("takes no mask")
    discounts = np.full(rewards.shape[1], gamma)
    discounts[-1] = 0
    ends = np.zeros((len(values), 1))
    padded = np.concatenate([values, ends], axis=1)
    rows = zip(rewards, padded, strict=True)
    return np.stack([gae(*row, discounts, gae_lambda) for row in rows])


def time_limit(rewards, values, final_value, gamma, truncated):
    discounts = np.full(len(rewards), gamma)
    discounts[-1] = gamma if truncated else 0
    return gae(rewards, np.append(values, final_value), discounts, 1.0)[0]


def vtrace(rewards, values, gamma):
    before, after = jnp.float32(values[:-1]), jnp.float32(values[1:])
    discounts = jnp.full(len(rewards), gamma)
    errors = rlax.vtrace(
        before, after, jnp.float32(rewards), discounts, jnp.ones(len(rewards)), lambda_=1.0
    )
    return np.asarray(errors + before)


GAE = "truncated_generalized_advantage_estimation"
FUNCTIONS = {
    "surrogate_gradient": (surrogate_gradient, "clipped_surrogate_pg_loss"),
    "returns": (returns, GAE),
    "time_limit": (time_limit, GAE),
    "vtrace": (vtrace, "vtrace"),
}
NOTES = {
    "time_limit": "The caller's discount of the last step says which: gamma, or 0.",
}


def adapter() -> Adapter:
    capabilities = {name: Capability(*entry) for name, entry in FUNCTIONS.items()}
    return Adapter("rlax", installed("rlax", "jax"), capabilities, NOTES)
