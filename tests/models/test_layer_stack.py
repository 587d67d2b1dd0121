"""A loop over the layers of a transformer: the numbers of unrolled ones."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxalign.models.layer_stack import can_be_stacked, stacked, unstacked
from jaxalign.models.lora import ADAPTERS, Adapted, new_adapters
from jaxalign.models.transformer import Transformer
from tests.tiny_models import GEMMA, LLAMA, random_parameters

LAYERS = 4
TOKENS = np.arange(24, dtype=np.int32).reshape(3, 8) % LLAMA.vocab_size
MASK = np.arange(8) >= np.array([[0], [3], [1]])


def transformer(**changes) -> Transformer:
    changes |= {"layers": LAYERS}
    if changes.get("windows"):
        changes["windows"] = tuple(changes["windows"]) * (LAYERS // 2)
    return Transformer(dataclasses.replace(LLAMA, **changes))


def looped(model):
    """The model with a loop over a stack of its layers."""
    return model.clone(config=dataclasses.replace(model.config, scan_layers=True))


def hidden_and_gradient(model, params, keys=None):
    def total(params):
        outputs = model.apply({"params": params}, TOKENS, MASK, keys=keys)
        return (outputs.logits * MASK[..., None]).mean(), outputs.logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    return logits * MASK[..., None], gradient


@pytest.mark.parametrize("changes", [{}, GEMMA, {"dropout": 0.3}], ids=["plain", "gemma", "drop"])
def test_a_loop_gives_the_numbers_and_gradients_of_unrolled_layers(changes):
    model = transformer(**changes)
    params = random_parameters(model)
    keys = jax.random.split(jax.random.key(1), 3) if "dropout" in changes else None
    expected = hidden_and_gradient(model, params, keys)
    logits, gradient = hidden_and_gradient(looped(model), stacked(params, LAYERS), keys)
    found = logits, unstacked(gradient, LAYERS)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), found, expected
    )


def test_adapters_are_stacked_with_the_layers_that_they_adapt():
    model = transformer()
    params = random_parameters(model)
    new = new_adapters(params, model.config, [".*attention/.*"], rank=2, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), new)
    adapted = Adapted(transformer=model, scale=0.5, dropout=0.2)
    keys = jax.random.split(jax.random.key(1), 3)
    expected = hidden_and_gradient(adapted, {**params, ADAPTERS: adapters}, keys)
    whole = stacked({**params, ADAPTERS: adapters}, LAYERS)
    assert all("stack" in tree and "layers_0" not in tree
               for tree in (whole["trunk"], whole[ADAPTERS]["trunk"]))  # fmt: skip
    found = hidden_and_gradient(looped(adapted), whole, keys)
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-4, atol=2e-5)
    gradients = unstacked(found[1], LAYERS)[ADAPTERS], expected[1][ADAPTERS]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *gradients)


def test_layers_that_differ_are_not_stacked():
    params = random_parameters(transformer())
    assert can_be_stacked(params, LAYERS)
    one = {"trunk": {"layers_1": params["trunk"]["layers_1"]}}
    assert not can_be_stacked(params | {ADAPTERS: one}, LAYERS)
    assert not can_be_stacked({"trunk": params["trunk"] | {"layers_0": {}}}, LAYERS)
