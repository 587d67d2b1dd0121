"""`generate()` of transformers, sampling at temperature 1."""

import torch

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import rows_of
from benchmarks.speed.workers.arguments import parse
from benchmarks.speed.workers.torch_models import causal


def main() -> None:
    work, size, _ = parse()
    model = causal(size, work.length).eval()
    prompts = torch.tensor([row[: work.prompt] for row in rows_of(work, size, work.rows)])
    pace = Pace(warm_up=2)
    while True:
        pace()
        drawn = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            top_k=0,
            max_new_tokens=work.response,
            min_new_tokens=work.response,
        )
        assert drawn.shape[1] == work.length


if __name__ == "__main__":
    main()
