"""Melnyk et al. 2024: two samples sorted, ranks of the one against the same ranks of the other."""

from tests.oracles.preferences import logistic_loss


def sorted_losses(values, others, weights, *, beta, label_smoothing=0.0) -> list[float]:
    """The loss of each entry of `values`; rows of weight 0 are outside the sample and keep their
    partner.
    """
    sample = [i for i in range(len(values)) if weights[i] > 0]
    partner = dict(enumerate(others))
    ordered = sorted(others[i] for i in sample)
    for rank, i in enumerate(sorted(sample, key=lambda i: (values[i], i))):
        partner[i] = ordered[rank]
    return [logistic_loss(beta * (v - partner[i]), label_smoothing) for i, v in enumerate(values)]


def aot_loss(policy, reference, weights, **settings) -> list[float]:
    margins, base = ([c - r for c, r in zip(*pair, strict=True)] for pair in (policy, reference))
    return sorted_losses(margins, base, weights, **settings)


def aot_unpaired_loss(policy, reference, weights, **settings) -> list[float]:
    chosen, rejected = (
        [p - q for p, q in zip(*side, strict=True)] for side in zip(policy, reference, strict=True)
    )
    return sorted_losses(chosen, rejected, weights, **settings)
