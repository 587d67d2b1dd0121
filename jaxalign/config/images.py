"""The configuration of `jaxalign ppo` on images."""

from jaxalign.config.checks import config
from jaxalign.config.ranges import (
    DigitClass,
    InnerShare,
    Period,
    Rate,
    Seed,
    Size,
    SizeOrZero,
    Steps,
    Weight,
)
from jaxalign.config.seeds import (
    Cadence,
    NetworkConfig,
    SeedsFields,
    UpdateSettings,
)


@config
class ImagesConfig(SeedsFields):
    """PPO of a digit classifier that hardly saw two of the classes, on right/wrong feedback.

    Example: jaxalign ppo --config ppo_digits --seed 0 1
    """

    seeds: tuple[Seed, ...] = (0, 1, 2, 3, 4)
    """One split, pretraining and fine-tuning each; they run side by side."""
    test_share: InnerShare = 0.3
    """Share of the images kept for evaluation, in (0, 1); the rest is half pretraining,
    half feedback."""
    rare_classes: tuple[DigitClass, ...] = (8, 9)
    """Classes (digits, 0 to 9) of which pretraining sees few examples."""
    rare_examples: SizeOrZero = 4
    """How many of each."""
    pretraining_steps: Steps = 300
    """Full-batch gradient steps on the pretraining labels; as many for the supervised row."""
    pretraining_learning_rate: Rate = 1e-2
    """At the start of those steps; it falls linearly to 0; >= 0."""
    updates: Steps = 150
    """PPO updates."""
    batch_size: Size = 256
    """Images named, and so bits of feedback heard, in each update."""
    kl_coef: Weight = 0.02
    """KL coefficient: reward lost per nat of log-ratio to the pretrained classifier, >= 0."""
    log_every: Period = 10
    """Updates in one compiled call, and between lines of metrics."""
    save_every: Period = 50
    """Updates between checkpoints, a multiple of `log_every`; the run resumes from the last one."""
    network: NetworkConfig = NetworkConfig(widths=(64,), activation="relu")
    """Classifier and value function."""
    ppo: UpdateSettings = UpdateSettings(learning_rate=3e-3, max_grad_norm=1.0, entropy_coef=0.0)
    """The update."""

    def __post_init__(self):
        super().__post_init__()
        self.require_equal_minibatches(self.batch_size)

    @property
    def cadence(self) -> Cadence:
        """Cadence of the updates in all, in a compiled call, between checkpoints."""
        return self.cadence_of(self.updates)
