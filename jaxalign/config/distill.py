"""The configuration of `jaxalign distill`."""

from jaxalign.config.checks import config, require
from jaxalign.config.data import DataConfig, require_in_memory
from jaxalign.config.loop import FitConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.names import (
    DistillationLossName,
    given_hyperparameters,
    with_hyperparameters,
)
from jaxalign.config.ranges import Positive, Share, Size
from jaxalign.config.training import PolicyFields
from jaxalign.losses import DISTILLATION_LOSSES
from jaxalign.losses.declarations import Loss


@config
@with_hyperparameters(DISTILLATION_LOSSES)
class DistillSettings:
    """Distillation loss, whose responses it is taken on, and the training loop."""

    loss: DistillationLossName = "forward_kl"
    """Divergence between teacher and student at every token of a response."""
    mixture: float | None = None
    """Weight of the teacher in the middle of jsd, in (0, 1); 0.5 by default. Small values are like
    the forward KL, large ones like the reverse."""
    on_policy: Share = 0.5
    """Share of the batches whose responses the student samples itself, in [0, 1]; in the others
    they come from the data."""
    max_logits_gib: Positive = 4.0
    """Most memory that the teacher's logits of a batch may take, over all devices, in GiB, > 0."""
    fit: FitConfig = FitConfig(log_every=1, save_every=50)
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

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with the hyper-parameters that are given in place of its own."""
        hyperparameters = given_hyperparameters(self, DISTILLATION_LOSSES)
        return DISTILLATION_LOSSES[self.loss].given(**hyperparameters)

    def is_on_policy(self, number: int) -> bool:
        """Whether the student samples a batch: of the first n batches, `on_policy` n rounded down.

        >>> [DistillSettings(on_policy=0.4).is_on_policy(number) for number in range(5)]
        [False, False, True, False, True]
        """
        return int((number + 1) * self.on_policy) > int(number * self.on_policy)


@config
class DistillConfig(PolicyFields):
    """Distillation of a policy: a student trained on a teacher's distributions over every next
    token.

    Example: jaxalign distill --policy runs/sft --teacher smollm2 --data.path texts.jsonl
    """

    policy: str = ""
    """Student to start from: a run directory, a Hugging Face folder or hub id, a .gguf file, or
    smollm2."""
    teacher: str = ""
    """Teacher of the same vocabulary, given as `policy` is."""
    data: DataConfig = DataConfig()
    """Rows with `text`, `messages`, or `prompt` and `completion`."""
    distill: DistillSettings = DistillSettings()
    """Loss and training loop."""
    max_new_tokens: Size = 32
    """Longest response that the student samples, in tokens."""

    def __post_init__(self):
        require_in_memory(self.data, "distill")
        sampled = self.distill.on_policy > 0
        check_lora(self.lora, self.distill.fit.optimizer, sampled=sampled)
