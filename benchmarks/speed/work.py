"""What is timed: shapes of models, and units of work. Imported by every worker, so no libraries."""

import dataclasses
import random


@dataclasses.dataclass(frozen=True)
class Size:
    """A Llama with random weights and tied embeddings."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp_width: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def block_parameters(self) -> int:
        """Matrices of all blocks, embeddings left out."""
        attention = self.width * (2 * self.width + 2 * self.kv_heads * self.head_width)
        return self.layers * (attention + 3 * self.width * self.mlp_width)


@dataclasses.dataclass(frozen=True)
class Work:
    """A unit: `rows` prompts of `prompt` tokens with responses of `response` tokens."""

    kind: str
    rows: int
    prompt: int
    response: int

    @property
    def tokens(self) -> int:
        """What the unit is counted in: tokens read and trained on, or tokens drawn."""
        sides = 2 if self.kind == "dpo" else 1
        per_row = self.response if self.kind in ("generate", "ppo", "grpo") else self.length
        return sides * self.rows * per_row

    @property
    def length(self) -> int:
        return self.prompt + self.response

    def flops(self, size: Size) -> float:
        """Nominal floating-point operations of the unit, whoever does it in fewer.

        Every row by itself, causal attention, logits of the response; a training pass is three
        forward passes. PPO samples, asks policy, reference and reward, and passes EPOCHS times,
        with a value network beside the policy; GRPO samples and passes once.
        """
        blocks = 2 * size.block_parameters * self.length
        trunk = blocks + 2 * size.layers * size.width * self.length**2
        forward = trunk + 2 * size.vocabulary * size.width * self.response
        passes = {"dpo": 6, "sft": 3, "generate": 1, "ppo": 4 + 3 * EPOCHS, "grpo": 4}
        values = 1 + 3 * EPOCHS if self.kind == "ppo" else 0
        return self.rows * (passes[self.kind] * forward + values * trunk)


SIZES = {
    "small": Size(4096, 256, 4, 4, 4, 1024),
    "135m": Size(49152, 576, 30, 9, 3, 1536),
}
WORKS = {
    "dpo": Work("dpo", 4, 64, 192),
    "dpo_long_prompts": Work("dpo", 4, 192, 64),
    "sft": Work("sft", 8, 64, 192),
    "generate_16": Work("generate", 16, 16, 48),
    "generate_32": Work("generate", 32, 16, 48),
    "ppo": Work("ppo", 16, 16, 48),
    "grpo": Work("grpo", 16, 16, 48),
}
# Micro-batches of a DPO step: activations that fit the cache.
PARTS = {SIZES["small"]: 2, SIZES["135m"]: 2}
EPOCHS = 4  # of PPO, one minibatch each
GROUP = 8  # responses to a prompt of GRPO
SIDE, PRODUCTS = 2048, 5  # of the square matrices whose product says what the machine can do
FIRST_ID = 3  # below: padding, BOS, EOS


def rows_of(work: Work, size: Size, count: int, seed: int = 0) -> list[list[int]]:
    """`count` random sequences of prompt and response."""
    draw = random.Random(seed)
    return [[draw.randrange(FIRST_ID, size.vocabulary) for _ in range(work.length)]
            for _ in range(count)]  # fmt: skip
