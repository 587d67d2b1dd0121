"""Layout on one device: a step is a jitted function."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from jaxalign.layouts.layout import Device, Layout, donated


def on_device(device: Device | None = None) -> Layout:
    """Layout on one device, the first visible one if None: `jit`."""
    device = jax.devices()[0] if device is None else device
    sharding = SingleDeviceSharding(device)

    def compile(fn: Callable[..., Any], returns: str) -> Callable[..., Any]:
        return jax.jit(fn, donate_argnums=donated(returns))

    return Layout(
        name="device",
        devices=(device,),
        axis_name=None,
        shardings=lambda tree: jax.tree.map(lambda leaf: sharding, tree),
        compile=compile,
        put_rows=lambda batch: jax.device_put(batch, sharding),
        take_rows=jax.device_get,
    )
