"""The model as the steps of a training loop compute it: with a loop over layers in a short run.

A loop compiles in a fraction of the time, and each step takes a little longer, for it copies the
weights of every layer out of a stack.
"""

import dataclasses

import jax
import numpy as np

from jaxalign.layouts.layout import Layout
from jaxalign.models.layer_stack import can_be_stacked, stacked
from jaxalign.models.trunk import DEEP
from jaxalign.recipes.text_models import TextModel

# Of SmolLM2-135M on two cores: a layer of a step compiles in 0.5 s, and a step takes 0.1 to 0.2 s
# longer, in which the weights of all layers are copied in the forward and the backward pass.
SECONDS_OF_A_LAYER = 0.5
WEIGHTS_PER_SECOND = 0.7e9


def step_model(policy: TextModel, layout: Layout, updates: int) -> TextModel:
    """The model itself, or the same one with a loop over its layers where that is quicker: on one
    processor, in a run that is too short to earn what unrolled layers take to compile.

    Its parameters are those of the model, with the layers stacked.

    Args:
      policy: with unrolled layers, or scanned ones, which stay as they are.
      layout: where steps run.
      updates: gradient steps of the run.
    """
    config = policy.model.config
    alone = len(layout.devices) == 1 and layout.devices[0].platform == "cpu"
    if not alone or config.layers < DEEP or config.scan_layers:
        return policy
    trunk = policy.params["trunk"]
    weights = sum(int(np.size(leaf)) for leaf in jax.tree.leaves(trunk))
    if updates * weights / WEIGHTS_PER_SECOND > SECONDS_OF_A_LAYER * config.layers:
        return policy
    if not can_be_stacked(policy.params, config.layers):
        return policy
    looped = policy.model.clone(config=dataclasses.replace(config, scan_layers=True))
    return dataclasses.replace(policy, model=looped, params=stacked(policy.params, config.layers))


def stacked_layers(policy: TextModel, computed: TextModel) -> int | None:
    """Number of layers that `step_model` has stacked of a policy; None: it has not."""
    return None if computed is policy else policy.model.config.layers
