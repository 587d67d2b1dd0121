"""Chen et al. 2024, the NCA loss of K responses, for K = 2 and a chosen one of weight 1."""

from tests.oracles.logistic import log_sigmoid
from tests.oracles.preferences import implicit_rewards


def nca_pair_loss(*logps, beta: float) -> float:
    rewards = implicit_rewards(*logps, beta=beta)
    data = (1.0, 0.0)  # the softmax of the true rewards
    return -sum(
        share * log_sigmoid(r) + log_sigmoid(-r) / len(rewards)
        for share, r in zip(data, rewards, strict=True)
    )
