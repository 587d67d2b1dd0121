"""The configuration of `jaxalign dpo`."""

from jaxalign.config.checks import config, require, require_temperature
from jaxalign.config.data import DataConfig, PlaceConfig
from jaxalign.config.loop import FitConfig
from jaxalign.config.model import LoraConfig, check_lora
from jaxalign.config.names import PairLossName, given_hyperparameters, with_hyperparameters
from jaxalign.losses import PAIR_LOSSES
from jaxalign.losses.declarations import Loss
from jaxalign.objectives.preferences import check_modifiers


@config
@with_hyperparameters(PAIR_LOSSES)
class DPOSettings:
    """Direct Preference Optimization and its relatives.

    Of the hyper-parameters None is the default of the chosen loss; one that the loss does not take
    is refused.
    """

    loss: PairLossName = "dpo"
    """Loss on pairs; `--loss` for short."""
    beta: float | None = None
    """Strength of the pull towards the reference, or scale of the reward; 0.1 for most losses."""
    label_smoothing: float | None = None
    """Probability that a label is flipped."""
    gamma: float | None = None
    """Margin that the chosen reward should have (simpo, alphapo, tpo_l)."""
    alpha: float | None = None
    """Shape of the divergence or of the reward (alpha_divergence, alphapo)."""
    nll_coef: float | None = None
    """Weight of the likelihood of the imitated response (cpo, tpo, tpo_l)."""
    discopop_temperature: float | None = None
    """Temperature at which discopop goes over from one loss to the other."""
    reference_free: bool = False
    """Leave the reference out: a uniform one in its place."""
    ld_alpha: float | None = None
    """Weight of the tokens beyond the shorter response of a pair, in [0, 1] (LD-DPO); None: 1."""
    wpo: bool = False
    """Weight pairs by how likely the policy is to say them, its own samples by about 1, none by
    more (WPO with sampled alignment)."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts pairs. Where nothing is given: for a published model, or one of
    10 million parameters, learning_rate 1e-6 (with LoRA 1e-5), linear, warm-up of 10%, 1 epoch,
    batches of 64, b2 0.999 (the DPO paper, Zephyr, Tulu 3, TRL); for a small one learning_rate
    3e-4, cosine, 10 steps of warm-up, 120 steps, batches of 32, b2 0.99."""

    def __post_init__(self):
        check_hyperparameters("dpo", self.declared_loss)
        check_modifiers(
            self.declared_loss, ld_alpha=self.ld_alpha, reference_free=self.reference_free
        )
        require(
            self.ld_alpha is None or 0 <= self.ld_alpha <= 1,
            f"dpo.ld_alpha is {self.ld_alpha}; it must lie in [0, 1]",
        )
        require(
            self.fit.micro_batches == 1 or not self.declared_loss.couples_rows,
            f"loss {self.loss} compares the rows of a whole batch; set dpo.fit.micro_batches to 1",
        )

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with what is given in place of its own hyper-parameters."""
        return PAIR_LOSSES[self.loss].given(**given_hyperparameters(self, PAIR_LOSSES))

    @property
    def uses_reference(self) -> bool:
        """Whether the reference's log-probabilities are needed."""
        return self.declared_loss.needs("reference") and not self.reference_free


def check_hyperparameters(section: str, loss: Loss):
    """Ranges that hold for every loss."""
    values = loss.hyperparameters
    require(values["beta"] > 0, f"{section}.beta is {values['beta']}; it must be above 0")
    smoothing = values.get("label_smoothing", 0.0)
    require(
        0 <= smoothing < 0.5,
        f"{section}.label_smoothing is {smoothing}; it must lie in [0, 0.5)",
    )
    for name in ("nll_coef", "desirable_weight", "undesirable_weight"):
        value = values.get(name, 1.0)
        require(value >= 0, f"{section}.{name} is {value}; it must not be negative")


@config
class DPOConfig:
    """Direct Preference Optimization of a policy from preferences, or a relative of it."""

    policy: str = ""
    """Run directory of the policy to start from; it is the reference too."""
    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for it: merged, or trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    data: DataConfig = DataConfig()
    """Rows with `chosen` and `rejected`, with or without `prompt`; with `gold` for tpo."""
    dpo: DPOSettings = DPOSettings()
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
        check_lora(self.lora, self.dpo.fit.optimizer)
        require(
            not self.reference_logps or self.dpo.uses_reference,
            f"loss {self.dpo.loss} reads no reference here whose log-probabilities could be "
            "kept; leave reference_logps out",
        )
