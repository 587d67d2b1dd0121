"""The configuration of `jaxalign kto`."""

from jaxalign.config.checks import config
from jaxalign.config.data import DataConfig, require_in_memory
from jaxalign.config.dpo import check_beta
from jaxalign.config.loop import FitConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.names import UnpairedLossName, given_hyperparameters, with_hyperparameters
from jaxalign.config.ranges import Weight
from jaxalign.config.training import ReferenceFields
from jaxalign.losses import UNPAIRED_LOSSES
from jaxalign.losses.declarations import Loss


@config
@with_hyperparameters(UNPAIRED_LOSSES)
class KTOSettings:
    """Kahneman-Tversky optimization and its relatives.

    Of the hyper-parameters None is the default of the chosen loss; one that the loss does not take
    is refused.
    """

    loss: UnpairedLossName = "kto"
    """Loss on labelled responses."""
    beta: float | None = None
    """Strength of the pull towards the reference; 0.1 by default."""
    desirable_weight: Weight | None = None
    """Weight of the responses labelled good (kto); 1 by default."""
    undesirable_weight: Weight | None = None
    """Weight of the responses labelled bad (kto); 1 by default."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts responses. Where nothing is given: for a published model, or
    one of 10 million parameters, learning_rate 1e-6 (with LoRA 1e-5), linear, warm-up of 10%,
    1 epoch, batches of 64, b2 0.999 (TRL's KTOConfig, Tulu 3); for a small one learning_rate 3e-4,
    cosine, 10 steps of warm-up, 120 steps, batches of 64, b2 0.99."""

    def __post_init__(self):
        check_beta("kto", self.declared_loss)

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with the hyper-parameters that are given in place of its own."""
        hyperparameters = given_hyperparameters(self, UNPAIRED_LOSSES)
        return UNPAIRED_LOSSES[self.loss].given(**hyperparameters)


@config
class KTOConfig(ReferenceFields):
    """Kahneman-Tversky optimization of a policy from responses labelled good or bad.

    Example: jaxalign kto --policy smollm2 --data.path labelled.jsonl --lora.rank 8
    """

    data: DataConfig = DataConfig()
    """Rows with `prompt`, `completion` and `label`; or with `chosen` and `rejected`, as for dpo."""
    kto: KTOSettings = KTOSettings()
    """Loss and training loop. A hyper-parameter that is None is that of the chosen loss, and one
    that the loss does not take is refused."""

    def __post_init__(self):
        require_in_memory(self.data, "kto")
        check_lora(self.lora, self.kto.fit.optimizer)
