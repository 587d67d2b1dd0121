"""Distillation: forward and reverse KL and the generalised Jensen-Shannon divergence."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign as ja
from tests.cases.losses.distillation import CASES
from tests.checks.of_cases import checks_of

LOG2 = math.log(2)
RNG = np.random.default_rng(0)
TestCases = checks_of(CASES)


class TestDistillation:
    student, teacher = RNG.normal(0.0, 2.0, (2, 6, 4))
    jsd = staticmethod(ja.generalised_jsd_loss)

    def test_limits_are_the_two_kls(self, x64):
        """L / b -> KL(p, q) as b -> 0, L / (1 - b) -> KL(q, p) as b -> 1; errors are of order b."""
        both = self.student, self.teacher
        near = 1e-5
        forward = self.jsd(*both, mixture=near) / near
        np.testing.assert_allclose(forward, ja.forward_kl_loss(*both), rtol=1e-3)
        reverse = self.jsd(*both, mixture=1 - near) / near
        np.testing.assert_allclose(reverse, ja.reverse_kl_loss(*both), rtol=1e-3)
        gap = ja.forward_kl_loss(*both) - ja.reverse_kl_loss(*both)
        assert np.abs(gap).min() > 0.01  # it matters which

    @pytest.mark.slow
    def test_at_one_half_the_sides_are_alike(self):
        one = self.jsd(self.student, self.teacher, mixture=0.5)
        other = self.jsd(self.teacher, self.student, mixture=0.5)
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert (one > 0).all() and (one < LOG2).all()
        one = self.jsd(self.student, self.teacher, mixture=0.3)
        other = self.jsd(self.teacher, self.student, mixture=0.7)
        np.testing.assert_allclose(one, other, rtol=1e-5)

    def test_disjoint_distributions_are_at_the_entropy_of_the_mixture(self):
        one = jnp.array([0.0, -jnp.inf])
        for b in (0.5, 0.2):
            entropy = -b * math.log(b) - (1 - b) * math.log(1 - b)
            assert float(self.jsd(one, one[::-1], mixture=b)) == pytest.approx(entropy, rel=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "loss",
        [
            ja.forward_kl_loss,
            ja.reverse_kl_loss,
            functools.partial(ja.generalised_jsd_loss, mixture=0.3),
        ],
    )
    def test_the_teacher_is_the_least(self, x64, loss):
        value, slope = jax.value_and_grad(lambda s: loss(s, self.teacher).sum())(self.teacher + 5)
        assert float(value) == pytest.approx(0, abs=1e-14)
        np.testing.assert_allclose(slope, 0, atol=1e-14)
        assert (loss(self.student, self.teacher) > 0).all()
