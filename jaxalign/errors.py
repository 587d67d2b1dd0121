"""Errors that a user can cause: one clear line, shown without a traceback."""

import unicodedata

LONGEST = 2000  # characters of an error
KEPT = "\n\t\u200c\u200d"  # the last two join letters of Persian, Hindi, emoji


class UserError(ValueError):
    """Says what was given, what was wanted and what to do."""


class StepRefused(UserError):
    """A step that could not be made and left its state as it was: the loop saves that state."""


def one_line(error: object) -> str:
    """What an error says, on one line: what a terminal would obey is spelled out. One that says
    nothing is named by its kind.

    >>> one_line(f"a{chr(27)}[2J{chr(10)}  b") == f"a{chr(92)}x1b[2J; b"
    True
    """
    said = str(error) or (type(error).__name__ if isinstance(error, Exception) else "")
    lines = (" ".join(line.split()) for line in said.splitlines())
    text = printable("; ".join(line for line in lines if line))
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


def printable(text: str) -> str:
    """A text that a terminal shows and does not obey: lines and tabs stay, other control
    characters are spelled out.

    >>> printable(f"{chr(27)}[2J") == f"{chr(92)}x1b[2J"
    True
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in KEPT or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )
