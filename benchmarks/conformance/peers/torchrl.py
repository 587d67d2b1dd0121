"""TorchRL: its functional value estimators; they take flags and no masks."""

import numpy as np
import torch
from torchrl.objectives.value.functional import (
    generalized_advantage_estimate,
    vec_generalized_advantage_estimate,
    vtrace_advantage_estimate,
)

from benchmarks.conformance.peers.adapter import Adapter, Capability, NotOffered, installed


def column(x):
    """`[T, 1]`: time before one feature."""
    return torch.tensor(np.asarray(x), dtype=torch.float32)[:, None]


def flag(steps, last):
    return torch.tensor([False] * (steps - 1) + [last])[:, None]


def targets(estimate, rewards, values, gamma, gae_lambda, terminated):
    """values: one more than rewards, the last one of the final observation."""
    steps = len(rewards)
    arrays = column(values[:-1]), column(values[1:]), column(rewards)
    flags = {"done": flag(steps, True), "terminated": flag(steps, terminated)}
    return estimate(gamma, gae_lambda, *arrays, **flags)[1][:, 0].numpy()


def returns(rewards, values, mask, *, gamma, gae_lambda):
    """Both forms, which must agree."""
    if not np.all(mask):
        raise NotOffered("takes no mask")
    found = []
    for row, baseline in zip(rewards, values, strict=True):
        arrays = row, np.append(baseline, 0.0), gamma, gae_lambda, True
        plain = targets(generalized_advantage_estimate, *arrays)
        np.testing.assert_allclose(
            targets(vec_generalized_advantage_estimate, *arrays), plain, atol=1e-4
        )
        found.append(plain)
    return np.stack(found)


def time_limit(rewards, values, final_value, gamma, truncated):
    with_final = np.append(values, final_value)
    arrays = rewards, with_final, gamma, 1.0, not truncated
    return targets(generalized_advantage_estimate, *arrays)[0]


def vtrace(rewards, values, gamma):
    steps = len(rewards)
    zero = torch.zeros(steps, 1)
    arrays = column(values[:-1]), column(values[1:]), column(rewards)
    done = flag(steps, False)
    return vtrace_advantage_estimate(gamma, zero, zero, *arrays, done, done)[1][:, 0].numpy()


MODULE = "objectives.value.functional"
FUNCTIONS = {
    "returns": (
        returns,
        f"{MODULE}.generalized_advantage_estimate, .vec_generalized_advantage_estimate",
    ),
    "time_limit": (time_limit, f"{MODULE}.generalized_advantage_estimate"),
    "vtrace": (vtrace, f"{MODULE}.vtrace_advantage_estimate"),
}


def adapter() -> Adapter:
    capabilities = {name: Capability(*entry) for name, entry in FUNCTIONS.items()}
    return Adapter("TorchRL", installed("torchrl", "torch"), capabilities)
