"""torchtune: its DPO and PPO losses and the helpers of its PPO recipe."""

import numpy as np
import torch
from torchtune import rlhf
from torchtune.rlhf.loss import DPOLoss, PPOLoss

from benchmarks.conformance.peers.adapter import Adapter, Capability, NotOffered, installed


def numbers(x, **more):
    return torch.tensor(np.asarray(x), dtype=torch.float32, **more)


def dpo_loss(policy, reference, *, beta, label_smoothing):
    loss = DPOLoss(beta=beta, label_smoothing=label_smoothing)
    sides = [numbers(side) for pair in (policy, reference) for side in pair]
    return float(loss(*sides)[0].mean())


def ppo(log_ratios, advantages, mask, clip):
    """Loss, gradient by log-probabilities, clip fraction."""
    leaf, zero = numbers(log_ratios, requires_grad=True), torch.zeros(log_ratios.shape)
    found = PPOLoss(epsilon=clip)(
        zero,
        leaf,
        numbers(advantages),
        zero,
        zero,
        zero,
        padding_masks=torch.tensor(mask),
        value_padding_masks=torch.tensor(mask),
    )
    found[0].backward()  # values of 0: the policy's loss alone
    return float(found[1]), leaf.grad.numpy(), float(found[4])


def each_token(advantages, mask):
    return np.broadcast_to(advantages[:, None], mask.shape)


def policy_loss(log_ratios, advantages, mask):
    return ppo(log_ratios, each_token(advantages, mask), mask, 0.2)[:2]


def policy_metrics(log_ratios, advantages, mask):
    return {"clipfrac": ppo(log_ratios, each_token(advantages, mask), mask, 0.05)[2]}


def surrogate_gradient(log_ratios, advantages, clip):
    mask = np.ones((1, len(advantages)), bool)
    return ppo(log_ratios[None], advantages[None], mask, clip)[1][0] * len(advantages)


def token_rewards(scores, lengths, ended, width):
    zero = torch.zeros(len(scores), width)
    last = torch.tensor(lengths) - 1
    return rlhf.get_rewards_ppo(numbers(scores), zero, zero, 0.0, last)[0].numpy()


def returns(rewards, values, mask, *, gamma, gae_lambda):
    if not np.all(mask):
        raise NotOffered("its mask is for whitening alone")
    arrays = numbers(values), numbers(rewards)
    return rlhf.estimate_advantages(*arrays, gamma, gae_lambda)[1].numpy()


def whiten(x, mask):
    return rlhf.whiten(numbers(x), torch.tensor(mask)).numpy()


def response_logps(logits, tokens, responses, temperature):
    """The recipe's slice: logits from the one before the first response token."""
    logits = rlhf.truncate_sequence_for_logprobs(torch.tensor(logits), tokens.shape[1] - responses)
    labels = torch.tensor(tokens[:, -responses:])
    return rlhf.logits_to_logprobs(logits, labels, temperature).numpy()


FUNCTIONS = {
    "dpo_loss": (dpo_loss, "rlhf.loss.DPOLoss"),
    "policy_loss": (policy_loss, "rlhf.loss.PPOLoss"),
    "policy_metrics": (policy_metrics, "rlhf.loss.PPOLoss, clipfrac"),
    "surrogate_gradient": (surrogate_gradient, "rlhf.loss.PPOLoss"),
    "token_rewards": (token_rewards, "rlhf.get_rewards_ppo"),
    "returns": (returns, "rlhf.estimate_advantages"),
    "whiten": (whiten, "rlhf.whiten, as estimate_advantages calls it"),
    "response_logps": (
        response_logps,
        "rlhf.truncate_sequence_for_logprobs, rlhf.logits_to_logprobs",
    ),
}
NOTES = {
    "whiten_padding": "The default `shift_mean=True` adds the mean back; `shift_mean=False` "
    "leaves mean 0.",
}


def adapter() -> Adapter:
    capabilities = {name: Capability(*entry) for name, entry in FUNCTIONS.items()}
    return Adapter("torchtune", installed("torchtune", "torch"), capabilities, NOTES)
