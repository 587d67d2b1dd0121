"""AOT: the margins of policy and reference, sorted against each other."""

import jax
import numpy as np
import pytest

import jaxalign as ja
from jaxalign import PairLogps
from tests.cases.losses.aot import CASES
from tests.checks.of_cases import checks_of
from tests.pairs import BETA, PAIRS, POLICY, REFERENCE, pair

TestCases = checks_of(CASES)


class TestOptimalTransport:
    weights = np.ones(40)

    def test_no_other_pairing_costs_less(self):
        """The loss is convex in the difference: sorting both sides is the cheapest match."""
        margins = POLICY.chosen - POLICY.rejected
        theirs = REFERENCE.chosen - REFERENCE.rejected
        aot = float(ja.aot_loss(POLICY, REFERENCE, self.weights, beta=BETA).sum())
        rng = np.random.default_rng(2)
        for _ in range(5):
            order = rng.permutation(40)
            other = jax.nn.softplus(-BETA * (margins - theirs[order])).sum()
            assert aot < float(other)
        ascending = np.argsort(margins), np.argsort(theirs)
        least = jax.nn.softplus(-BETA * (margins[ascending[0]] - theirs[ascending[1]])).sum()
        assert aot == pytest.approx(float(least), rel=1e-6)

    def test_partners_do_not_matter(self):
        """Unpaired: the bad responses in any order give every good one the same loss."""
        order = np.random.default_rng(3).permutation(40)
        moved = (PairLogps(chosen=p.chosen, rejected=p.rejected[order]) for p in PAIRS)
        np.testing.assert_allclose(
            ja.aot_unpaired_loss(*moved, self.weights, beta=BETA),
            ja.aot_unpaired_loss(*PAIRS, self.weights, beta=BETA),
            rtol=1e-6,
        )

    @pytest.mark.parametrize("loss", [ja.aot_loss, ja.aot_unpaired_loss])
    @pytest.mark.parametrize("fill", [1e4, -1e4, np.nan])
    def test_padding_has_no_rank(self, loss, fill):
        where = np.array([3, 17])
        longer = (jax.tree.map(lambda x: np.insert(x, where, fill), p) for p in PAIRS)
        padded = loss(*longer, np.insert(self.weights, where, 0.0), beta=BETA)
        real = np.insert(np.ones(40, bool), where, False)
        np.testing.assert_array_equal(padded[real], loss(*PAIRS, self.weights, beta=BETA))

    def test_ties_keep_their_order(self):
        # margins 1 1 0 have ranks 1 2 0, theirs 5 7 9
        policy, reference = pair([1, 1, 0], [0, 0, 0]), pair([9, 5, 7], [0, 0, 0])
        found = ja.aot_loss(policy, reference, np.ones(3), beta=1.0)
        np.testing.assert_allclose(found, np.log1p(np.exp([6.0, 8.0, 5.0])), rtol=1e-6)
