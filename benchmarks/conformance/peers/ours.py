"""This library's column."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxalign
from benchmarks.conformance.peers.adapter import Adapter, Capability, installed
from benchmarks.conformance.peers.ours_training import TRAINING
from jaxalign import PairLengths, PairLogps
from jaxalign.data import chat
from jaxalign.data.chat import token_row
from jaxalign.data.preference_batches import mismatched_rows
from jaxalign.data.tokenizer_training import train_tokenizer

CLIP = 0.2


def pair(x) -> PairLogps:
    return PairLogps(chosen=jnp.float32(x[0]), rejected=jnp.float32(x[1]))


def zeros(x) -> PairLogps:
    return pair(np.zeros_like(x))


def dpo_loss(policy, reference, *, beta, label_smoothing):
    losses = jaxalign.dpo_loss(
        pair(policy), pair(reference), beta=beta, label_smoothing=label_smoothing
    )
    return float(losses.mean())


def ipo_loss(log_ratios, lengths, *, beta):
    sides = PairLengths(chosen=jnp.array(lengths[0]), rejected=jnp.array(lengths[1]))
    losses = jaxalign.averaged_ipo_loss(pair(log_ratios), zeros(log_ratios), sides, beta=beta)
    return float(losses.mean())


def kto_loss(log_ratios, labels, *, kl, beta):
    ratios = jnp.float32(log_ratios)
    losses = jaxalign.kto_loss(ratios, 0 * ratios, jnp.array(labels), beta=beta, kl=kl)
    return float(losses.mean())


def kto_pairing(rows, batch_size):
    """The pairing is the data set's, so it has no batches; prompts and responses carry numbers."""
    texts = [token_row(([10 + i], False), ([100 + i], True)) for i in range(rows)]
    return [int(row.tokens[-1]) - 100 for row in mismatched_rows(texts, max_length=2)]


def reward_loss(chosen, rejected, margins):
    margins = 0.0 if margins is None else jnp.float32(margins)
    losses = jaxalign.bradley_terry_loss(jnp.float32(chosen - rejected), margins=margins)
    return float(losses.mean())


def special_tokens(written):
    tokenizer = train_tokenizer(["a good film"], vocab_size=300)
    text = "a good film" + (tokenizer.token(tokenizer.eos_id) if written else "")
    row = chat.response_row("a", text, tokenizer)
    return [int((row.tokens == i).sum()) for i in (tokenizer.bos_id, tokenizer.eos_id)]


def response_logps(logits, tokens, responses, temperature):
    logps = jaxalign.token_logps(jnp.array(logits), jnp.array(tokens), temperature=temperature)
    return np.asarray(logps)[:, -responses:]


def bf16_logps(logits, tokens):
    return np.asarray(jaxalign.action_logps(jnp.bfloat16(logits), jnp.array(tokens)))


def slopes(losses: Callable, at):
    """Derivatives of the sum of losses."""
    return np.asarray(jax.grad(lambda x: losses(x).sum())(jnp.float32(at)))


def surrogate_gradient(log_ratios, advantages, clip):
    behaviour = jnp.zeros(len(advantages))
    fixed = jnp.float32(advantages)
    return slopes(
        lambda logps: jaxalign.ppo_policy_loss(logps, behaviour, fixed, clip_range=clip), log_ratios
    )


def cispo_gradient(logps, log_ratios, advantages, highest):
    behaviour, fixed = jnp.float32(logps - log_ratios), jnp.float32(advantages)
    return slopes(lambda x: jaxalign.cispo_loss(x, behaviour, fixed, highest=highest), logps)


def kl_term(logps, reference):
    behaviour, reference = jnp.float32(logps), jnp.float32(reference)

    def term(x):
        return jaxalign.importance_corrected_k3(x, behaviour, reference)

    return np.asarray(term(behaviour)), slopes(term, logps)


@jax.jit
def loss_and_gradient(logps, advantages, mask):
    weights, divisor = jaxalign.token_mean(mask)

    def total(logps):
        behaviour = jnp.zeros_like(logps)
        losses = jaxalign.grpo_loss(
            logps, behaviour, advantages, behaviour, clip_range=CLIP, kl_coef=0.0
        )
        return jaxalign.masked_sum(losses, weights) / jnp.maximum(divisor, 1)

    return jax.value_and_grad(total)(logps)


def policy_loss(log_ratios, advantages, mask):
    arrays = jnp.float32(log_ratios), jnp.float32(advantages), jnp.array(mask)
    loss, gradient = loss_and_gradient(*arrays)
    return float(loss), np.asarray(gradient)


@jax.jit
def kl_and_clip_fraction(logps, advantages, mask):
    repeated = jaxalign.each_token(advantages, logps)
    clipped = jaxalign.ppo_policy_clipped(logps, 0 * logps, repeated, clip_range=0.05)
    kl = jaxalign.k3(0 * logps, logps)
    return [jaxalign.masked_mean(x, mask) for x in (kl, clipped)]


def policy_metrics(log_ratios, advantages, mask):
    arrays = jnp.float32(log_ratios), jnp.float32(advantages), jnp.array(mask)
    kl, clipped = kl_and_clip_fraction(*arrays)
    return {"approx_kl": float(kl), "clip_fraction": float(clipped)}


def truncated_loss(advantages, lengths, ended):
    mask = jnp.array(np.arange(max(lengths)) < lengths[:, None])
    mask = jaxalign.without_truncated(mask, jnp.array(ended))
    return policy_loss(np.zeros(mask.shape), advantages, mask)[0]


def group_advantages(rewards):
    return np.asarray(jaxalign.grpo_advantages(jnp.array(rewards), jnp.ones(rewards.shape, bool)))


def leave_one_out(rewards):
    mask = jnp.ones(rewards.shape, bool)
    return np.asarray(jaxalign.leave_one_out_advantages(jnp.array(rewards), mask))


def token_rewards(scores, lengths, ended, width):
    mask = jnp.array(np.arange(width) < lengths[:, None])
    kl = jnp.zeros(mask.shape)
    return np.asarray(jaxalign.shaped_rewards(jnp.float32(scores), kl, mask, kl_coef=0.0))


def returns(rewards, values, mask, *, gamma, gae_lambda):
    arrays = jnp.float32(rewards), jnp.float32(values), jnp.array(mask)
    return np.asarray(jaxalign.gae(*arrays, gamma=gamma, gae_lambda=gae_lambda)[1])


def whiten(x, mask):
    return np.asarray(jaxalign.whiten(jnp.float32(x), jnp.array(mask)))


def time_limit(rewards, values, final_value, gamma, truncated):
    last = jnp.arange(len(rewards))[None] == len(rewards) - 1
    _, targets = jaxalign.gae(
        jnp.float32(rewards)[None],
        jnp.float32(values)[None],
        jnp.ones_like(last),
        gamma=gamma,
        gae_lambda=1.0,
        terminations=last & (not truncated),
        truncations=last & truncated,
        final_values=jnp.full(last.shape, final_value),
    )
    return targets[0, 0]


def vtrace(rewards, values, gamma):
    rewards, values = jnp.float32(rewards)[None], jnp.float32(values)
    _, targets = jaxalign.vtrace(
        0 * rewards,
        rewards,
        values[None, :-1],
        jnp.ones_like(rewards, bool),
        gamma=gamma,
        bootstrap_values=values[-1:],
    )
    return np.asarray(targets)[0]


FUNCTIONS = {
    "dpo_loss": (dpo_loss, "dpo_loss"),
    "ipo_loss": (ipo_loss, "averaged_ipo_loss; ipo_loss is of sums"),
    "kto_loss": (kto_loss, "kto_loss"),
    "kto_pairing": (kto_pairing, "data.preference_batches.mismatched_rows"),
    "reward_loss": (reward_loss, "bradley_terry_loss"),
    "special_tokens": (special_tokens, "data.chat.response_row"),
    "response_logps": (response_logps, "token_logps"),
    "bf16_logps": (bf16_logps, "action_logps"),
    "surrogate_gradient": (surrogate_gradient, "ppo_policy_loss"),
    "cispo_gradient": (cispo_gradient, "cispo_loss"),
    "kl_term": (kl_term, "importance_corrected_k3"),
    "policy_loss": (policy_loss, "grpo_loss, token_mean"),
    "policy_metrics": (policy_metrics, "k3, ppo_policy_clipped, masked_mean"),
    "truncated_loss": (truncated_loss, "without_truncated, token_mean"),
    "group_advantages": (group_advantages, "grpo_advantages"),
    "leave_one_out": (leave_one_out, "leave_one_out_advantages"),
    "token_rewards": (token_rewards, "shaped_rewards"),
    "returns": (returns, "gae"),
    "whiten": (whiten, "whiten"),
    "time_limit": (time_limit, "gae"),
    "vtrace": (vtrace, "vtrace"),
}


def adapter() -> Adapter:
    capabilities = {name: Capability(*entry) for name, entry in (FUNCTIONS | TRAINING).items()}
    return Adapter("jaxalign", installed("jaxalign", "jax"), capabilities)
