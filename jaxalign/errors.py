"""Errors that a user can cause: one clear line, shown without a traceback."""


class UserError(ValueError):
    """Says what was given, what was wanted and what to do."""
