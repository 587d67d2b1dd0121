"""Cross-entropy, Bradley-Terry, DPO, cDPO, robust DPO: by hand, against papers, at extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxalign import (
    PairLogps,
    bradley_terry_loss,
    centering_penalty,
    cross_entropy_loss,
    dpo_loss,
    implicit_rewards,
    robust_dpo_loss,
)
from tests.oracles import preferences as oracle


def draw(seed, size=50, scale=30.0):
    """Four columns: policy chosen and rejected, reference chosen and rejected."""
    return -np.random.default_rng(seed).exponential(scale, (4, size))


def pairs(columns):
    chosen, rejected, reference_chosen, reference_rejected = columns
    reference = PairLogps(chosen=reference_chosen, rejected=reference_rejected)
    return PairLogps(chosen=chosen, rejected=rejected), reference


def oracle_rows(fn, columns, **settings):
    order = (columns[0], columns[1], columns[2], columns[3])
    return [fn(*map(float, row), **settings) for row in zip(*order, strict=True)]


def test_cross_entropy_by_hand():
    assert cross_entropy_loss(jnp.array([-1.5, 0.0])).tolist() == [1.5, 0.0]
    assert cross_entropy_loss(jnp.array([-1.5], jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_bradley_terry_against_the_formula(x64, margin):
    chosen, rejected = np.random.default_rng(0).normal(0, 5, (2, 50))
    ours = bradley_terry_loss(chosen - rejected, margins=margin)
    expected = [
        oracle.bradley_terry_loss(c, r, margin) for c, r in zip(chosen, rejected, strict=True)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)
    each = bradley_terry_loss(chosen - rejected, margins=np.full(50, margin))
    np.testing.assert_array_equal(ours, each)


def test_bradley_terry_by_hand():
    # sigmoid(log 3) = 3/4
    assert float(bradley_terry_loss(jnp.log(3.0))) == pytest.approx(-np.log(0.75))
    assert float(bradley_terry_loss(jnp.float32(2.0), margins=2.0)) == pytest.approx(np.log(2))


def test_centering_by_hand():
    penalty = centering_penalty(jnp.array([3.0, 1.0]), jnp.array([-2.0, -1.0]))
    assert penalty.tolist() == [1, 0]


def test_dpo_by_hand():
    # u = 0.5 ((-1 + 3) - (-2 + 1)) = 1.5
    policy, reference = pairs(jnp.array([[-1.0], [-2.0], [-3.0], [-1.0]]))
    assert implicit_rewards(policy, reference, beta=0.5).chosen.tolist() == [1]
    assert implicit_rewards(policy, reference, beta=0.5).rejected.tolist() == [-0.5]
    loss = float(dpo_loss(policy, reference, beta=0.5)[0])
    assert loss == pytest.approx(np.log1p(np.exp(-1.5)))
    smoothed = dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1)
    # moving a tenth of the label to the other side adds 0.1 * 1.5
    assert float(smoothed[0]) == pytest.approx(loss + 0.15)
    # (0.9 L(u) - 0.1 L(-u)) / 0.8 with L(-u) = L(u) + u
    robust = robust_dpo_loss(policy, reference, beta=0.5, label_smoothing=0.1)
    assert float(robust[0]) == pytest.approx(loss - 0.15 / 0.8)


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_dpo_against_the_papers(x64, beta, smoothing):
    columns = draw(1)
    policy, reference = pairs(columns)
    settings = {"beta": beta, "label_smoothing": smoothing}
    for ours, paper in ((dpo_loss, oracle.dpo_loss), (robust_dpo_loss, oracle.robust_dpo_loss)):
        np.testing.assert_allclose(
            ours(policy, reference, **settings),
            oracle_rows(paper, columns, **settings),
            rtol=1e-10,
            atol=1e-10,
        )


@pytest.mark.parametrize("dtype, unit", [(jnp.float32, 2**-24), (jnp.bfloat16, 2**-24)])
def test_dpo_in_low_precision(dtype, unit):
    """On the same (rounded) inputs as the oracle, computed in float32 whatever they are.

    Three subtractions round at |logp| each, beta scales, the loss has slope at most 1, rounds once.
    """
    columns = jnp.asarray(draw(2), dtype)
    ours = dpo_loss(*pairs(columns), beta=0.1)
    assert ours.dtype == jnp.float32
    exact = oracle_rows(oracle.dpo_loss, np.asarray(columns, np.float64), beta=0.1)
    bound = 0.1 * 3 * unit * 2 * float(jnp.abs(columns).max()) + 2 * unit * (1 + max(exact))
    np.testing.assert_allclose(ours, exact, rtol=0, atol=bound)


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_extremes_are_finite(gap):
    policy, reference = pairs(jnp.array([[gap], [0.0], [0.0], [0.0]]))

    def losses(policy):
        return jnp.stack(
            [
                dpo_loss(policy, reference, beta=1.0),
                dpo_loss(policy, reference, beta=1.0, label_smoothing=0.1),
                robust_dpo_loss(policy, reference, beta=1.0, label_smoothing=0.1),
                bradley_terry_loss(policy.chosen - policy.rejected),
            ]
        )

    grads = jax.jacobian(losses)(policy)
    assert jnp.isfinite(losses(policy)).all()
    # slope of the plain loss: 0 where right, -1 where wrong
    assert float(grads.chosen[0, 0, 0]) == (0 if gap > 0 else -1)
    assert jnp.isfinite(grads.chosen).all()


def test_reference_gets_no_gradient():
    columns = jnp.asarray(draw(3), jnp.float32)
    for fn in (dpo_loss, robust_dpo_loss):

        def total(columns, fn=fn):
            return fn(*pairs(columns), beta=0.1, label_smoothing=0.1).sum()

        grads = jax.grad(total)(columns)
        assert grads[:2].all()
        assert not grads[2:].any()


def test_gradients(x64):
    columns = draw(4, size=5, scale=3.0)

    def losses(policy_columns):
        policy, reference = pairs([*policy_columns, *columns[2:]])
        smoothed = {"beta": 0.3, "label_smoothing": 0.2}
        return (
            dpo_loss(policy, reference, beta=0.3),
            dpo_loss(policy, reference, **smoothed),
            robust_dpo_loss(policy, reference, **smoothed),
            bradley_terry_loss(policy.chosen - policy.rejected, margins=0.5),
            centering_penalty(policy.chosen, policy.rejected),
        )

    check_grads(jax.jit(losses), (columns[:2],), order=2, modes=["rev"])


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 0.7])
@pytest.mark.parametrize("fn", [dpo_loss, robust_dpo_loss])
def test_smoothing_must_leave_a_majority(fn, smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 0.5\)"):
        fn(*pairs(jnp.zeros((4, 1))), beta=0.1, label_smoothing=smoothing)


def test_shapes_must_agree():
    policy, _ = pairs(jnp.zeros((4, 2)))
    _, reference = pairs(jnp.zeros((4, 1)))
    with pytest.raises(AssertionError):
        dpo_loss(policy, reference, beta=0.1)
    with pytest.raises(AssertionError):
        bradley_terry_loss(jnp.zeros(3), margins=jnp.zeros((3, 1)))
    with pytest.raises(AssertionError):
        centering_penalty(jnp.zeros(3), jnp.zeros(2))
