"""What must be true of policy gradients, whoever wrote the code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxalign
from jaxalign import (
    cispo_loss,
    gmpo_loss,
    grpo_loss,
    ppo_policy_loss,
    reinforce_loss,
    rloo_loss,
    sapo_loss,
    sequence_log_ratios,
    token_log_ratios,
    top_entropy_mask,
    vespo_weights,
)

B, T = 4, 5
ADVANTAGES = np.array([1.5, -0.5, 0.0, -2.0])
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def draw(seed, spread=0.5):
    """Log-probabilities under behaviour and policy, and a mask with an empty row."""
    rng = np.random.default_rng(seed)
    behaviour = -rng.exponential(size=(B, T))
    mask = rng.random((B, T)) < 0.7
    mask[2] = False
    return behaviour + spread * rng.normal(size=(B, T)), behaviour, mask


def spread(losses, mask):
    """Losses of tokens or of responses as one number, by the sum over what is real."""
    return jnp.sum(losses * mask) if losses.ndim == 2 else jnp.sum(losses * mask.any(axis=1))


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


def test_the_geometric_mean_has_the_gradient_of_the_mean(x64):
    """GMPO on policy: the advantage over the length at every token."""
    _, behaviour, mask = draw(1)

    def loss(x):
        return gmpo_loss(x, behaviour, mask, ADVANTAGES, clip_range=0.4).sum()

    lengths = np.maximum(mask.sum(axis=1, keepdims=True), 1)
    found = jax.grad(loss)(jnp.asarray(behaviour))
    np.testing.assert_allclose(found, -ADVANTAGES[:, None] * mask / lengths, **CLOSE)


def test_cispo_silences_no_token(x64):
    """Its gradient is the clipped ratio times the advantage, on both sides of both bounds."""
    logps, behaviour, _ = draw(2, spread=2.0)
    each = np.broadcast_to(ADVANTAGES[:, None], (B, T))

    def loss(x):
        return cispo_loss(x, behaviour, each, highest=1.5, lowest=0.7).sum()

    ratios = np.exp(logps - behaviour)
    assert (ratios > 1.5).any() and (ratios < 0.7).any()
    expected = -np.clip(ratios, 0.7, 1.5) * each
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(logps)), expected, **CLOSE)


def test_both_forms_of_gspo_agree(x64):
    """The token form has value and gradient of the sequence form if a response has one advantage
    and the mean over its tokens is taken (Zheng et al. 2025, Sec. 4.3).
    """
    logps, behaviour, mask = draw(3)
    each = np.broadcast_to(ADVANTAGES[:, None], (B, T))
    zero, lengths = np.zeros((B, T)), np.maximum(mask.sum(axis=1, keepdims=True), 1)

    def loss(form):
        def mean(x):
            losses = ppo_policy_loss(form(x, behaviour, mask), zero, each, clip_range=0.2)
            return jnp.sum(losses * mask / lengths)

        return jax.value_and_grad(mean)(jnp.asarray(logps))

    one, other = loss(sequence_log_ratios), loss(token_log_ratios)
    np.testing.assert_allclose(one[0], other[0], **CLOSE)
    np.testing.assert_allclose(one[1], other[1], **CLOSE)
    assert np.any(one[1])


def test_the_token_form_moves_each_token_by_itself(x64):
    """Its value is the mean log-ratio, its gradient that of the token alone."""
    logps, behaviour, mask = draw(4)
    found, back = jax.vjp(lambda x: token_log_ratios(x, behaviour, mask), jnp.asarray(logps))
    expected = [(logps - behaviour)[i][mask[i]].mean() if mask[i].any() else 0 for i in range(B)]
    np.testing.assert_allclose(found, np.broadcast_to(np.array(expected)[:, None], (B, T)), **CLOSE)
    cotangent = np.arange(B * T, dtype=float).reshape(B, T)
    np.testing.assert_allclose(back(jnp.asarray(cotangent))[0], cotangent, **CLOSE)


def test_length_changes_no_ratio_of_gspo():
    """A response said twice has the same mean log-ratio; RLOO's ratio is squared."""
    logps, behaviour, _ = draw(5)
    mask, twice = np.ones((B, T), bool), np.ones((B, 2 * T), bool)
    double = [np.tile(x, 2) for x in (logps, behaviour)]
    ones, clip = np.ones(B), {"clip_range": 1e6}
    np.testing.assert_allclose(
        sequence_log_ratios(*double, twice)[:, 0],
        sequence_log_ratios(logps, behaviour, mask)[:, 0],
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        -rloo_loss(*double, twice, ones, **clip),
        rloo_loss(logps, behaviour, mask, ones, **clip) ** 2,
        rtol=1e-5,
    )


def test_the_gate_is_bounded_and_closes(x64):
    """SAPO: a good token has a loss in [-4 A / tau, 0], and its gradient dies at both ends."""
    logps, zero, one = jnp.array([-50.0, 0.0, 5.0]), jnp.zeros(3), jnp.ones(3)

    def loss(x):
        return sapo_loss(x, zero, one, positive_temperature=2.0)

    values, slopes = loss(logps), jax.grad(lambda x: loss(x).sum())(logps)
    # sigmoid(-2) 4 / 2 where the token is never said
    np.testing.assert_allclose(values, [-2 / (1 + np.exp(2)), -1, -2], atol=1e-12)
    assert float(slopes[1]) == -1 and abs(slopes[0]) < 1e-12 and abs(slopes[2]) < 1e-12


def test_negative_tokens_have_a_gate_of_their_own():
    """Of two tokens at ratio 2, the bad one follows `negative_temperature`, and so does A = 0."""
    logps, zero = jnp.full(3, np.log(2.0)), jnp.zeros(3)
    losses = sapo_loss(logps, zero, jnp.array([1.0, -1.0, 0.0]), negative_temperature=8.0)
    np.testing.assert_allclose(
        losses, [-4 / (1 + np.exp(-1)), 0.5 / (1 + np.exp(-8)), 0], rtol=1e-6
    )


def test_all_tokens_are_among_the_most_uncertain():
    _, behaviour, mask = draw(6)
    np.testing.assert_array_equal(top_entropy_mask(-behaviour, mask, share=1.0), mask)


def test_share_of_the_most_uncertain(x64):
    """A third of nine distinct numbers is the three largest."""
    entropies = np.random.default_rng(7).permutation(9.0 + np.arange(9)).reshape(3, 3)
    kept = top_entropy_mask(entropies, np.ones((3, 3), bool), share=3 / 9)
    assert sorted(entropies[np.asarray(kept)]) == [15, 16, 17]


@pytest.mark.parametrize("cap", [0.5, 2.0])
def test_capped_weights_are_biased_by_what_was_cut(x64, cap):
    """E_sampler[min(r, cap)] = sum of min(p, cap q), exactly; the masked form drops those above."""
    rng = np.random.default_rng(8)
    p, q = (np.asarray(jax.nn.softmax(rng.normal(size=6))) for _ in range(2))
    truncated = jaxalign.truncated_importance_weights(np.log(p), np.log(q), cap=cap)
    masked = jaxalign.masked_importance_weights(np.log(p), np.log(q), cap=cap)
    np.testing.assert_allclose(q @ truncated, np.minimum(p, cap * q).sum(), **CLOSE)
    np.testing.assert_allclose(q @ masked, p[p <= cap * q].sum(), **CLOSE)
    assert 0 < (p <= cap * q).sum() < 6
