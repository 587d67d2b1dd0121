"""Regular expressions of strangers, matched in bounded time.

`re` tries one way after another, and `((a+)+)+!` has exponentially many. Here a part of an
expression maps the set of places where it may begin to the set of places where it may end, so no
place is looked at twice for the same reason. Known are characters, classes, groups, alternatives,
repetitions, `^`, `$`, `\\b` and looking ahead; what needs memory (back references), looks behind or
sets flags is refused.

Source: Thompson 1968, https://doi.org/10.1145/363347.363387, by sets of places instead of states.
"""

import re
import warnings
from collections.abc import Callable, Iterable

from jaxalign.errors import UserError
from jaxalign.files import shown

LONGEST = 1000  # characters of an expression
STEPS = 500_000  # parts of all expressions that are read and matched: a second or two
PLAIN = re.compile(r"\^?(?:[\w.-]|\\[.-])*\$?")  # names: nothing that could be tried twice
TOKEN = re.compile(
    r"\\[bdDwWsS]|\\[^a-zA-Z0-9]|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[:=!]?|[*+?]\??|"
    r"\{\d{1,4}(?:,\d{0,4})?\}\??|[^\\\[]",
    re.DOTALL,
)
Ends = Callable[[frozenset[int]], frozenset[int]]


class Patterns:
    """Expressions, of which the first that matches a whole text is asked for.

    >>> Patterns(["k_proj", "(q|v)_proj"], "adapter_config.json").first("v_proj")
    '(q|v)_proj'
    """

    def __init__(self, patterns: Iterable[str], where: str, *, before: str = ""):
        """where: whose they are, for messages; before: an expression that stands before each."""
        self.where, self.steps = where, 0
        self.patterns = {x: f"{before}({x})" if before else x for x in patterns}
        self.plain = {x: re.compile(self.patterns[x]) for x in patterns if PLAIN.fullmatch(x)}

    def first(self, text: str) -> str | None:
        """The first that matches; None: none does.

        Raises:
          UserError: one is no expression, uses what is not known here, or all take too long.
        """
        for pattern in self.patterns:
            if pattern in self.plain:
                found = self.plain[pattern].fullmatch(text) is not None
            else:
                found = len(text) in _Matcher(self, pattern, text).ends()
            if found:
                return pattern
        return None

    def spend(self, steps: int, pattern: str) -> None:
        """Counts what was done; it has an end."""
        self.steps += steps
        if self.steps > STEPS:
            raise UserError(f"{self.where}: matching {shown(pattern)} takes too long; {HINT}")


HINT = "plain names and simple expressions are read"


class _Matcher:
    """An expression and the text that it is held against."""

    def __init__(self, patterns: Patterns, pattern: str, text: str):
        self.name = f"{patterns.where}: the pattern {shown(pattern)}"
        if len(pattern) > LONGEST:
            self.refuse(f"has more than {LONGEST} characters")
        whole = patterns.patterns[pattern]
        found = TOKEN.findall(whole)
        if "".join(found) != whole:
            self.refuse("is no regular expression that is read here")
        self.spend, self.text = lambda: patterns.spend(1, pattern), text
        patterns.spend(len(found), pattern)
        self.tokens = found[::-1]

    def ends(self) -> frozenset[int]:
        """Where a match that begins with the text may end."""
        try:
            whole = self.alternatives()
            if self.tokens:
                self.refuse(f"has a {self.tokens[-1]} too many")
            return whole(frozenset([0]))
        except RecursionError:
            self.refuse("is nested too deeply")

    def refuse(self, why: str):
        """Raise the error."""
        raise UserError(f"{self.name} {why}; {HINT}")

    def next_is(self, *tokens: str) -> bool:
        """Whether the next token is one of these."""
        return bool(self.tokens) and self.tokens[-1] in tokens

    def alternatives(self) -> Ends:
        """`a|b`: wherever one of them ends."""
        options = [self.sequence()]
        while self.next_is("|"):
            self.tokens.pop()
            options.append(self.sequence())
        return lambda starts: frozenset().union(*(option(starts) for option in options))

    def sequence(self) -> Ends:
        """`ab`: one begins where the other ends."""
        parts = []
        while self.tokens and not self.next_is("|", ")"):
            parts.append(self.repeated(self.atom()))

        def ends(starts: frozenset[int]) -> frozenset[int]:
            for part in parts:
                starts = self.counted(part, starts)
            return starts

        return ends

    def atom(self) -> Ends:
        """One character, or a group."""
        token = self.tokens.pop()
        if token in ("(", "(?:", "(?=", "(?!"):
            return self.group(token)
        if token == "(?":
            self.refuse("has a group of a kind that is not known here")
        if token in ("^", "$", r"\b"):
            places = frozenset(x.start() for x in re.finditer(token, self.text))
            return lambda starts: starts & places
        if (token[0] in "*+?{" and len(token) <= 2) or token.startswith("{"):
            self.refuse(f"repeats nothing with {token}")
        try:
            with warnings.catch_warnings(action="ignore"):  # classes that may once mean more
                one = re.compile(token, re.DOTALL if token != "." else re.NOFLAG)
        except re.error as error:
            self.refuse(f"is no regular expression ({error})")
        fits = frozenset(i for i, x in enumerate(self.text) if one.fullmatch(x))
        return lambda starts: frozenset(i + 1 for i in starts & fits)

    def group(self, token: str) -> Ends:
        """`(a)`, or what must follow and is not taken, `(?=a)`, or must not, `(?!a)`."""
        inner = self.alternatives()
        if not self.next_is(")"):
            self.refuse("has a group without an end")
        self.tokens.pop()
        if token in ("(", "(?:"):
            return inner
        wanted = token == "(?="

        def ends(starts: frozenset[int]) -> frozenset[int]:
            return frozenset(
                i for i in starts if bool(self.counted(inner, frozenset([i]))) == wanted
            )

        return ends

    def repeated(self, part: Ends) -> Ends:
        """`a*`, `a+`, `a?`, `a{2,3}`: how greedily makes no difference to whether it matches."""
        if not self.tokens or self.tokens[-1][0] not in "*+?{":
            return part
        least, most = self.bounds(self.tokens.pop())
        if self.tokens and self.tokens[-1][0] in "*+?{":
            self.refuse("repeats a repetition")

        def ends(starts: frozenset[int]) -> frozenset[int]:
            for _ in range(least):
                starts = self.counted(part, starts)
            found, latest, count = starts, starts, least
            while latest and (most is None or count < most):
                latest = self.counted(part, latest) - found
                found, count = found | latest, count + 1
            return found

        return ends

    def bounds(self, token: str) -> tuple[int, int | None]:
        """The least and the largest number of repetitions; None: any."""
        if token[0] != "{":
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[token[0]]
        least, comma, most = token.strip("{}?").partition(",")
        upper = int(most) if most else None if comma else int(least)
        if not least or (upper is not None and upper < int(least)):
            self.refuse(f"repeats with {token}")
        return int(least), upper

    def counted(self, part: Ends, starts: frozenset[int]) -> frozenset[int]:
        """One step, of which there are not too many."""
        self.spend()
        return part(starts)
