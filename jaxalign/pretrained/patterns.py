"""Regular expressions of strangers, matched in linear time by RE2.

`re` tries one way after another, and `((a+)+)+!` has exponentially many. What RE2 does not have,
looking ahead and back references, is refused by name.
"""

from collections.abc import Iterable

import re2

from jaxalign.errors import UserError
from jaxalign.system.files import shown

LONGEST = 1000  # characters of an expression
MOST = 5000  # expressions; a model of 100 layers has 700 matrices
MEMORY = 2**23  # bytes of one that is compiled


class Patterns:
    """Expressions, of which the first that matches a whole text is asked for.

    >>> Patterns(["k_proj", "(q|v)_proj"], "adapter_config.json").first("v_proj")
    '(q|v)_proj'
    """

    def __init__(self, patterns: Iterable[str], where: str, *, before: str = ""):
        """Compile them.

        Args:
          patterns: as `re` writes them.
          where: whose they are, for messages.
          before: an expression that stands before each.

        Raises:
          UserError: one is no expression, too long, or of a kind that takes more than linear time;
            or they are too many.
        """
        patterns = list(patterns)
        if len(patterns) > MOST:
            raise UserError(f"{where} has {len(patterns):,} patterns; at most {MOST:,} are read")
        self.compiled = {x: _compiled(f"{before}({x})", x, where) for x in patterns}

    def first(self, text: str) -> str | None:
        """The first that matches; None: none does."""
        return next((x for x, found in self.compiled.items() if found.fullmatch(text)), None)


def _compiled(whole: str, pattern: str, where: str):
    named = f"{where}: the pattern {shown(pattern)}"
    if len(pattern) > LONGEST:
        raise UserError(f"{named} has more than {LONGEST} characters; write a shorter one")
    options = re2.Options()
    options.log_errors, options.max_mem = False, MEMORY
    try:
        re2.compile(pattern, options)  # by itself: its brackets must close within it
        return re2.compile(whole, options)
    except (re2.error, ValueError) as error:
        why = error.args[0] if error.args else error
        said = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise UserError(
            f"{named} is not read ({said[:200]}); plain names and expressions that RE2 knows are"
        ) from None
