"""The configuration of `jaxalign kto`."""

from jaxalign.config.checks import config, require_temperature
from jaxalign.config.data import DataConfig, PlaceConfig
from jaxalign.config.dpo import check_hyperparameters
from jaxalign.config.loop import FitConfig
from jaxalign.config.model import LoraConfig, check_lora
from jaxalign.config.names import UnpairedLossName, given_hyperparameters, with_hyperparameters
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
    """Loss on labelled responses; `--loss` for short."""
    beta: float | None = None
    """Strength of the pull towards the reference; 0.1 by default."""
    desirable_weight: float | None = None
    """Weight of the responses labelled good (kto); 1 by default."""
    undesirable_weight: float | None = None
    """Weight of the responses labelled bad (kto); 1 by default."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts responses. Where nothing is given: for a published model, or
    one of 10 million parameters, learning_rate 1e-6 (with LoRA 1e-5), linear, warm-up of 10%,
    1 epoch, batches of 64, b2 0.999 (TRL's KTOConfig, Tulu 3); for a small one learning_rate 3e-4,
    cosine, 10 steps of warm-up, 120 steps, batches of 64, b2 0.99."""

    def __post_init__(self):
        check_hyperparameters("kto", self.declared_loss)

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with what is given in place of its own hyper-parameters."""
        given = given_hyperparameters(self, UNPAIRED_LOSSES)
        return UNPAIRED_LOSSES[self.loss].given(**given)


@config
class KTOConfig:
    """Kahneman-Tversky optimization of a policy from responses labelled good or bad."""

    policy: str = ""
    """Run directory of the policy to start from; it is the reference too."""
    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for it: merged, or trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    data: DataConfig = DataConfig()
    """Rows with `prompt`, `completion` and `label`."""
    kto: KTOSettings = KTOSettings()
    """Loss and training loop."""
    temperature: float = 1.0
    """The policy is the distribution at this temperature, > 0; sample from it at the same one."""
    reference_logps: str = ""
    """Folder in which the reference's log-probabilities are kept: a run with the same model, rows
    and temperature reads them instead of computing them. Empty: they are not kept."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""
    seed: int = 0
    """Of the order of rows and dropout."""

    def __post_init__(self):
        require_temperature(self.temperature)
        check_lora(self.lora, self.kto.fit.optimizer)
