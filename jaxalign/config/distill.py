"""The configuration of `jaxalign distill`."""

from jaxalign.config.checks import config, require, require_at_least, require_temperature
from jaxalign.config.data import DataConfig, PlaceConfig
from jaxalign.config.loop import FitConfig
from jaxalign.config.model import LoraConfig, check_lora
from jaxalign.config.names import (
    DistillationLossName,
    given_hyperparameters,
    with_hyperparameters,
)
from jaxalign.losses import DISTILLATION_LOSSES
from jaxalign.losses.declarations import Loss


@config
@with_hyperparameters(DISTILLATION_LOSSES)
class DistillSettings:
    """Distillation of a teacher's distributions into a student."""

    loss: DistillationLossName = "forward_kl"
    """Divergence between teacher and student at every token of a response; `--loss` for short."""
    mixture: float | None = None
    """Weight of the teacher in the middle of jsd, in (0, 1); 0.5 by default. Small values are like
    the forward KL, large ones like the reverse."""
    on_policy: float = 0.5
    """Share of the batches whose responses the student samples itself, in [0, 1]; in the others
    they come from the data."""
    max_logits_gib: float = 4.0
    """Most memory that the teacher's logits of a batch may take, over all devices, in GiB."""
    fit: FitConfig = FitConfig(log_every=1, checkpoint_every=50)
    """Training loop; a batch counts responses. Where nothing is given: for a published student, or
    one of 10 million parameters, learning_rate 2e-5 (with LoRA 2e-4), cosine, warm-up of 3%,
    3 epochs, batches of 32, b2 0.999 (as for SFT; TRL's GKDConfig); for a small one learning_rate
    1e-3, cosine, 20 steps of warm-up, 200 steps, batches of 32, b2 0.99."""

    def __post_init__(self):
        values = self.declared_loss.hyperparameters
        if "mixture" in values:
            mixture = values["mixture"]
            require(
                0 < mixture < 1,
                f"distill.mixture is {mixture}; it must lie in (0, 1): its ends are the losses "
                "forward_kl and reverse_kl",
            )
        share = self.on_policy
        require(0 <= share <= 1, f"distill.on_policy is {share}; it must lie in [0, 1]")

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with what is given in place of its own hyper-parameters."""
        given = given_hyperparameters(self, DISTILLATION_LOSSES)
        return DISTILLATION_LOSSES[self.loss].given(**given)

    def is_on_policy(self, number: int) -> bool:
        """Whether the student samples that batch: of the first n batches, `on_policy` n rounded
        down.

        >>> [DistillSettings(on_policy=0.4).is_on_policy(number) for number in range(5)]
        [False, False, True, False, True]
        """
        return int((number + 1) * self.on_policy) > int(number * self.on_policy)


@config
class DistillConfig:
    """Distillation of a policy: a student learns a teacher's distributions, token by token."""

    policy: str = ""
    """Run directory of the student to start from."""
    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for it: merged, or trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    teacher: str = ""
    """Run directory of the teacher; the same vocabulary."""
    data: DataConfig = DataConfig()
    """Rows with `text`, `messages`, or `prompt` and `completion`."""
    distill: DistillSettings = DistillSettings()
    """Loss and training loop."""
    temperature: float = 1.0
    """Of teacher and student, in sampling and training alike, > 0."""
    max_new_tokens: int = 32
    """Longest response that the student samples, in tokens."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""
    seed: int = 0
    """Of the order of rows and sampling."""

    def __post_init__(self):
        require_temperature(self.temperature)
        sampled = self.distill.on_policy > 0
        check_lora(self.lora, self.distill.fit.optimizer, sampled=sampled)
        require_at_least(1, "", self, "max_new_tokens")
