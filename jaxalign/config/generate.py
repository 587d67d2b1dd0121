"""The configuration of `jaxalign generate`."""

from jaxalign.config.checks import config, require, require_at_least, require_temperature


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
