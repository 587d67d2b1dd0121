"""Token losses added up: mean over tokens or responses, sum, constant length."""

import jax.numpy as jnp
import pytest

from jaxalign import constant_length
from tests.cases.losses.aggregation import CASES
from tests.checks.of_cases import checks_of

TestCases = checks_of(CASES)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_constant_length_takes_a_matrix(shape):
    """A mask with one more axis would be counted along the wrong one."""
    with pytest.raises(AssertionError):
        constant_length(jnp.ones(shape, bool), length=4)
