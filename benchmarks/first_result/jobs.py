"""The jobs of the race: what people run all day, one declaration each.

Read by every side, so it needs the standard library alone.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A training job that every side does on the same rows.

    method: command of jaxalign; a peer that has none of that name leaves the job out.
    rows, held_out: rows to train on and to evaluate on; pairs for dpo and reward, prompts for grpo.
    steps: updates, or rounds of sampling and learning.
    batch: rows of an update.
    expected: seconds that a side takes on two quiet cores, to tell how long the race will be.
    """

    method: str
    rows: int = 0
    held_out: int = 0
    steps: int = 0
    batch: int = 0
    expected: dict[str, float]


LEARNING_RATE = 1e-4
OTHER_RATE = 5e-5  # of the pass that changes nothing else
RANK, ALPHA = 8, 16.0  # LoRA of all dense layers
GROUP, NEW_TOKENS = 4, 48  # of GRPO
SHORTEST, LONGEST = 40, 140  # tokens of a row

JOBS = {
    "dpo": Job(
        method="dpo", rows=40, held_out=11, steps=12, batch=2,
        expected={"jaxalign": 80, "TRL": 80, "Tunix": 200},
    ),
    "dpo_large": Job(
        method="dpo", rows=240, held_out=40, steps=24, batch=2,
        expected={"jaxalign": 200, "TRL": 150, "Tunix": 300},
    ),
    "sft": Job(
        method="sft", rows=40, held_out=11, steps=12, batch=2,
        expected={"jaxalign": 60, "TRL": 30, "Tunix": 100},
    ),
    "reward": Job(
        method="reward", rows=40, held_out=11, steps=12, batch=2,
        expected={"jaxalign": 60, "TRL": 40},
    ),
    "kto": Job(
        method="kto", rows=40, held_out=11, steps=12, batch=2,
        expected={"jaxalign": 80, "TRL": 70},
    ),
    "grpo": Job(
        method="grpo", rows=24, steps=6, batch=4,
        expected={"jaxalign": 150, "TRL": 200},
    ),
    "default": Job(method="rlhf", expected={"jaxalign": 260}),
}  # fmt: skip
