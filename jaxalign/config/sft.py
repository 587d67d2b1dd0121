"""The configuration of `jaxalign sft`."""

from jaxalign.config.checks import config, require
from jaxalign.config.data import DataConfig, PlaceConfig
from jaxalign.config.loop import FitConfig
from jaxalign.config.model import LoraConfig, ModelConfig, TokenizerConfig, check_lora, require_base


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
        require_base(self.init, self.adapter, self.lora, self.model, self.tokenizer)
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
