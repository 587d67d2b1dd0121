"""The configuration of `jaxalign generate`."""

from jaxalign.config.checks import config, require
from jaxalign.config.ranges import Seed, ShareAboveZero, Size, Temperature, TopK


@config
class GenerateConfig:
    """Samples of a policy: number, prompt, and settings of sampling.

    Example: jaxalign generate --model runs/dpo --prompt "Why is the sky blue?" --chat True
    """

    model: str = ""
    """Policy: a run directory, a Hugging Face folder or hub id, a .gguf file, or smollm2."""
    prompt: str = ""
    """Text that the samples continue; empty: whole texts."""
    chat: bool = False
    """The prompt is a user's message and the samples are answers to it, by the model's chat
    template or else as "User: ... Assistant: ..."."""
    samples: Size = 4
    """How many."""
    temperature: Temperature = 1.0
    """Logits are divided by it, > 0; a policy that was trained at one is that one's."""
    top_k: TopK = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: ShareAboveZero = 1.0
    """Keep the likeliest tokens that together reach this probability, in (0, 1]; 1 keeps all."""
    max_new_tokens: Size = 32
    """Longest response in tokens."""
    seed: Seed = 0
    """Of the samples."""

    def __post_init__(self):
        require(
            self.prompt.encode(errors="replace").decode() == self.prompt,
            "--prompt is not UTF-8; give a text that is",
        )
