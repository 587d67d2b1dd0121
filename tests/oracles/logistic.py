"""The logistic function and its logarithm over the whole range of float64."""

import math


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x))"""
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    """log(1 / (1 + exp(-x)))"""
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))
