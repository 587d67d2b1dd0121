"""Examples of what `jaxalign/losses/process_reward.py` offers."""

import jaxalign
from tests.cases import draws
from tests.cases.case import ROWS, Case, by_entries
from tests.oracles import process_reward


def steps(rng):
    """Labels hard and soft."""
    labels = rng.random((ROWS, draws.TOKENS))
    labels[:, :2] = 0.0, 1.0
    return {"logits": rng.normal(0.0, 2.0, labels.shape), "labels": labels}


CASES = (
    Case(
        function=jaxalign.process_reward_loss,
        draw=steps,
        extremes=lambda rng: steps(rng) | {"logits": 1e4 * steps(rng)["logits"]},
        oracle=by_entries(process_reward.process_reward_loss),
        trained=("logits",),
    ),
)
