"""Errors that a user can cause: one clear line, shown without a traceback."""

import unicodedata

LONGEST = 2000  # characters of an error
ALLOWED = "\n\t\u200c\u200d"  # the last two join letters of Persian, Hindi, emoji


class UserError(ValueError):
    """A mistake of the user, in one line: the value given, the values allowed, the remedy."""


class StepRefused(UserError):
    """A training step that failed and left its state unchanged: the loop saves that state."""


class CannotGoOn(UserError):
    """A run that is to go on with something else than it began with; a new run may.

    field: the setting, or the input, that differs.
    """

    def __init__(self, message: str, *, field: str):
        super().__init__(message)
        self.field = field


def one_line(error: object) -> str:
    """Message of an error on one line, control characters escaped; without one, its class name.

    >>> one_line(f"a{chr(27)}[2J{chr(10)}  b") == f"a{chr(92)}x1b[2J; b"
    True
    """
    message = str(error) or (type(error).__name__ if isinstance(error, Exception) else "")
    lines = (" ".join(line.split()) for line in message.splitlines())
    text = printable("; ".join(line for line in lines if line))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


def printable(text: str) -> str:
    """The text with control characters escaped, except line ends and tabs.

    >>> printable(f"{chr(27)}[2J") == f"{chr(92)}x1b[2J"
    True
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in ALLOWED or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )
