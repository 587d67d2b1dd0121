"""The configuration of `jaxalign sft`."""

from jaxalign.config.checks import config, require
from jaxalign.config.data import DataConfig
from jaxalign.config.loop import FitConfig
from jaxalign.config.lora import check_lora
from jaxalign.config.ranges import Size
from jaxalign.config.training import NewModelFields

MOST_BUCKETS = 3
TEXTS_OF_A_BUCKET = 100  # with fewer, a range saves less padding than its program takes to compile


@config
class SFTConfig(NewModelFields):
    """Supervised fine-tuning on texts, or on prompts and completions.

    Example: jaxalign sft --init smollm2 --data.path chats.jsonl --lora.rank 8
    """

    data: DataConfig = DataConfig()
    """Rows with `text`, `messages`, or `prompt` and `completion`."""
    labelled: bool = False
    """Rows have a `label` too, and only those with a true one are imitated."""
    length_buckets: Size | None = None
    """Batches hold texts of similar length, from so many ranges of lengths; each compiles once.
    None: one for every 100 texts and at most 3, or none with `packing`."""
    packing: bool = False
    """Put as many texts in a row as its data.max_length tokens hold, each reading itself alone: the
    same loss with next to no padding. fit.batch_size then counts such rows."""
    fit: FitConfig = FitConfig()
    """Training loop; a batch counts texts. Where nothing is given: for a published model, or one of
    10 million parameters, learning_rate 2e-5 (with LoRA 2e-4), cosine, warm-up of 3%, 3 epochs,
    batches of 64, b2 0.999 (Alpaca, QLoRA, TRL); for a small or new one learning_rate 1e-3, cosine,
    20 steps of warm-up, 500 steps, batches of 64, b2 0.99."""

    def __post_init__(self):
        super().__post_init__()
        require(
            bool(self.init) or not self.data.streaming,
            "without --init a tokenizer is learned from the rows, in memory; leave data.streaming "
            "out, or give --init",
        )
        check_lora(self.lora, self.fit.optimizer)
        require(
            not self.packing or self.length_buckets is None,
            f"length_buckets {self.length_buckets} sorts rows of one text each, which packing does "
            "not make; leave one of them out",
        )

    def buckets(self, texts: int) -> int:
        """Ranges of lengths that batches of so many texts come from where they are not packed."""
        few = min(MOST_BUCKETS, max(1, texts // TEXTS_OF_A_BUCKET))
        return few if self.length_buckets is None else self.length_buckets
