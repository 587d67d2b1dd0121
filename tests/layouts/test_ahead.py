"""Programs that are compiled while other work goes on."""

import time

import jax
import numpy as np
import pytest

from jaxalign.layouts.choice import make_layout
from jaxalign.system.compile_time import compile_time

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def scaled(shared, batch):
    """Something of its own in each test, so that no earlier one has compiled it."""
    return batch * shared["weight"] + jax.random.normal(shared["key"], batch.shape)


def shared():
    key = jax.device_put(jax.random.key(1), jax.devices()[0])
    return {"weight": np.float32(2.0), "key": key}


def test_what_was_compiled_ahead_is_what_a_call_uses():
    expected = make_layout("device", devices=1).rows(lambda *of: scaled(*of))(shared(), ROWS)
    program = make_layout("device", devices=1).rows(lambda *of: scaled(*of))
    with compile_time() as before:
        program.ahead(shared(), ROWS)
        (thread,) = program.begun
        thread.join()
    assert before.programs == 1
    with compile_time() as after:
        found = program(shared(), ROWS)
    assert after.programs == 0 and not program.begun
    np.testing.assert_array_equal(found, expected)


def test_a_call_waits_for_what_is_compiled():
    begun = []

    def slow(shared, batch):
        begun.append(1)
        time.sleep(0.2)
        return scaled(shared, batch)

    program = make_layout("device", devices=1).rows(slow)
    program.ahead(shared(), ROWS)
    assert program(shared(), ROWS).shape == ROWS.shape and begun == [1]


def test_a_step_that_uses_its_state_up_is_compiled_ahead_too():
    layout = make_layout("device", devices=1)
    step = layout.step(lambda state, batch, axis_name: ({"sum": state["sum"] + batch.sum()}, {}))
    state = {"sum": np.zeros((), np.float32)}
    step.ahead(state, ROWS)
    placed = layout.place(state)
    step.begun[0].join()
    with compile_time() as after:
        found, _ = step(placed, ROWS)
    assert after.programs == 0 and float(found["sum"]) == 15.0


def test_what_fails_ahead_fails_in_the_call():
    program = make_layout("device", devices=1).rows(lambda shared, batch: batch @ batch)
    program.ahead({}, ROWS)
    program.begun[0].join()
    with pytest.raises(TypeError, match="dot_general"):
        program({}, ROWS)


def test_on_several_devices_nothing_is_begun():
    program = make_layout("mesh", devices=2).rows(scaled)
    program.ahead(shared(), ROWS)
    assert not program.begun
