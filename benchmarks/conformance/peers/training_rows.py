"""Rows on whole updates by a library's own trainer."""

import numpy as np

from benchmarks.conformance.peers.adapter import Measured, Row
from benchmarks.conformance.peers.measuring import TOLERANCE, distance, short


def accumulation(gradient):
    """Two micro-batches against one batch of the same four rows."""
    off = distance(gradient(2, False), gradient(1, False))
    return Measured(off <= TOLERANCE, f"the gradient changes by {short(off)} of its norm")


def padding(gradient):
    off = distance(gradient(1, True), gradient(1, False))
    return Measured(off <= TOLERANCE, f"the gradient changes by {short(off)} of its norm")


def left_padding(logps):
    off = float(np.abs(np.subtract(logps(5), logps(0))).max())
    return Measured(off <= TOLERANCE, f"log-probabilities change by {short(off)} nats")


WHAT = {
    "sft": "SFT, responses of different lengths",
    "dpo": "DPO",
    "kto": "KTO",
    "reward": "a reward model",
    "grpo": "the default group-relative policy gradient, responses of different lengths",
}
ACCUMULATION = (
    "https://github.com/huggingface/trl/issues/2175",
    "https://github.com/huggingface/transformers/pull/34191",
)

ROWS = (
    *(
        Row(
            f"{name}_accumulation",
            f"The update by {what} from one batch is the same in 1 and in 2 micro-batches.",
            ACCUMULATION,
            f"{name}_gradient",
            accumulation,
        )
        for name, what in WHAT.items()
    ),
    *(
        Row(
            f"{name}_padding",
            f"The update by {what} does not depend on how far the rows are padded.",
            ("https://github.com/huggingface/trl/issues/469",),
            f"{name}_gradient",
            padding,
        )
        for name, what in WHAT.items()
    ),
    Row(
        "left_padding",
        "Log-probabilities of a response do not depend on padding left of the prompt, for a model "
        "with absolute positions.",
        ("https://github.com/huggingface/trl/issues/6800",),
        "left_padded_logps",
        left_padding,
    ),
)
