"""What `python -m benchmarks.mutation` found no test to notice, function by function."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign import constant_length, token_logps
from jaxalign.logprobs import tempered


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_constant_length_takes_a_matrix(shape):
    """A mask with one more axis would be counted along the wrong one."""
    with pytest.raises(AssertionError):
        constant_length(jnp.ones(shape, bool), length=4)


def test_token_logps_takes_a_batch():
    """With an axis more, time would be taken for rows."""
    with pytest.raises(AssertionError):
        token_logps(jnp.zeros((1, 2, 3, 4)), jnp.zeros((1, 2, 3), int))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_temperature_1_leaves_logits_alone(dtype):
    """To the bit, type included."""
    logits = jnp.asarray([0.1, 300.7, -2.5], dtype)
    same = tempered(logits, 1.0)
    assert same.dtype == dtype
    np.testing.assert_array_equal(np.asarray(same, float), np.asarray(logits, float))
