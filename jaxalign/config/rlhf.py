"""The configuration of the main job; its defaults are what `jaxalign rlhf` runs."""

from jaxalign.config.checks import config, require
from jaxalign.config.dpo import DPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.lora import LoraConfig, check_lora
from jaxalign.config.model import ModelConfig, TokenizerConfig
from jaxalign.config.overrides import changed_fields
from jaxalign.config.place import PlaceConfig
from jaxalign.config.ppo import PPOSettings
from jaxalign.config.ranges import Count, Length, Seed, Share, Size, SizeOrZero, Temperature, Weight
from jaxalign.config.reward import RewardSettings
from jaxalign.losses.declarations import COMPARISONS


@config
class ComparisonSettings:
    """Comparisons that the reward model learns from: groups of rated texts, each with each."""

    groups: Size = 1600
    """How many groups are drawn."""
    group_size: Size = 32
    """Texts of a group."""
    same_rater_share: Share = 0.0
    """Share of the groups within one block of raters (harder), in [0, 1]; the others are across
    blocks."""


@config
class EvaluationSettings:
    """Evaluation of the policies: how many prompts, points and samples they are compared on."""

    prompts: Size = 512
    """Held-out prompts of the result table."""
    curve_prompts: SizeOrZero = 128
    """The first of them, for the points along training."""
    curve_points: Size = 3
    """Points along the training of each method."""
    best_of: Size = 16
    """Samples of which the reward model picks one."""
    best_of_prompts: SizeOrZero = 160
    """The first of the held-out prompts, for best-of-N."""
    rows: Size = 128
    """Samples drawn at the same time."""
    perplexity_texts: Count | None = None
    """Human texts, spread over the held-out ones, for perplexities; None: all."""
    shown: SizeOrZero = 24
    """Prompts whose samples are written side by side."""


NEW_MODEL = ModelConfig(width=96, layers=2, dropout=0.1)
NEW_TOKENIZER = TokenizerConfig(kind="word", vocab_size=8192)


@config
class RLHFConfig:
    """The main job: SFT, reward model, PPO, DPO and best-of-N on human ratings of review
    sentences.

    Example: jaxalign rlhf --output runs/rlhf
    """

    init: str = ""
    """Model that the policy and the reward model start from, as in `sft`; empty: a new one."""
    lora: LoraConfig = LoraConfig()
    """Train adapters of the policies instead of all parameters."""
    model: ModelConfig = NEW_MODEL
    """The new policy; the reward model has the same trunk."""
    tokenizer: TokenizerConfig = NEW_TOKENIZER
    """The new vocabulary, learned from the policy's texts."""
    lowercase: bool = True
    """Read texts in lower case: fewer words to learn."""
    products: bool = False
    """Also learn to write from the product reviews."""
    max_length: Length = 40
    """Longest text in tokens; longer ones are cut and have no end."""
    prompt_tokens: tuple[Size, Size] = (2, 5)
    """Fewest and most tokens of a held-out text that a policy has to continue."""
    temperature: Temperature = 0.7
    """Logits of every policy are divided by it, in sampling, in PPO and in the KL, > 0."""
    sft: FitConfig = FitConfig(
        steps=1100,
        batch_size=20,
        micro_batches=2,
        log_every=50,
        save_every=400,
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=0.02,
            schedule="cosine",
            warmup_steps=30,
            weight_decay=0.1,
            b2=0.99,
        ),
    )
    """Supervised fine-tuning."""
    length_buckets: Size = 3
    """Ranges of lengths that the batches of supervised fine-tuning come from."""
    comparisons: ComparisonSettings = ComparisonSettings()
    """What the reward model learns from."""
    reward: RewardSettings = RewardSettings(
        pooling="none",
        bag=True,
        fit=FitConfig(
            steps=400,
            batch_size=128,
            optimizer=OptimizerConfig(
                learning_rate=0.02, schedule="cosine", warmup_steps=0, b2=0.999
            ),
        ),
    )
    """Reward model: here a bag of words, since people judged the mood of single sentences."""
    ppo: PPOSettings = PPOSettings(
        iterations=10,
        micro_batches=4,
        kl_coef=0.1,
        missing_eos_penalty=0.25,
        optimizer=OptimizerConfig(learning_rate=5e-4, schedule="linear", warmup_steps=0, b2=0.99),
    )
    """PPO against the reward model."""
    pairs: Count = 4400
    """Human preference pairs drawn for DPO and preferred fine-tuning; those in which a text was cut
    are left out.
    """
    same_rater_share: Share = 0.0
    """Share of those pairs that one person made, within a block of raters, in [0, 1]; the others
    are across blocks."""
    preferred: FitConfig = FitConfig(
        steps=60,
        batch_size=48,
        micro_batches=4,
        optimizer=OptimizerConfig(learning_rate=2e-4, schedule="cosine", warmup_steps=20, b2=0.99),
    )
    """Supervised fine-tuning on the preferred sides of the human pairs."""
    dpo_human: DPOSettings = DPOSettings(
        beta=0.05,
        fit=FitConfig(
            steps=100,
            batch_size=32,
            micro_batches=4,
            optimizer=OptimizerConfig(
                learning_rate=4e-4, schedule="cosine", warmup_steps=10, b2=0.99
            ),
        ),
    )
    """DPO on the human pairs."""
    dpo_samples: DPOSettings = DPOSettings(
        fit=FitConfig(
            steps=60,
            batch_size=32,
            micro_batches=4,
            optimizer=OptimizerConfig(
                learning_rate=4e-4, schedule="cosine", warmup_steps=10, b2=0.99
            ),
        )
    )
    """DPO on the policy's own samples, labelled by the reward model."""
    sampled_prompts: Size = 768
    """Prompts whose samples make the pairs of `dpo_samples`."""
    samples_per_prompt: Size = 4
    """Samples of each of these prompts; the best and the worst make a pair."""
    unfinished_penalty: Weight = 1.0
    """Taken from the score of such a sample if it did not end by itself, >= 0."""
    unpenalised: PPOSettings = PPOSettings(
        kl_coef=0.0,
        missing_eos_penalty=0.25,
        iterations=10,
        batch_size=128,
        micro_batches=2,
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0, b2=0.99),
    )
    """PPO with a KL coefficient of 0, to show over-optimisation; 0 iterations: left out."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How policies are compared."""
    place: PlaceConfig = PlaceConfig(layout="device")
    """Where it computes."""
    seed: Seed = 0
    """Of all that is random but the splits of the data, which are fixed."""

    def __post_init__(self):
        require(
            bool(self.init) or not self.lora.rank,
            "lora.rank needs a trained model below the adapters; set init",
        )
        unread = [
            *changed_fields(self.model, NEW_MODEL, "model"),
            *changed_fields(self.tokenizer, NEW_TOKENIZER, "tokenizer"),
        ]
        require(
            not (self.init and unread),
            f"init {self.init} has a model and a vocabulary, which does not go with "
            f"{', '.join(unread)}",
        )
        fits = self.sft, self.preferred, self.dpo_human.fit, self.dpo_samples.fit
        for optimizer in [fit.optimizer for fit in fits]:
            check_lora(self.lora, optimizer)
        for ppo in (self.ppo, self.unpenalised):
            check_lora(self.lora, ppo.optimizer, sampled=True)
        require(
            self.reward.declared_loss.kind is COMPARISONS,
            f"reward.loss is {self.reward.loss}; people compared texts here, use bradley_terry",
        )
        size = self.comparisons.group_size
        require(
            (self.reward.fit.batch_size or size) % size == 0,
            f"reward.fit.batch_size {self.reward.fit.batch_size} is not a multiple of "
            f"comparisons.group_size {size}",
        )
        loops = {"sft": self.sft, "preferred": self.preferred, "reward.fit": self.reward.fit}
        loops |= {f"{name}.fit": getattr(self, name).fit for name in ("dpo_human", "dpo_samples")}
        for name, fit in loops.items():
            require(fit.epochs is None, f"rlhf counts steps; give {name}.steps, not {name}.epochs")
        for name, ppo in (("ppo", self.ppo), ("unpenalised", self.unpenalised)):
            require(
                ppo.prompt_epochs is None,
                f"rlhf counts iterations; give {name}.iterations, not {name}.prompt_epochs",
            )
        for name, loop in (loops | {"ppo": self.ppo, "unpenalised": self.unpenalised}).items():
            for field in ("eval_every", "best", "patience"):
                require(
                    not getattr(loop, field),
                    f"rlhf compares its policies as evaluation.curve_points says; leave "
                    f"{name}.{field} out",
                )
        require(
            self.prompt_tokens[1] + 2 < self.max_length,
            f"prompts of {self.prompt_tokens[1]} tokens leave no room in "
            f"max_length {self.max_length}",
        )
