"""Reward against distance from the reference: who dominates, and Gao's two curves."""

import dataclasses

import numpy as np

from jaxalign.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaoFit:
    """Coefficients of R(d) = d (alpha - beta g(d)), with g(d) = d or log d and d = sqrt(KL)."""

    alpha: float
    beta: float
    residual: float  # root mean square of R - fit, the units of R

    def best_of_n(self, d: np.ndarray) -> np.ndarray:
        """d (alpha - beta d)."""
        return self.alpha * d - self.beta * d**2

    def reinforced(self, d: np.ndarray) -> np.ndarray:
        """d (alpha - beta log d), 0 at d = 0."""
        return self.alpha * d - self.beta * _d_log_d(d)


def fit_best_of_n(kl: np.ndarray, gains: np.ndarray) -> GaoFit:
    """Least-squares fit of R(d) = d (alpha - beta d), the shape for best-of-n.

    Args:
      kl: `[N]` nats, at least 0.
      gains: `[N]` score minus the reference's score, so that R(0) = 0.

    Raises:
      UserError: fewer than two different distances above 0.

    Source: Gao et al. 2022, section 3.1, https://arxiv.org/abs/2210.10760; the peak of the curve is
    at d = alpha / (2 beta) where beta > 0.

    >>> fit = fit_best_of_n(np.array([1.0, 4.0]), np.array([2.0, 2.0]))  # 3 d - d^2 at d = 1, 2
    >>> round(fit.alpha, 6), round(fit.beta, 6)
    (3.0, 1.0)
    """
    return _fit(kl, gains, np.square)


def fit_reinforced(kl: np.ndarray, gains: np.ndarray) -> GaoFit:
    """Least-squares fit of R(d) = d (alpha - beta log d), the shape for reinforcement learning.

    Args, Raises, Source: as `fit_best_of_n`. The peak is at d = exp(alpha / beta - 1).
    """
    return _fit(kl, gains, _d_log_d)


def _fit(kl: np.ndarray, gains: np.ndarray, curve) -> GaoFit:
    """Solves the two-coefficient linear least-squares problem on the finite points."""
    kl, gains = np.asarray(kl, np.float64), np.asarray(gains, np.float64)
    usable = np.isfinite(kl) & np.isfinite(gains) & (kl >= 0)
    distance, gains = np.sqrt(kl[usable]), gains[usable]
    if len(np.unique(distance[distance > 0])) < 2:
        raise UserError("a reward-KL fit has two coefficients: give two distances above 0 or more")
    features = np.stack([distance, -curve(distance)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(features, gains, rcond=None)
    residual = np.sqrt(np.mean((features @ np.array([alpha, beta]) - gains) ** 2))
    return GaoFit(alpha=float(alpha), beta=float(beta), residual=float(residual))


def _d_log_d(d: np.ndarray) -> np.ndarray:
    """d log d with its limit 0 at d = 0."""
    d = np.asarray(d, np.float64)
    return d * np.log(np.where(d > 0, d, 1.0))
