"""BCO's reward shift: the mean implicit reward of this batch and of all before."""

import jax

from jaxalign.batches.functions import Metrics
from jaxalign.losses.bco import RunningMean, no_shift, shift_after
from jaxalign.numerics.collectives import psum

Sums = tuple[jax.Array, jax.Array]  # of implicit rewards, and their number


def batch_shift(
    own: Sums, *, before: RunningMean | None, measured: Sums | None, axis_name: str | None
) -> jax.Array:
    """The shift that the losses of a batch read: `[]`, reward units.

    Args:
      own: sums over the rows that the objective was given.
      before: mean of all earlier batches; None: there were none.
      measured: sums over the whole batch, where these rows are a part of it; None: they are all
        that there are on this device.
      axis_name: mapped axis that the other devices' rows are on, or None.
    """
    sums = psum(own, axis_name) if measured is None else measured
    return shift_after(before or no_shift(), sums).mean


def shift_after_batch(shift: RunningMean, metrics: Metrics) -> RunningMean:
    """The running mean of implicit rewards after a batch, for `train_step(track=...)`.

    Args:
      shift: before the batch.
      metrics: metric sums of the objective over the whole batch, with `bco/reward`.
    """
    return shift_after(shift, metrics["bco/reward"])
