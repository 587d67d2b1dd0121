"""Errors that a user can cause: one clear line, shown without a traceback."""


class UserError(ValueError):
    """Says what was given, what was wanted and what to do."""


class StepRefused(UserError):
    """A step that could not be made and left its state as it was: the loop saves that state."""
