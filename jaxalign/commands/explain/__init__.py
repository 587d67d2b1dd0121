"""`jaxalign explain`: one batch of a method, token by token, as a page."""

from jaxalign.commands.explain.page import run

__all__ = ["run"]
