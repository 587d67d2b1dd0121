"""The persistent cache of compiled programs: what a second, changed run finds in it."""

import collections
import dataclasses

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxalign.config.dpo import DPOSettings
from jaxalign.config.loop import FitConfig, OptimizerConfig
from jaxalign.config.place import PlaceConfig
from jaxalign.config.sft import SFTConfig
from jaxalign.recipes.preferences import train_dpo
from jaxalign.recipes.run import open_run
from tests.recipes.test_scoring import random_rows
from tests.tiny_models import tiny_policy

PLACE = PlaceConfig(layout="device")
OPTIONS = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture
def events(tmp_path):
    """Counts of the cache's events, in a folder of its own."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    seen = collections.Counter()

    def count(event: str, **_) -> None:
        seen[event.rpartition("/")[2]] += 1

    for name, value in (OPTIONS | {"jax_compilation_cache_dir": str(tmp_path / "cache")}).items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    jax.monitoring.register_event_listener(count)
    yield seen
    jax.monitoring.unregister_event_listener(count)
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_another_rate_and_number_of_steps_compile_nothing(tmp_path, events):
    """Rate, warm-up and number of steps are arguments of the step; every other program is the same
    as long as the pairs are."""
    rows = random_rows(12)
    pairs = list(zip(rows[:6], rows[6:], strict=True))
    policy = tiny_policy(64)

    def trained(name, rate, steps, warmup):
        optimizer = OptimizerConfig(learning_rate=rate, schedule="linear", warmup_steps=warmup)
        fit = FitConfig(steps=steps, batch_size=4, optimizer=optimizer)
        settings = DPOSettings(fit=dataclasses.replace(fit, log_every=1))
        jax.clear_caches()
        events.clear()
        with open_run(tmp_path / name, SFTConfig(place=PLACE), PLACE, 0, inputs={}) as run:
            train_dpo(run, "dpo", policy, pairs, settings=settings, temperature=1.0)
        return events["cache_misses"]

    assert trained("first", 1e-3, 3, 1) > 3
    assert trained("second", 2e-4, 5, 2) == 0
