"""Best-of-n sampling: KL to the policy and expected value."""

import math

import numpy as np

from jaxalign.errors import UserError


def best_of_n_kl(n: int | np.ndarray) -> np.ndarray:
    """KL(best-of-n policy, policy) in nats.

      KL = ln n - (n - 1) / n

    Exact where scores are continuous (no two samples tie, no sequence is drawn twice); in general
    an upper bound, since ties and repeated samples leave best-of-n closer to the policy.

    Args:
      n: number of candidates, at least 1; an int or an array.

    Returns:
      Same shape as `n`, nats.

    Source: Stiennon et al. 2020, appendix G.3, https://arxiv.org/abs/2009.01325; that it is a
    bound: Beirami et al. 2024, Theorem 1, https://arxiv.org/abs/2401.01879.

    >>> best_of_n_kl(np.array([1, 2, 16])).round(3)
    array([0.   , 0.193, 1.835])
    """
    n = np.asarray(n, np.float64)
    if (n < 1).any():
        raise UserError(f"best-of-n needs n of at least 1, got {n.min():g}")
    return np.log(n) - (n - 1) / n


def best_of_n_mean(scores: np.ndarray, *, n: int, values: np.ndarray | None = None) -> np.ndarray:
    """Unbiased estimate of E[value of the best of n] from m >= n samples of the same prompt.

      sum_i C(i - 1, n - 1) / C(m, n) v_(i)        v_(i): value of the i-th smallest score

    the average over all C(m, n) subsets of n samples, without enumerating them. Equal scores share
    their weights, as if the tie were broken at random.

    Args:
      scores: `[..., m]`, what the best is chosen by.
      n: size of the subsets, 1 to m.
      values: `[..., m]`, what is averaged (another judge's scores, say); None: the scores.

    Returns:
      `[...]`, the units of `values`. n = 1 is the mean, n = m the value of the best sample.

    Source: the pass@k argument of Chen et al. 2021, https://arxiv.org/abs/2107.03374, Eq. 1,
    for the maximum of any score.

    >>> round(float(best_of_n_mean(np.array([1.0, 2.0, 3.0]), n=2)), 3)  # pairs: 2, 3, 3
    2.667
    """
    scores = np.asarray(scores, np.float64)
    values = scores if values is None else np.asarray(values, np.float64)
    if values.shape != scores.shape:
        raise UserError(f"values have shape {values.shape}, scores {scores.shape}: must be equal")
    samples = scores.shape[-1]
    if not 1 <= n <= samples:
        raise UserError(f"best-of-{n} cannot be estimated from {samples} samples; take n <= m")
    subsets = math.comb(samples, n)
    below = [math.comb(rank, n - 1) / subsets for rank in range(samples)]
    cumulative = np.concatenate([[0.0], np.cumsum(below)])
    return (_tied_weights(scores, cumulative) * values).sum(axis=-1)


def _tied_weights(scores: np.ndarray, cumulative: np.ndarray) -> np.ndarray:
    """Weight of each sample: that of all samples tied with it, divided equally."""
    lower = (scores[..., None, :] < scores[..., :, None]).sum(axis=-1)
    tied = (scores[..., None, :] == scores[..., :, None]).sum(axis=-1)
    return (cumulative[lower + tied] - cumulative[lower]) / tied
