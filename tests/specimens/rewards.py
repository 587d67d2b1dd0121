"""Likelihoods of tokens, comparisons, rankings and steps."""

import numpy as np
from tests.specimens.specimen import ROWS, Specimen, by_entries, by_lists, by_rows

import jaxalign
from tests.oracles import plackett_luce, preferences, process_reward
from tests.specimens import draws


def bradley_terry(differences, *, margins=0.0):
    margins = np.broadcast_to(margins, np.shape(differences))
    return by_entries(preferences.bradley_terry_loss)(differences, margins)


def ranking(rng):
    return {"scores": rng.normal(0.0, 2.0, (ROWS, draws.TOKENS)), "mask": draws.mask(rng)}


def extreme_ranking(rng):
    return {"scores": 1e4 * ranking(rng)["scores"], "mask": draws.mask(rng)}


def steps(rng):
    """Labels hard and soft."""
    labels = rng.random((ROWS, draws.TOKENS))
    labels[:, :2] = 0.0, 1.0
    return {"logits": rng.normal(0.0, 2.0, labels.shape), "labels": labels}


def ranked_row(scores, mask):
    return plackett_luce.plackett_luce_loss(
        [s for s, real in zip(scores, mask, strict=True) if real]
    )


SPECIMENS = (
    Specimen(
        function=jaxalign.cross_entropy_loss,
        draw=lambda rng: {"token_logps": draws.tokens(rng)},
        extremes=lambda rng: {"token_logps": draws.tokens(rng, 1e4)},
        oracle=by_entries(lambda logp: -logp),
        trained=("token_logps",),
    ),
    Specimen(
        function=jaxalign.bradley_terry_loss,
        draw=lambda rng: {"differences": rng.normal(0.0, 3.0, ROWS)},
        extremes=lambda rng: {"differences": np.array([1e4, -1e4, 0.0, 1.0])},
        oracle=bradley_terry,
        settings=({}, {"margins": np.array([0.5, -1.0, 0.0, 2.0])}, {"margins": 0.7}),
        trained=("differences",),
    ),
    Specimen(
        function=jaxalign.centering_penalty,
        draw=lambda rng: {"chosen": rng.normal(size=ROWS), "rejected": rng.normal(size=ROWS)},
        extremes=lambda rng: {"chosen": draws.sums(rng, 1e4), "rejected": draws.sums(rng, 1e4)},
        oracle=by_rows(preferences.centering_penalty),
        trained=("chosen", "rejected"),
    ),
    Specimen(
        function=jaxalign.plackett_luce_loss,
        draw=ranking,
        extremes=extreme_ranking,
        oracle=by_lists(ranked_row),
        trained=("scores",),
        masked=("scores",),
    ),
    Specimen(
        function=jaxalign.process_reward_loss,
        draw=steps,
        extremes=lambda rng: steps(rng) | {"logits": 1e4 * steps(rng)["logits"]},
        oracle=by_entries(process_reward.process_reward_loss),
        trained=("logits",),
    ),
)
