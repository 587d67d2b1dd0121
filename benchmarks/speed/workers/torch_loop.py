"""DPO by hand in torch, as an honest limit: fused AdamW, logits on responses only, no reference.

The reference's log-probabilities are data, as they are for us.
"""

import torch
import torch.nn.functional as F

from benchmarks.speed.pace import Pace
from benchmarks.speed.work import Size, Work, rows_of
from benchmarks.speed.workers.arguments import parse
from benchmarks.speed.workers.torch_models import causal


def response_logps(model, tokens, prompt: int):
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, prompt - 1 : -1])
    return -F.cross_entropy(
        logits.flatten(0, 1), tokens[:, prompt:].flatten(), reduction="none"
    ).view(len(tokens), -1).sum(1)  # fmt: skip


def main() -> None:
    work, size, flags = parse("--compile")
    run(work, size, compiled=flags.compile)


def run(work: Work, size: Size, *, compiled: bool) -> None:
    model = causal(size, work.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    logps = torch.compile(response_logps) if compiled else response_logps
    sides = [rows_of(work, size, 16 * work.rows, seed) for seed in (0, 1)]
    pairs = [[a, a[: work.prompt] + b[work.prompt :]] for a, b in zip(*sides, strict=True)]
    reference, number, pace = torch.zeros(2 * work.rows), 0, Pace(warm_up=3)
    while True:
        pace()
        start = number * work.rows % len(pairs)
        number += 1
        batch = pairs[start : start + work.rows]
        tokens = torch.tensor([p[0] for p in batch] + [p[1] for p in batch])
        ratios = logps(model, tokens, work.prompt) - reference
        chosen, rejected = ratios.chunk(2)
        loss = -F.logsigmoid(0.1 * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
