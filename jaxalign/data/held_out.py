"""A share of the rows held out for evaluation, by their prompts and a seed."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from jaxalign.data.records import Record
from jaxalign.errors import UserError


def held_out_rows(records: Sequence[Record], *, share: float, seed: int) -> np.ndarray:
    """`[N]` bool, true for the rows held out: all rows of a prompt, or none.

    The prompts are put in an order that only they and the seed decide, whatever the order of the
    rows, and the first are held out: as many as come closest to the share of the rows.

    Args:
      records: the rows; one without a prompt (a plain text, or messages of the system alone)
        stands for itself.
      share: of the rows, in (0, 1).
      seed: of the order of the prompts.

    Raises:
      UserError: one side has no row.
    """
    marks = [_mark(record, seed) for record in records]
    ordered, row_prompts, counts = np.unique(marks, return_inverse=True, return_counts=True)
    rows = np.concatenate([[0], np.cumsum(counts)])
    prompts = int(np.argmin(np.abs(rows - share * len(records))))
    if not 0 < prompts < len(ordered):
        side = "training" if prompts else "evaluation"
        raise UserError(
            f"--data.evaluation_share {share:g} of {len(records):,} rows with {len(ordered):,} "
            f"different prompts leaves none for {side}; give another share, or "
            "--data.evaluation_path"
        )
    return row_prompts < prompts


def _mark(record: Record, seed: int) -> bytes:
    """Random number of a row's prompt, of 128 bits."""
    fields = vars(record)
    own = fields["prompt"] if _asks(fields["prompt"]) else fields
    content = json.dumps([seed, own], sort_keys=True, default=repr)
    return hashlib.sha256(content.encode()).hexdigest()[:32].encode()


def _asks(prompt: object) -> bool:
    """Whether a prompt says more than a system message, which all rows may share."""
    if isinstance(prompt, list):
        return any(message["role"] not in ("system", "developer") for message in prompt)
    return bool(prompt)
