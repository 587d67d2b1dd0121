"""Scoring of rows: the same numbers in any company, few programs, one place for parameters."""

import jax
import numpy as np

from jaxalign.config.place import PlaceConfig
from jaxalign.config.sft import SFTConfig
from jaxalign.data.batching import token_batch
from jaxalign.data.chat import token_row
from jaxalign.models.functions import response_logps_of
from jaxalign.recipes.preferences import pair_logps
from jaxalign.recipes.run import open_run
from jaxalign.recipes.scoring import response_logps
from tests.tiny_models import tiny_policy


def random_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, (count, 2))
    return [
        token_row((rng.integers(3, 200, p), False), (rng.integers(3, 200, r), True))
        for p, r in sizes
    ]


def test_rows_get_the_numbers_that_they_have_alone_in_programs_that_recur(tmp_path):
    """Each row by itself; then policy and reference, both sides at once: nothing is compiled for
    the second of them."""
    policy, rows = tiny_policy(64), random_rows(11)
    alone = jax.jit(response_logps_of(policy.model))
    expected = [alone(policy.params, token_batch([row], pad_id=0, length=64))[0] for row in rows]
    place = PlaceConfig(layout="device")
    with open_run(tmp_path, SFTConfig(place=place), place, 0, inputs={}) as run:
        found = response_logps(run, policy, rows)
        np.testing.assert_allclose(found, expected, rtol=2e-5)

        def score(texts, temperature):
            return response_logps(run, policy, texts, temperature=temperature)

        sides = rows[:5], rows[5:10]
        first = pair_logps(score, sides, ld_alpha=None, temperature=1.0)
        np.testing.assert_allclose(first.chosen, found[:5], rtol=2e-5)
        np.testing.assert_allclose(first.rejected, found[5:10], rtol=2e-5)
        programs = _programs(lambda: pair_logps(score, sides, ld_alpha=None, temperature=1.0))
        assert programs == 0


def _programs(call) -> int:
    """Number of programs that a call compiles."""
    seen = []

    def count(event: str, duration_secs: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(count)
    call()
    jax.monitoring.unregister_event_duration_listener(count)
    return len(seen)
