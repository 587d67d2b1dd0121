"""The configuration of `jaxalign online`."""

from jaxalign.config.checks import config, require
from jaxalign.config.data import require_in_memory
from jaxalign.config.dpo import check_beta
from jaxalign.config.loop import FitConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.names import (
    ONLINE_PAIR_LOSSES,
    OnlineLossName,
    OnlinePairLossName,
    given_hyperparameters,
    with_hyperparameters,
)
from jaxalign.config.ranges import FlipProbability, Penalty, Positive, Share
from jaxalign.config.records import RecordFields
from jaxalign.config.training import SampledFields
from jaxalign.losses import ONLINE_LOSSES
from jaxalign.losses.declarations import Loss


@config
@with_hyperparameters(ONLINE_LOSSES, ONLINE_PAIR_LOSSES)
class OnlineSettings(RecordFields):
    """Online preference loss: pairs of the policy's own responses, compared by their rewards.

    Of the hyper-parameters None is the default of the chosen loss; one that the loss does not take
    is refused.
    """

    loss: OnlineLossName = "online_dpo"
    """Who writes the second response and what is learned from the two."""
    pair_loss: OnlinePairLossName = "dpo"
    """Loss on the ranked pair, for online_dpo."""
    beta: float | None = None
    """Strength of the pull towards the reference; 0.1 for most losses, 0.05 for nash_md, where it
    is the preference lost for every nat of KL."""
    label_smoothing: FlipProbability | None = None
    """Probability that a label is flipped (pair losses)."""
    alpha: float | None = None
    """Weight of xpo's bonus; 1e-5 by default. Shape of the divergence for alpha_divergence."""
    mixture: Share | None = None
    """Weight of the reference in nash_md's opponent, in [0, 1]; 0.125 by default."""
    score_scale: Positive | None = None
    """For nash_md: a difference of scores times this is the log-odds of a preference; 1 by default.
    `log_odds_per_score` in the reward model's results.json is what its own training found."""
    missing_eos_penalty: Penalty = 0.0
    """Taken from the score of a response that did not end by itself, >= 0; 0: nothing."""
    fit: FitConfig = FitConfig(log_every=1, save_every=20)
    """Training loop; a batch counts prompts, and every step samples two responses to each. Where
    nothing is given: for a published model, or one of 10 million parameters, learning_rate 5e-7
    (with LoRA 5e-6), linear, warm-up of 10%, 1 epoch, batches of 64, b2 0.999 (Guo et al. 2024,
    TRL's OnlineDPOConfig); for a small one learning_rate 3e-4, cosine, 5 steps of warm-up, 100
    steps, batches of 64, b2 0.99."""

    def __post_init__(self):
        loss = self.declared_loss
        values = loss.hyperparameters
        if self.loss == "nash_md":
            require(
                values["beta"] >= 0, f"online.beta is {values['beta']}; it must not be negative"
            )
        else:
            check_beta("online", loss)
            for name in ("mixture", "score_scale"):
                require(getattr(self, name) is None, f"loss {self.loss} takes no {name}")
        if self.loss == "xpo":
            alpha = values["alpha"]
            require(alpha >= 0, f"online.alpha is {alpha}; it must not be negative")

    @property
    def declared_loss(self) -> Loss:
        """The chosen loss with given hyper-parameters; for online_dpo the pair loss."""
        require(
            self.loss == "online_dpo" or self.pair_loss == "dpo",
            f"loss {self.loss} takes no pair_loss; it belongs to online_dpo",
        )
        hyperparameters = given_hyperparameters(self, ONLINE_LOSSES | ONLINE_PAIR_LOSSES)
        if self.loss == "online_dpo":
            return ONLINE_PAIR_LOSSES[self.pair_loss].given(**hyperparameters)
        return ONLINE_LOSSES[self.loss].given(**hyperparameters)

    @property
    def opponent(self) -> float:
        """Weight of the reference in the mixture that draws the second response."""
        return ONLINE_LOSSES[self.loss].opponent if self.mixture is None else self.mixture

    @property
    def log_odds_per_score(self) -> float:
        """Scale of the scores in nash_md: log-odds of a preference for a difference of 1."""
        return 1.0 if self.score_scale is None else self.score_scale


@config
class OnlineConfig(SampledFields):
    """Online preference optimization of a policy: pairs of its own samples, ranked by rewards.

    Example: jaxalign online --policy smollm2 --reward runs/reward --data.path prompts.jsonl
    """

    online: OnlineSettings = OnlineSettings()
    """Loss and training loop. A hyper-parameter that is None is that of the chosen loss, and one
    that the loss does not take is refused."""

    def __post_init__(self):
        super().__post_init__()
        require_in_memory(self.data, "online")
        check_lora(self.lora, self.online.fit.optimizer, sampled=True)
