"""The configuration of `jaxalign dpo`."""

from jaxalign.config.checks import config, require
from jaxalign.config.data import DataConfig, require_in_memory
from jaxalign.config.loop import FitConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.names import PairLossName, given_hyperparameters, with_hyperparameters
from jaxalign.config.ranges import FlipProbability, Share
from jaxalign.config.training import ReferenceFields
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
    """Loss on pairs of responses."""
    beta: float | None = None
    """Strength of the pull towards the reference, or scale of the reward; 0.1 for most losses."""
    label_smoothing: FlipProbability | None = None
    """Probability that a label is flipped."""
    reference_free: bool = False
    """Leave the reference out: a uniform one in its place."""
    ld_alpha: Share | None = None
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
        check_beta("dpo", self.declared_loss)
        check_modifiers(
            self.declared_loss, ld_alpha=self.ld_alpha, reference_free=self.reference_free
        )
        require(
            self.fit.micro_batches == 1 or not self.declared_loss.couples_rows,
            f"loss {self.loss} compares the rows of a whole batch; set dpo.fit.micro_batches to 1",
        )

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with the hyper-parameters that are given in place of its own."""
        return PAIR_LOSSES[self.loss].given(**given_hyperparameters(self, PAIR_LOSSES))

    @property
    def uses_reference(self) -> bool:
        """Whether the loss reads the reference's log-probabilities."""
        return self.declared_loss.needs("reference") and not self.reference_free


def check_beta(section: str, loss: Loss):
    """Raise a one-line `UserError` for a beta that is not above 0."""
    beta = loss.hyperparameters.get("beta", 1.0)
    require(beta > 0, f"{section}.beta is {beta}; it must be above 0")


@config
class DPOConfig(ReferenceFields):
    """Direct Preference Optimization of a policy from preferences, or a relative of it.

    Example: jaxalign dpo --policy smollm2 --data.path pairs.jsonl --lora.rank 8
    """

    data: DataConfig = DataConfig()
    """Rows with `chosen` and `rejected`, with or without `prompt`; with `gold` for tpo and
    tpo_l."""
    dpo: DPOSettings = DPOSettings()
    """Loss and training loop. A hyper-parameter that is None is that of the chosen loss, and one
    that the loss does not take is refused."""

    def __post_init__(self):
        if self.dpo.ld_alpha is not None:
            require_in_memory(self.data, "dpo with ld_alpha")
        check_lora(self.lora, self.dpo.fit.optimizer)
        require(
            not self.reference_logps or self.dpo.uses_reference,
            f"loss {self.dpo.loss} reads no reference here whose log-probabilities could be "
            "kept; leave reference_logps out",
        )
