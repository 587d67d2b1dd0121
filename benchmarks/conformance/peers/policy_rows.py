"""Rows on log-probabilities, surrogate losses, KL terms and their reduction."""

import numpy as np

from benchmarks.conformance.peers.adapter import Measured, Row
from benchmarks.conformance.peers.data import ADVANTAGES, LOG_RATIOS, MASK
from benchmarks.conformance.peers.measuring import TOLERANCE, close, error, short


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logits_and_tokens():
    rng = np.random.default_rng(0)
    return rng.normal(0, 2, (2, 6, 8)).astype(np.float32), rng.integers(3, 8, (2, 6))


def wanted_logps(logits, tokens, responses, temperature):
    """Token t is predicted by logits t - 1."""
    logps = log_softmax(logits / temperature)[:, :-1]
    logps = np.take_along_axis(logps, tokens[:, 1:, None], -1)[..., 0]
    return logps[:, -responses:]


def next_token(logps):
    logits, tokens = logits_and_tokens()
    return close(logps(logits, tokens, 3, 1.0), wanted_logps(logits, tokens, 3, 1.0))


def temperature(logps):
    logits, tokens = logits_and_tokens()
    offs = [
        error(logps(logits, tokens, 3, t), wanted_logps(logits, tokens, 3, t)) for t in (0.3, 1.5)
    ]
    return Measured(max(offs) <= TOLERANCE, f"error {short(max(offs))} nats")


def bf16(logps):
    """Logits that bfloat16 holds exactly, so the answer is exact too."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 4, (64, 32)).astype(np.float32)
    logits = (logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    tokens = rng.integers(0, 32, 64)
    wanted = np.take_along_axis(log_softmax(logits), tokens[:, None], -1)[:, 0]
    return close(logps(logits, tokens), wanted, "relative error")


def ratio_at_start(start):
    policy, behaviour, _ = start(0.7)
    off = float(np.abs(np.subtract(policy, behaviour)).max())
    return Measured(off <= TOLERANCE, f"log-ratio {short(off)}")


def kl_at_start(start):
    _, behaviour, reference = start(0.7)
    off = float(np.abs(np.subtract(behaviour, reference)).max())
    return Measured(off <= TOLERANCE, f"log-ratio {short(off)}")


def clip_sides(gradient):
    ratios = np.array([0.5, 0.5, 1.5, 1.5, 1.1, 0.9])
    advantages = np.array([2.0, -2.0, 2.0, -2.0, -1.0, 1.0])
    free = np.array([True, False, False, True, True, True])
    wanted = np.where(free, -ratios * advantages, 0)
    return close(gradient(np.log(ratios), advantages, 0.2), wanted)


def cispo_stopped(gradient):
    logps = np.array([-0.5, -3.0, -6.0, -2.0])
    ratios = np.array([1.0, 1.2, 9.0, 0.5])
    advantages = np.array([1.0, -2.0, 1.0, 1.5])
    wanted = -np.minimum(ratios, 5) * advantages
    return close(gradient(logps, np.log(ratios), advantages, 5.0), wanted)


def two_policies():
    rng = np.random.default_rng(2)
    return log_softmax(rng.normal(size=6)), log_softmax(rng.normal(size=6))


def kl_value(term):
    """Its mean over all actions, weighted by the policy."""
    policy, reference = two_policies()
    values, _ = term(policy, reference)
    found = float((np.exp(policy) * np.asarray(values, np.float64)).sum())
    return close(found, (np.exp(policy) * (policy - reference)).sum())


def kl_gradient(term):
    """Sum over actions of pi(a) dterm(a)/dlogits against the gradient of KL(pi, reference)."""
    policy, reference = two_policies()
    p = np.exp(policy)
    _, slopes = term(policy, reference)
    slopes = np.asarray(slopes, np.float64)
    found = p * slopes - p * (p * slopes).sum()
    kl = (p * (policy - reference)).sum()
    wanted = p * (policy - reference - kl)
    off = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    size = np.linalg.norm(found) / np.linalg.norm(wanted)
    phrase = f"off by {short(off)} of the gradient's norm; its own norm is {short(size)} of it"
    return Measured(off <= TOLERANCE, phrase)


def more_padding(x, value):
    return np.concatenate([x, np.full((len(x), 4), value, x.dtype)], axis=1)


def loss_padding(loss):
    found, _ = loss(LOG_RATIOS, ADVANTAGES, MASK)
    ratios, mask = more_padding(LOG_RATIOS, 0.15), more_padding(MASK, False)
    return _moves(found, loss(ratios, ADVANTAGES, mask)[0])


def loss_doubled(loss):
    found, _ = loss(LOG_RATIOS, ADVANTAGES, MASK)
    twice = [np.concatenate([x, x]) for x in (LOG_RATIOS, ADVANTAGES, MASK)]
    return _moves(found, loss(*twice)[0])


def _moves(before, after):
    off = abs(float(after) - float(before)) / max(abs(float(before)), 1e-12)
    return Measured(off <= TOLERANCE, f"the loss moves by {short(off)} of itself")


def loss_empty(loss):
    """No token at all to train on."""
    found, gradient = loss(LOG_RATIOS, ADVANTAGES, np.zeros_like(MASK))
    gradient = np.asarray(gradient)
    passed = bool(np.isfinite(found) and (gradient == 0).all())
    return Measured(passed, f"loss {short(float(found))}, gradient {short(np.abs(gradient).max())}")


def masked_gradient(loss):
    """Padding has log-ratios of 50 nats."""
    ratios = np.where(MASK, LOG_RATIOS, 50.0)
    _, gradient = loss(ratios, ADVANTAGES, MASK)
    gradient = np.asarray(gradient, np.float64)
    real, padded = gradient[MASK], gradient[~MASK]
    passed = bool(np.isfinite(real).all() and (real != 0).all() and (padded == 0).all())
    return Measured(passed, f"largest gradient on padding {short(np.abs(padded).max())}")


def metrics_padding(metrics):
    before = metrics(LOG_RATIOS, ADVANTAGES, MASK)
    ratios, mask = more_padding(LOG_RATIOS, 0.4), more_padding(MASK, False)
    after = metrics(ratios, ADVANTAGES, mask)
    offs = {name: error(after[name], before[name]) for name in before}
    worst = max(offs, key=offs.__getitem__)
    return Measured(offs[worst] <= TOLERANCE, f"{worst} moves by {short(offs[worst])}")


def truncated_denominator(loss):
    """At ratio 1 the loss is minus the mean advantage over the tokens of ended responses."""
    advantages, lengths = np.array([1.0, -1.0, 2.0, -2.0]), np.array([2, 5, 4, 3])
    ended = np.array([True, False, True, True])
    wanted = -(advantages * lengths * ended).sum() / (lengths * ended).sum()
    return close(loss(advantages, lengths, ended), wanted)


PPO = "Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 7"

ROWS = (
    Row(
        "next_token",
        "The log-probability of token t comes from the logits at t - 1.",
        ("https://github.com/huggingface/trl/issues/3681",),
        "response_logps",
        next_token,
    ),
    Row(
        "temperature",
        "Log-probabilities in training are those of softmax(logits / T), which sampled.",
        ("https://github.com/huggingface/trl/issues/4159",),
        "response_logps",
        temperature,
    ),
    Row(
        "bf16_logps",
        "Log-probabilities of bfloat16 logits are computed in float32.",
        ("https://github.com/huggingface/transformers/issues/31267",),
        "bf16_logps",
        bf16,
    ),
    Row(
        "ratio_at_start",
        "In PPO the ratio of policy to behaviour policy is 1 before the first update, at T = 0.7.",
        ("https://github.com/verl-project/verl/issues/2996",),
        "ppo_start",
        ratio_at_start,
    ),
    Row(
        "kl_at_start",
        "In PPO the KL to a reference that is the same model is 0 before the first update, at "
        "T = 0.7.",
        ("https://github.com/huggingface/trl/issues/4159",),
        "ppo_start",
        kl_at_start,
    ),
    Row(
        "clip_sides",
        "The clipped surrogate has no gradient above 1 + e for A > 0 and below 1 - e for A < 0, "
        "and -r A elsewhere.",
        (PPO,),
        "surrogate_gradient",
        clip_sides,
    ),
    Row(
        "cispo_stopped",
        "CISPO's clipped weight gets no gradient: d loss / d logp = -min(r, cap) A.",
        ("MiniMax 2025, https://arxiv.org/abs/2506.13585, Eq. 4",),
        "cispo_gradient",
        cispo_stopped,
    ),
    Row(
        "kl_value",
        "The default KL term of the loss has the KL to the reference as its mean over the policy's "
        "samples.",
        ("Schulman 2020, http://joschu.net/blog/kl-approx.html",),
        "kl_term",
        kl_value,
    ),
    Row(
        "kl_gradient",
        "The default KL term of the loss has the gradient of the KL to the reference as its mean "
        "over the policy's samples.",
        (
            "https://github.com/huggingface/trl/issues/4967",
            "Tang and Munos 2025, https://arxiv.org/abs/2506.09477",
        ),
        "kl_term",
        kl_gradient,
    ),
    Row(
        "loss_padding",
        "The policy loss does not depend on how far the rows are padded.",
        ("https://github.com/huggingface/trl/issues/469",),
        "policy_loss",
        loss_padding,
    ),
    Row(
        "loss_doubled",
        "The policy loss of a batch that holds every row twice is that of the batch.",
        ("https://github.com/verl-project/verl/issues/3741",),
        "policy_loss",
        loss_doubled,
    ),
    Row(
        "loss_empty",
        "With no token to train on, the policy loss is finite and its gradient 0.",
        ("https://github.com/huggingface/trl/issues/5662",),
        "policy_loss",
        loss_empty,
    ),
    Row(
        "masked_gradient",
        "Masked tokens get no gradient and do not disturb the others, at log-ratios of 50 nats.",
        ("https://github.com/huggingface/trl/issues/5662",),
        "policy_loss",
        masked_gradient,
    ),
    Row(
        "metrics_padding",
        "Reported KL and clip fraction do not depend on how far the rows are padded.",
        ("https://github.com/huggingface/trl/issues/6809",),
        "policy_metrics",
        metrics_padding,
    ),
    Row(
        "truncated_denominator",
        "Responses that are cut off and masked leave the loss's numerator and denominator alike.",
        ("https://github.com/huggingface/trl/issues/6369",),
        "truncated_loss",
        truncated_denominator,
    ),
)
