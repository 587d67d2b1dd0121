"""verl: its core algorithms, with the actor's default configuration."""

import numpy as np
import torch
from verl.trainer.ppo import core_algos
from verl.utils import torch_functional
from verl.workers.config import ActorConfig

from benchmarks.conformance.peers.adapter import Adapter, Capability, NotOffered, installed


def numbers(x, **more):
    return torch.tensor(np.asarray(x), dtype=torch.float32, **more)


def actor(**fields):
    return ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **fields)


def loss_of(policy_loss_fn, logps, behaviour, advantages, mask, config):
    leaf = numbers(logps, requires_grad=True)
    loss, metrics = policy_loss_fn(
        numbers(behaviour), leaf, numbers(advantages), numbers(mask), "token-mean", config
    )
    loss.backward()
    return loss.item(), leaf.grad.numpy(), metrics


def vanilla(log_ratios, advantages, mask, clip=0.2):
    config = actor(clip_ratio=clip, clip_ratio_low=clip, clip_ratio_high=clip)
    advantages = np.broadcast_to(advantages[:, None], mask.shape)
    function = core_algos.compute_policy_loss_vanilla
    return loss_of(function, log_ratios, 0 * log_ratios, advantages, mask, config)


def policy_loss(log_ratios, advantages, mask):
    return vanilla(log_ratios, advantages, mask)[:2]


def policy_metrics(log_ratios, advantages, mask):
    metrics = vanilla(log_ratios, advantages, mask, clip=0.05)[2]
    return {name: metrics[name] for name in ("actor/ppo_kl", "actor/pg_clipfrac")}


def column(x):
    return np.asarray(x)[:, None]


def surrogate_gradient(log_ratios, advantages, clip):
    mask = np.ones((len(advantages), 1))
    return vanilla(column(log_ratios), advantages, mask, clip)[1][:, 0] * len(advantages)


def cispo_gradient(logps, log_ratios, advantages, highest):
    config = actor(clip_ratio_low=1.0, clip_ratio_high=highest - 1)
    function = core_algos.compute_policy_loss_cispo
    arrays = (column(x) for x in (logps, logps - log_ratios, advantages, np.ones(len(logps))))
    return loss_of(function, *arrays, config)[1][:, 0] * len(logps)


def kl_term(logps, reference):
    leaf = numbers(logps, requires_grad=True)
    values = core_algos.kl_penalty(leaf, numbers(reference), actor().kl_loss_type)
    values.sum().backward()
    return values.detach().numpy(), leaf.grad.numpy()


def outcome_advantages(estimator, rewards):
    """One token a response."""
    index = np.repeat(np.arange(len(rewards)), rewards.shape[1])
    scores = numbers(rewards.ravel())[:, None]
    found, _ = estimator(scores, torch.ones_like(scores), index)
    return found[:, 0].numpy().reshape(rewards.shape)


def group_advantages(rewards):
    return outcome_advantages(core_algos.compute_grpo_outcome_advantage, rewards)


def leave_one_out(rewards):
    return outcome_advantages(core_algos.compute_rloo_outcome_advantage, rewards)


def returns(rewards, values, mask, *, gamma, gae_lambda):
    arrays = numbers(rewards), numbers(values), numbers(mask)
    return core_algos.compute_gae_advantage_return(*arrays, gamma, gae_lambda)[1].numpy()


def whiten(x, mask):
    return torch_functional.masked_whiten(numbers(x), torch.tensor(mask)).numpy()


def response_logps(logits, tokens, responses, temperature):
    if temperature != 1:
        raise NotOffered("the caller divides the logits by the temperature")
    arrays = torch.tensor(tokens), torch.tensor(logits)
    return torch_functional.log_probs_from_logits_response(*arrays, responses).numpy()


def bf16_logps(logits, tokens):
    logits = torch.tensor(logits, dtype=torch.bfloat16)[None]
    found = torch_functional.logprobs_from_logits(logits, torch.tensor(tokens)[None])
    return found[0].float().numpy()


CORE, FUNCTIONAL = "trainer.ppo.core_algos", "utils.torch_functional"
FUNCTIONS = {
    "policy_loss": (policy_loss, f"{CORE}.compute_policy_loss_vanilla, token-mean (default)"),
    "policy_metrics": (policy_metrics, f"{CORE}.compute_policy_loss_vanilla, its metrics"),
    "surrogate_gradient": (surrogate_gradient, f"{CORE}.compute_policy_loss_vanilla"),
    "cispo_gradient": (cispo_gradient, f"{CORE}.compute_policy_loss_cispo"),
    "kl_term": (kl_term, f"{CORE}.kl_penalty, ActorConfig's default kl_loss_type"),
    "group_advantages": (group_advantages, f"{CORE}.compute_grpo_outcome_advantage"),
    "leave_one_out": (leave_one_out, f"{CORE}.compute_rloo_outcome_advantage"),
    "returns": (returns, f"{CORE}.compute_gae_advantage_return"),
    "whiten": (whiten, f"{FUNCTIONAL}.masked_whiten"),
    "response_logps": (response_logps, f"{FUNCTIONAL}.log_probs_from_logits_response"),
    "bf16_logps": (bf16_logps, f"{FUNCTIONAL}.logprobs_from_logits (no flash-attn)"),
}
NOTES = {
    "bf16_logps": "With flash-attn installed, its cross-entropy kernel is used instead.",
    "loss_empty": "The trainer passes the token count of the global batch as the divisor; called "
    "alone, the function counts its own.",
    "kl_gradient": "The term is off by default (`use_kl_loss`), its default form is k3 "
    "(`low_var_kl`); forms with a `+` (`k3+`) have the gradient of k2.",
    "group_scale": "The advantage is divided by the standard deviation plus 1e-6.",
    "whiten_one": "Refused with a message.",
}


def adapter() -> Adapter:
    capabilities = {name: Capability(*entry) for name, entry in FUNCTIONS.items()}
    return Adapter("verl", installed("verl", "torch"), capabilities, NOTES)
