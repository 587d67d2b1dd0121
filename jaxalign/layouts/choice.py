"""Choice of a layout by its name."""

import jax

from jaxalign.errors import UserError
from jaxalign.layouts.device import on_device
from jaxalign.layouts.layout import LAYOUTS, Layout
from jaxalign.layouts.mesh import on_mesh
from jaxalign.layouts.pmap import on_pmap, on_shards


def make_layout(name: str = "auto", *, devices: int | None = None) -> Layout:
    """Layout of that name.

    Args:
      name: "device", "pmap", "shards", "mesh"; "auto" is "device" on one device and "pmap" on
        several.
      devices: how many of the visible devices to use; None is all ("device" uses one).

    Raises:
      UserError: unknown name, or more devices than there are.
    """
    if name not in LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; use one of {', '.join(LAYOUTS)}")
    visible = jax.devices()
    count = len(visible) if devices is None else devices
    if not 1 <= count <= len(visible):
        raise UserError(f"{count} devices wanted, {len(visible)} visible; lower `devices`")
    if name == "device" or (name == "auto" and count == 1):
        return on_device(visible[0])
    makers = {"auto": on_pmap, "pmap": on_pmap, "shards": on_shards, "mesh": on_mesh}
    return makers[name](visible[:count])
