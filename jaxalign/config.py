"""The configurations of all stages: frozen, keyword-only dataclasses, checked when they are made.

Batch sizes are global. Every field is read by the stage that declares it; `--help` of a command
shows them all.
"""

import dataclasses
from typing import Literal

from jaxalign.config_checks import (
    changed_fields,
    config,
    require,
    require_at_least,
    require_no_held_out,
    require_one,
    require_one_reward,
    require_passes,
    require_penalty,
    require_temperature,
)
from jaxalign.objectives.pair_losses import PAIR_LOSSES, UNPAIRED_LOSSES, hyperparameters_of
from jaxalign.objectives.preferences import check_modifiers

PairLossName = Literal[
    "dpo",
    "robust",
    "ipo",
    "averaged_ipo",
    "hinge",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "length_normalised_dpo",
    "forward_kl",
    "jensen_shannon",
    "alpha_divergence",
    "simpo",
    "alphapo",
    "cpo",
    "orpo",
    "tpo",
    "tpo_l",
]
UnpairedLossName = Literal["kto", "apo_zero_unpaired", "bco"]
RewardLossName = Literal["bradley_terry", "plackett_luce", "process"]


@config
class ModelConfig:
    """The policy/value transformer, short of what the data decide (vocabulary, length) and the
    heads.
    """

    width: int = 128
    """Model width D."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    kv_heads: int | None = None
    """Key/value heads (grouped-query attention); None: as many as heads."""
    mlp_width: int | None = None
    """Hidden width of the feed-forward part; None: 8/3 of the width for SwiGLU, 4 times for
    GELU.
    """
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm or LayerNorm."""
    positions: Literal["rope", "learned"] = "rope"
    """Rotary or learned absolute positions."""
    activation: Literal["swiglu", "gelu"] = "swiglu"
    """Feed-forward non-linearity."""
    tie_embeddings: bool = True
    """The output head is the transposed embedding."""
    dropout: float = 0.2
    """Dropout of embeddings and of both parts of every block, in [0, 1)."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the products; parameters and log-probabilities are float32 always."""
    remat: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    scan_layers: bool = False
    """One compiled block for all layers: quick compilation of deep models."""
    value_trunk: Literal["shared", "separate"] = "shared"
    """Whether values are read from the policy's trunk or from one of their own."""

    def __post_init__(self):
        require(
            self.width % self.heads == 0,
            f"model.width {self.width} is not a multiple of model.heads {self.heads}",
        )
        require(
            self.heads % (self.kv_heads or self.heads) == 0,
            f"model.heads {self.heads} is not a multiple of model.kv_heads {self.kv_heads}",
        )
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}; it must lie in [0, 1)")


@config
class OptimizerConfig:
    """AdamW, RMSprop or Muon with clipping and a schedule.

    None follows the model, as the training loop says.
    """

    name: Literal["adamw", "rmsprop", "muon"] = "adamw"
    """Update rule."""
    learning_rate: float | None = None
    """Peak learning rate; None follows the model."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """Course of the learning rate after the warm-up; linear and cosine end at 0. None follows the
    model."""
    warmup_steps: int | None = None
    """Steps of linear warm-up from 0; None: as `warmup_share` says, or else following the model."""
    warmup_share: float | None = None
    """The same as a share of all steps, in [0, 1], rounded up; in place of warmup_steps."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices."""
    b2: float | None = None
    """Decay rate of the second moment; None follows the model."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""

    def __post_init__(self):
        require_at_least(0, "optimizer.", self, "learning_rate", "warmup_steps", "weight_decay")
        b2, share = self.b2, self.warmup_share
        require(b2 is None or 0 <= b2 < 1, f"optimizer.b2 is {b2}; it must lie in [0, 1)")
        require(
            share is None or 0 <= share <= 1,
            f"optimizer.warmup_share is {share}; it must lie in [0, 1]",
        )
        require_one("optimizer.", self, "warmup_steps", "warmup_share")
        require(
            self.max_grad_norm > 0,
            f"optimizer.max_grad_norm is {self.max_grad_norm}; it must be above 0",
        )


@config
class FitConfig:
    """One training loop."""

    steps: int | None = None
    """Optimizer steps; None: as `epochs` says, or else following the model."""
    epochs: float | None = None
    """Passes over the data in place of steps, above 0; a part of one is rounded up to steps."""
    batch_size: int | None = None
    """Rows of a step over all devices and micro-batches (pairs for DPO, texts for a reward
    model); None follows the model, and is at most all rows where passes are counted."""
    micro_batches: int = 1
    """Parts of a batch whose gradients are added up one after the other; the update is the same,
    also where they do not divide the batch."""
    log_every: int = 20
    """Steps between lines of metrics."""
    checkpoint_every: int = 200
    """Steps between checkpoints; the run resumes from the last one."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule and schedule."""

    def __post_init__(self):
        require_at_least(0, "", self, "steps")
        require_at_least(
            1, "", self, "batch_size", "micro_batches", "log_every", "checkpoint_every"
        )
        require_passes("epochs", self.epochs)
        require_one("", self, "steps", "epochs")

    @property
    def updates(self) -> int:
        """`steps`, which a run settles before it trains."""
        assert self.steps is not None, "steps follow the model, which nobody has asked"
        return self.steps

    @property
    def rows(self) -> int:
        """`batch_size`, which a run settles before it trains."""
        assert self.batch_size is not None, "batch_size follows the model, which nobody has asked"
        return self.batch_size


@config
class TokenizerConfig:
    """The vocabulary that is learned from the training texts."""

    kind: Literal["word", "bpe"] = "word"
    """Frequent whole words with a fallback for the others, or byte-level BPE."""
    vocab_size: int = 4096
    """Largest number of tokens."""


@config
class DataConfig:
    """Where rows come from and what is done with bad ones."""

    path: str = ""
    """A file of rows (.jsonl, .json, .csv, .tsv, gzipped or not, .parquet, .arrow, .feather), a
    pattern of files, a folder of Hugging Face datasets, or `tfds:NAME[/CONFIG]:SPLIT`."""
    evaluation_path: str = ""
    """Held-out rows, same forms; empty: none."""
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    """Our field names to those of the source, where they differ: `prompt question`."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Stop at bad rows, or leave them out and say how many and which."""
    max_length: int | None = None
    """Longest prompt and response together, in tokens; a longer row is a bad row. None: 1024 (as
    TRL) for a published model, or one of 10 million parameters, and 128 for a small one; no more
    than the model reads."""

    def __post_init__(self):
        length = self.max_length
        require(
            length is None or length >= 4, f"data.max_length is {length}; it must be at least 4"
        )

    @property
    def longest(self) -> int:
        """`max_length`, which a run settles before it reads rows."""
        assert self.max_length is not None, "max_length follows the model, which nobody has asked"
        return self.max_length


@config
class PlaceConfig:
    """Where a run computes."""

    layout: Literal["auto", "device", "pmap", "shards", "mesh"] = "auto"
    """One device, or data parallel over several; auto: pmap as soon as there are several."""
    devices: int | None = None
    """How many of the visible devices; None: all."""


@config
class LoraConfig:
    """Low-rank adapters in place of full fine-tuning: the trunk is frozen, heads of values and
    scores are trained beside them.
    """

    rank: int = 0
    """Rank r of every adapter; 0: no adapters, all parameters are trained."""
    alpha: float = 16.0
    """What an adapter adds is multiplied by alpha / rank."""
    rslora: bool = False
    """Multiply by alpha / sqrt(rank) instead."""
    dropout: float = 0.0
    """Share of the features of an adapter's input that is dropped in training, in [0, 1)."""
    targets: tuple[str, ...] = (
        "trunk/layers_[0-9]+/attention/(query|key|value|output)",
        "trunk/layers_[0-9]+/feed_forward/(gate|up|down)",
    )
    """Regular expressions of the dense layers that get one, by whole paths such as
    `trunk/layers_3/attention/query`."""
    base: Literal["float32", "bfloat16", "int8"] = "float32"
    """Precision in which the frozen weights are kept; int8 has a scale for every output."""

    def __post_init__(self):
        require(self.rank >= 0, f"lora.rank is {self.rank}; it must not be negative")
        require(self.alpha > 0, f"lora.alpha is {self.alpha}; it must be above 0")
        require(0 <= self.dropout < 1, f"lora.dropout is {self.dropout}; it must lie in [0, 1)")
        require(bool(self.targets), "lora.targets is empty; name at least one dense layer")
        unread = [] if self.rank else changed_fields(self, LoraConfig, "lora")
        require(
            not unread,
            f"lora.rank 0 trains all parameters and does not read {', '.join(unread)}; "
            "set lora.rank",
        )


def check_lora(lora: LoraConfig, optimizer: OptimizerConfig, *, sampled: bool = False):
    """What cannot go with adapters.

    Args:
      lora: of a command.
      optimizer: of its training loop.
      sampled: whether it learns from its own samples by their log-probabilities.
    """
    require(
        not lora.rank or optimizer.name != "muon",
        "muon is for the matrices that lora.rank freezes; choose adamw or rmsprop",
    )
    require(
        not sampled or not lora.dropout,
        f"lora.dropout is {lora.dropout}; samples are drawn without, and with it the policy that "
        "learns from them would be another one: set it to 0",
    )


@config
class RewardSettings:
    """The reward model, of whole texts but for loss process."""

    loss: RewardLossName = "bradley_terry"
    """On preferences, on rankings, or on labelled steps; `--loss` for short. Of this section,
    process reads nothing else: `process` holds its settings."""
    pooling: Literal["last", "mean", "both", "none"] = "last"
    """What the score reads of the transformer's trunk: its last token, the mean over tokens, both,
    or nothing, which leaves the bag."""
    layers: int | None = None
    """Read the trunk after so many of its layers, and leave out the others; None: all."""
    trunk: Literal["trained", "frozen"] = "trained"
    """Whether the trunk is trained with the head; frozen, it reads each text once, without
    dropout."""
    bag: bool = False
    """Add a weight for every token and pair of tokens, times its rarity in the texts. It reads a
    prompt and its response as one heap of words: good for the mood of single texts, which it learns
    from few, and blind to whether a response answers its prompt."""
    bag_characters: int = 16
    """The bag also reads runs of 4 to 6 characters, of tokens up to this long; 0: it does not."""
    bag_buckets: int = 262_144
    """Weights that the pairs of tokens share by hashing, and weights that the runs share."""
    bag_power: float = 0.4
    """The sum is divided by the number of terms to this power: 0 sums, 1 averages; smaller values
    favour longer texts."""
    bag_l2: float = 3e-3
    """Ridge penalty on those weights, for every comparison or ranking."""
    dropout: float = 0.1
    """Dropout of the trunk while the reward model is trained."""
    centering: float = 0.0
    """Coefficient of the squared sum of two scores, which keeps scores near 0, >= 0."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts texts, or rankings. Where nothing is given: for a published
    model, or one of 10 million parameters, learning_rate 1e-5 (with LoRA 1e-4), cosine, warm-up of
    10%, 1 epoch, batches of 128, b2 0.999 (InstructGPT); for a small one learning_rate 1e-3,
    cosine, 20 steps of warm-up, 400 steps, batches of 128, b2 0.99; for a head by itself (pooling
    none, or trunk frozen; also beside a bag above a small model) 0.02, cosine, no warm-up, 400
    steps, 128, 0.999."""

    def __post_init__(self):
        require(
            self.centering >= 0,
            f"reward.centering is {self.centering}; it must not be negative",
        )
        require(
            self.bag or self.pooling != "none",
            "reward.pooling none without reward.bag leaves nothing to score; set reward.bag True, "
            "or pooling to last or mean",
        )
        require(
            self.trunk == "trained" or self.pooling != "none",
            "reward.pooling none reads nothing of the trunk; reward.trunk frozen needs another",
        )
        require(
            self.layers is None or (self.layers > 0 and self.pooling != "none"),
            f"reward.layers is {self.layers} and reward.pooling {self.pooling}; layers must be "
            "above 0, and pooling must read them",
        )
        require(0 <= self.dropout < 1, f"reward.dropout is {self.dropout}; it must lie in [0, 1)")
        changed = changed_fields(self, type(self), "reward")
        unread = [] if self.bag else [name for name in changed if name.startswith("reward.bag_")]
        require(
            not unread,
            f"reward.bag False does not read {', '.join(unread)}; leave them out",
        )


@config
class ProcessSettings:
    """The process reward model: a transformer that scores every step of a solution."""

    dropout: float = 0.1
    """Dropout of the trunk while it is trained, in [0, 1)."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts solutions. Where nothing is given: for a published model, or
    one of 10 million parameters, learning_rate 1e-5 (with LoRA 1e-4), cosine, warm-up of 10%,
    1 epoch, batches of 64, b2 0.999 (TRL's PRMConfig, InstructGPT); for a small one learning_rate
    1e-3, cosine, 20 steps of warm-up, 300 steps, batches of 32, b2 0.99."""

    def __post_init__(self):
        require(0 <= self.dropout < 1, f"process.dropout is {self.dropout}; it must lie in [0, 1)")


@config
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
    robust: bool = False
    """The same as loss robust with a label smoothing of 0 by default."""
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
        require(
            not self.robust or self.loss in ("dpo", "robust"),
            f"dpo.robust belongs to loss robust, not to {self.loss}",
        )
        check_hyperparameters("dpo", self.hyperparameters)
        check_modifiers(self.loss, ld_alpha=self.ld_alpha, reference_free=self.reference_free)
        require(
            self.ld_alpha is None or 0 <= self.ld_alpha <= 1,
            f"dpo.ld_alpha is {self.ld_alpha}; it must lie in [0, 1]",
        )
        require(
            self.fit.micro_batches == 1 or not PAIR_LOSSES[self.loss_name].couples_rows,
            f"loss {self.loss_name} compares the rows of a whole batch; "
            "set dpo.fit.micro_batches to 1",
        )

    @property
    def loss_name(self) -> str:
        """Name of the loss in the table."""
        return "robust" if self.robust else self.loss

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Those of the chosen loss, defaults filled in."""
        given = {
            "beta": self.beta,
            "label_smoothing": self.label_smoothing,
            "gamma": self.gamma,
            "alpha": self.alpha,
            "nll_coef": self.nll_coef,
            "discopop_temperature": self.discopop_temperature,
        }
        if self.robust and self.label_smoothing is None:
            given["label_smoothing"] = 0.0
        return hyperparameters_of(PAIR_LOSSES, self.loss_name, given)

    @property
    def uses_reference(self) -> bool:
        """Whether the reference's log-probabilities are needed."""
        return PAIR_LOSSES[self.loss_name].needs("reference") and not self.reference_free


@config
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
        check_hyperparameters("kto", self.hyperparameters)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Those of the chosen loss, defaults filled in."""
        given = {
            "beta": self.beta,
            "desirable_weight": self.desirable_weight,
            "undesirable_weight": self.undesirable_weight,
        }
        return hyperparameters_of(UNPAIRED_LOSSES, self.loss, given)


def check_hyperparameters(section: str, values: dict[str, float]):
    """Ranges that hold for every loss."""
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
class PPOSettings:
    """PPO on sampled responses with a KL penalty to the reference."""

    iterations: int | None = None
    """Rounds of sampling and learning; None: as `prompt_epochs` says, or else following the
    model."""
    prompt_epochs: float | None = None
    """Passes over the prompts in place of iterations, above 0; a part of one is rounded up to
    rounds."""
    batch_size: int = 256
    """Responses sampled in a round."""
    epochs: int = 2
    """Passes over a round's responses."""
    minibatches: int = 4
    """Optimizer steps in a pass."""
    micro_batches: int = 1
    """Parts of a minibatch whose gradients are added up one after the other."""
    kl_coef: float = 0.12
    """Price of a nat of KL to the reference, in reward units."""
    kl_target: float | None = None
    """Adapt the price until a response costs this many nats; None: fixed price."""
    kl_horizon: int | None = None
    """Responses over which the price adapts: by at most a fifth of batch_size / kl_horizon in a
    round. None: twice the batch, so that it may move by 10% a round."""
    clip_range: float = 0.2
    """How far the ratio may leave 1."""
    dual_clip: float | None = None
    """Bound for unlikely actions with negative advantage; None: none."""
    value_clip_range: float | None = 0.2
    """How far a value may leave its old prediction; None: anywhere."""
    value_coef: float = 0.1
    """Weight of the value loss."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    gamma: float = 1.0
    """Discount."""
    gae_lambda: float = 0.95
    """Trace decay of the advantage estimator."""
    missing_eos_penalty: float = 0.0
    """Taken from the score of a response that did not end by itself; 0: nothing."""
    log_every: int = 1
    """Rounds between lines of metrics."""
    checkpoint_every: int = 10
    """Rounds between checkpoints."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Update rule. Where nothing is given: for a published model, or one of 10 million parameters,
    learning_rate 3e-6 (with LoRA 3e-5), linear, no warm-up, b2 0.999 (TRL's PPOConfig) and 1 pass
    over the prompts; for a small one learning_rate 2e-4, linear, no warm-up, b2 0.99 and 14
    rounds."""

    @property
    def rounds(self) -> int:
        """`iterations`, which a run settles before it trains."""
        assert self.iterations is not None, "iterations follow the model, which nobody has asked"
        return self.iterations

    def __post_init__(self):
        require_at_least(0, "ppo.", self, "iterations", "kl_coef", "value_coef", "entropy_coef")
        require_passes("ppo.prompt_epochs", self.prompt_epochs)
        require_one("ppo.", self, "iterations", "prompt_epochs")
        loop = ("batch_size", "epochs", "minibatches", "micro_batches")
        require_at_least(1, "ppo.", self, *loop, "log_every", "checkpoint_every")
        horizon = self.kl_horizon
        require(horizon is None or horizon > 0, f"ppo.kl_horizon is {horizon}; it must be above 0")
        require_penalty("ppo", self.missing_eos_penalty)
        for name in ("gamma", "gae_lambda"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"ppo.{name} is {value}; it must lie in [0, 1]")
        for name in ("clip_range", "value_clip_range", "kl_target"):
            value = getattr(self, name)
            require(value is None or value > 0, f"ppo.{name} is {value}; it must be above 0")
        require(
            self.dual_clip is None or self.dual_clip > 1 + self.clip_range,
            f"ppo.dual_clip is {self.dual_clip}; it must be above 1 + clip_range",
        )
        require(
            self.kl_target is not None or self.kl_horizon is None,
            "ppo.kl_horizon says how fast the price follows ppo.kl_target; set that too",
        )
        require(
            self.batch_size % self.minibatches == 0,
            f"ppo.batch_size {self.batch_size} is not a multiple of minibatches {self.minibatches}",
        )

    @property
    def horizon(self) -> int:
        """Responses over which the price of the KL adapts."""
        return 2 * self.batch_size if self.kl_horizon is None else self.kl_horizon


def require_base(given: "SFTConfig | RewardConfig"):
    """An adapter needs a trained model below it."""
    require(
        bool(given.init) or not (given.lora.rank or given.adapter),
        "lora.rank and adapter need a trained model below them; set init",
    )
    unread = changed_fields(given.model, ModelConfig(), "model")
    unread += changed_fields(given.tokenizer, TokenizerConfig(), "tokenizer")
    require(
        not (given.init and unread),
        f"init {given.init} has a model and a vocabulary, which does not go with "
        f"{', '.join(unread)}",
    )


@config
class SFTConfig:
    """Supervised fine-tuning on texts, or on prompts and completions."""

    init: str = ""
    """Run directory of the policy to start from; empty: a new model and a new vocabulary."""
    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for it: merged, or trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    model: ModelConfig = ModelConfig()
    """The new model."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The new vocabulary."""
    data: DataConfig = DataConfig()
    """Rows with `text`, `messages`, or `prompt` and `completion`."""
    labelled: bool = False
    """Rows have a `label` too, and only those with a true one are imitated."""
    length_buckets: int | None = None
    """Batches hold texts of similar length, from so many ranges of lengths; each compiles once.
    None: 3, or no such ranges with `packing`."""
    packing: bool = False
    """Put as many texts in a row as its data.max_length tokens hold, each seeing itself alone: the
    same loss with next to no padding. fit.batch_size then counts such rows."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts texts. Where nothing is given: for a published model, or one of
    10 million parameters, learning_rate 2e-5 (with LoRA 2e-4), cosine, warm-up of 3%, 3 epochs,
    batches of 64, b2 0.999 (Alpaca, QLoRA, TRL); for a small or new one learning_rate 1e-3, cosine,
    20 steps of warm-up, 500 steps, batches of 64, b2 0.99."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""
    seed: int = 0
    """Of initial parameters, order of rows and dropout."""

    def __post_init__(self):
        check_lora(self.lora, self.fit.optimizer)
        require_base(self)
        require(
            not self.packing or self.length_buckets is None,
            f"length_buckets {self.length_buckets} sorts rows of one text each, which packing does "
            "not make; leave one of them out",
        )
        require(
            self.length_buckets is None or self.length_buckets > 0,
            f"length_buckets is {self.length_buckets}; it must be above 0",
        )

    @property
    def buckets(self) -> int:
        """Ranges of lengths that batches come from where rows are not packed."""
        return 3 if self.length_buckets is None else self.length_buckets


@config
class RewardConfig:
    """A reward model from preferences, from rankings or from labelled steps."""

    init: str = ""
    """Run directory of the policy whose trunk and vocabulary it starts from; empty: new ones."""
    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for it: merged, or trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    model: ModelConfig = ModelConfig()
    """The new model."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The new vocabulary."""
    data: DataConfig = DataConfig()
    """Rows with `chosen` and `rejected`, with or without `prompt` and `margin`; with `prompt` and
    `responses`, the best first; or with `prompt`, `completions` (the steps) and `labels`."""
    reward: RewardSettings = RewardSettings()
    """Loss; head and training loop of bradley_terry and plackett_luce."""
    process: ProcessSettings = ProcessSettings()
    """Head and training loop of loss process."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""
    seed: int = 0
    """Of new parameters, order of rows and dropout."""

    def __post_init__(self):
        loss = self.reward.loss
        for field, instead in (("dropout", "its own dropout"), ("value_trunk", "no values")):
            require(
                getattr(self.model, field) == getattr(ModelConfig, field),
                f"a reward model has {instead}; leave model.{field} out",
            )
        fit = self.process.fit if loss == "process" else self.reward.fit
        check_lora(self.lora, fit.optimizer)
        require_base(self)
        require(
            not self.lora.rank or loss == "process" or self.reward.pooling != "none",
            "reward.pooling none reads nothing of the trunk that lora.rank adapts; "
            "set it to last or mean",
        )
        require(
            not self.lora.rank or self.reward.trunk == "trained",
            "reward.trunk frozen trains no adapters; leave out one of it and lora.rank",
        )
        if loss == "process":
            unread = changed_fields(self.reward, RewardSettings(loss=loss), "reward")
        else:
            unread = changed_fields(self.process, ProcessSettings(), "process")
        texts = self.reward.fit.batch_size
        require(
            loss != "bradley_terry" or texts is None or texts % 2 == 0,
            f"reward.fit.batch_size {texts} is odd; a batch counts texts, two a preference",
        )
        section = "process" if loss == "process" else "reward"
        require(
            not unread,
            f"loss {loss} does not read {', '.join(unread)}; its settings are those of {section}",
        )


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
            f"loss {self.dpo.loss_name} reads no reference here whose log-probabilities could be "
            "kept; leave reference_logps out",
        )


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


@config
class TextPPOConfig:
    """PPO of a policy against reward models and functions."""

    policy: str = ""
    """Run directory of the policy to start from; it is the reference too."""
    adapter: str = ""
    """Folder of a LoRA adapter in PEFT's format for it: merged, or trained on if lora.rank > 0."""
    lora: LoraConfig = LoraConfig()
    """Train adapters instead of all parameters."""
    reward: str = ""
    """Run directory of a reward model of the same vocabulary, or FILE.py:NAME, a function that
    gives a score for each sample, def NAME(prompts, responses, **columns); NAME may be left out
    if it is `reward`."""
    rewards: dict[str, float] = dataclasses.field(default_factory=dict)
    """Several of them instead, each with its weight in the sum of scores:
    `runs/reward 1 rewards.py:brevity 0.2`."""
    data: DataConfig = DataConfig()
    """Rows with `prompt`; functions get their other fields too, as columns."""
    ppo: PPOSettings = PPOSettings()
    """Objective and loop."""
    temperature: float = 1.0
    """Of the policy and the reference, in sampling and training alike, > 0."""
    max_new_tokens: int = 32
    """Longest response in tokens."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""
    seed: int = 0
    """Of prompts' order and sampling."""

    def __post_init__(self):
        require_temperature(self.temperature)
        require_one_reward(self.reward, self.rewards)
        require_at_least(1, "", self, "max_new_tokens")
        require_no_held_out(self.data, "ppo")
        check_lora(self.lora, self.ppo.optimizer, sampled=True)


@config
class EvaluateConfig:
    """Perplexity of a policy on texts, accuracy of a policy or reward model on preferences, of a
    reward model on rankings, of a process reward model on steps.
    """

    model: str = ""
    """Run directory of the model."""
    reference: str = ""
    """Run directory of the reference of a policy trained by DPO; empty: plain log-probabilities.
    Their sums over responses are compared, also for a policy whose loss took means over tokens."""
    on: Literal["texts", "preferences", "rankings", "steps"] = "texts"
    """What the rows are: those that `sft` takes, those that `dpo` takes, or those that `reward`
    takes with the losses plackett_luce and process."""
    data: DataConfig = DataConfig()
    """The rows, in `path`."""
    temperature: float = 1.0
    """Logits of a policy are divided by it, > 0; a policy that was trained at one is that one's."""
    output: str = ""
    """File for the measures, as JSON; empty: none."""
    chances: str = ""
    """File for the predicted chance that each step is right, a JSON list for every row of
    `--on steps`; empty: none."""
    place: PlaceConfig = PlaceConfig()
    """Where it computes."""

    def __post_init__(self):
        require_temperature(self.temperature)
        require(
            not self.data.evaluation_path,
            "evaluate reads --data.path; leave --data.evaluation_path empty",
        )
        require(
            not self.reference or self.on == "preferences",
            f"--on {self.on} has no use for a reference; leave --reference out",
        )
        require(
            self.temperature == 1 or self.on in ("texts", "preferences"),
            f"--on {self.on} measures scores, which no temperature divides; leave it out",
        )
        require(
            not self.chances or self.on == "steps",
            f"--on {self.on} predicts no chances of steps; leave --chances out",
        )


@config
class GenerateConfig:
    """Samples of a policy."""

    model: str = ""
    """Run directory of the policy."""
    prompt: str = ""
    """Text that the samples continue; empty: whole texts."""
    chat: bool = False
    """The prompt is a user's message and the samples are answers to it, by the model's chat
    template or else as "User: ... Assistant: ..."."""
    samples: int = 4
    """How many."""
    temperature: float = 1.0
    """Logits are divided by it, > 0; a policy that was trained at one is that one's."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability; 1 keeps all."""
    max_new_tokens: int = 32
    """Longest response in tokens."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self):
        require_temperature(self.temperature)
        require(
            self.prompt.encode(errors="replace").decode() == self.prompt,
            "--prompt is not UTF-8; give a text that is",
        )
        require_at_least(1, "", self, "samples", "max_new_tokens")
        require_at_least(0, "", self, "top_k")


@config
class RatingsConfig:
    """The embedded human ratings as files for the stages: texts, prompts and preferences."""

    pairs: int = 4000
    """Preferences of single people in each part."""
    prompt_words: int = 3
    """Words of a text that become its prompt."""
    seed: int = 0
    """Of the choice of pairs."""
