"""Regular expressions from files of strangers, matched in linear time by RE2.

`re` tries one way after another, and `((a+)+)+!` has exponentially many. What RE2 does not have,
looking ahead and back references, is refused by name.
"""

from collections.abc import Iterable
from typing import Any

import re2

from jaxalign.errors import UserError
from jaxalign.system.files import quote

LONGEST = 1000  # characters of an expression
MOST = 5000  # expressions; a model of 100 layers has 700 matrices
MEMORY = 2**23  # bytes of one that is compiled


class Patterns:
    """Compiled expressions, of which `first` finds the first that matches a whole text.

    >>> Patterns(["k_proj", "(q|v)_proj"], "adapter_config.json").first("v_proj")
    '(q|v)_proj'
    """

    def __init__(self, patterns: Iterable[str], where: str, *, before: str = "") -> None:
        """Compile the expressions.

        Args:
          patterns: in the syntax of `re`.
          where: name of their file and field, for messages.
          before: expression that is prepended to each.

        Raises:
          UserError: one is no expression, too long, or of a kind that takes more than linear time,
            or there are too many.
        """
        patterns = list(patterns)
        if len(patterns) > MOST:
            raise UserError(f"{where} has {len(patterns):,} patterns; at most {MOST:,} are read")
        self.compiled = {x: _compile(f"{before}({x})", x, where) for x in patterns}

    def first(self, text: str) -> str | None:
        """First expression that matches the whole text; None: none does."""
        return next(
            (x for x, expression in self.compiled.items() if expression.fullmatch(text)), None
        )


def _compile(whole: str, pattern: str, where: str) -> Any:
    """Compiled expression `whole`, of which `pattern` comes from a file."""
    prefix = f"{where}: the pattern {quote(pattern)}"
    if len(pattern) > LONGEST:
        raise UserError(f"{prefix} has more than {LONGEST} characters; write a shorter one")
    options = re2.Options()
    options.log_errors, options.max_mem = False, MEMORY
    try:
        re2.compile(pattern, options)  # by itself: its brackets must close within it
        return re2.compile(whole, options)
    except (re2.error, ValueError) as error:
        why = error.args[0] if error.args else error
        message = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise UserError(
            f"{prefix} is not read ({message[:200]}); plain names and expressions that RE2 knows "
            "are"
        ) from None
