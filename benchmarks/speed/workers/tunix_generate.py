"""Tunix's sampler at temperature 1."""

import numpy as np
from tunix.generate.sampler import CacheConfig, Sampler

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import rows_of
from benchmarks.speed.workers.arguments import parse
from benchmarks.speed.workers.tunix_models import causal


class Numbers:
    """A tokenizer that reads numbers."""

    def encode(self, text: str, **more) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids, **more) -> str:
        return " ".join(str(i) for i in np.asarray(ids).tolist())

    def bos_id(self) -> int:
        return 1

    def eos_id(self) -> int:
        return 2

    def pad_id(self) -> int:
        return 0


def main() -> None:
    work, size, _ = parse()
    cache = CacheConfig(
        cache_size=work.length,
        num_layers=size.layers,
        num_kv_heads=size.kv_heads,
        head_dim=size.head_width,
    )
    sampler = Sampler(causal(size), Numbers(), cache)
    # the sampler puts a BOS in front
    prompts = [" ".join(map(str, row[: work.prompt - 1])) for row in rows_of(work, size, work.rows)]
    pace, number = Pace(warm_up=2), 0
    while True:
        pace()
        number += 1
        out = sampler(
            prompts,
            max_generation_steps=work.response,
            max_prompt_length=work.prompt,
            temperature=1.0,
            top_p=1.0,
            seed=number,
            eos_tokens=[size.vocabulary],  # never drawn: all have the same length
        )
        assert all(len(tokens) == work.response for tokens in out.tokens)


if __name__ == "__main__":
    main()
