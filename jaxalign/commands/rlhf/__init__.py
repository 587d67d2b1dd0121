"""`jaxalign rlhf`: the main job."""

from jaxalign.commands.rlhf.job import run

__all__ = ["run"]
