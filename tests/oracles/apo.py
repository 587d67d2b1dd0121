"""D'Oosterlinck et al. 2024, Eqs. 7 and 8, plus 1 so that no loss is negative."""

from tests.oracles.logistic import sigmoid
from tests.oracles.preferences import implicit_rewards


def apo_zero_loss(*logps, beta: float) -> float:
    chosen, rejected = implicit_rewards(*logps, beta=beta)
    return 1 - sigmoid(chosen) + sigmoid(rejected)


def apo_down_loss(*logps, beta: float) -> float:
    chosen, rejected = implicit_rewards(*logps, beta=beta)
    return sigmoid(chosen) + 1 - sigmoid(chosen - rejected)


def apo_zero_unpaired_loss(policy, reference, good: bool, *, beta: float) -> float:
    value = sigmoid(beta * (policy - reference))
    return 1 - value if good else value
