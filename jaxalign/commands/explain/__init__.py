"""`jaxalign explain`: the loss of one batch, token by token, as an HTML page."""

from jaxalign.commands.explain.page import run

__all__ = ["run"]
