"""exp, sigmoid and their logarithms over the whole range of float64."""

import math
import sys

KNEE = math.log(sys.float_info.max) / 2  # from here the exponential is continued by its tangent


def saturating_exp(x: float) -> float:
    return math.exp(x) if x <= KNEE else math.exp(KNEE) * (1 + x - KNEE)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x))"""
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x)))"""
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))
