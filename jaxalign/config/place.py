"""The devices that a run computes on."""

from typing import Literal

from jaxalign.config.checks import config
from jaxalign.config.ranges import Size


@config
class PlaceConfig:
    """Devices of a run and how its work is divided among them."""

    layout: Literal["auto", "device", "pmap", "shards", "mesh"] = "auto"
    """device: one. pmap, shards (shard_map): data parallel, the whole state on every device. mesh:
    the state is divided among them too. auto: pmap as soon as there are several."""
    devices: Size | None = None
    """How many of the visible devices; None: all."""
