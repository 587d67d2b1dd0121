"""Settings of every PPO update: of text, control and images."""

from jaxalign.config.checks import config
from jaxalign.config.ranges import Positive, Share, Size, Weight, WholePasses


@config
class PPOUpdateFields:
    """One PPO update: passes over the experience, advantages and the clipped objective."""

    update_epochs: WholePasses = 2
    """Passes over the responses of an iteration."""
    minibatches: Size = 4
    """Optimizer steps in a pass."""
    gamma: Share = 1.0
    """Discount of later rewards, in [0, 1]."""
    gae_lambda: Share = 0.95
    """Trace decay of the advantage estimate, in [0, 1]."""
    clip_range: Positive = 0.2
    """How far the probability ratio may leave 1 before it earns nothing more, > 0."""
    value_clip_range: Positive | None = 0.2
    """How far a value may move from its old prediction, > 0; None: anywhere."""
    value_coef: Weight = 0.1
    """Weight of the value loss, >= 0."""
    entropy_coef: Weight = 0.0
    """Weight of the entropy bonus, >= 0."""
