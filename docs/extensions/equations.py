"""Equations of docstrings, written in ASCII for the terminal, as TeX for the page.

    L = -log sigmoid(beta (h_chosen - h_rejected)),  h = log(pi / pi_ref)

Commas and semicolons followed by two spaces part equations; what no symbol is known for is a word
and stays one.
"""

import re
from dataclasses import dataclass

TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z]+(?:_[A-Za-z]+)*\d?'*~?)"
    r"|(?P<code>`[^`]*`)"
    r"|(?P<operator><=|>=|!=|->|[-+*/=<>~])"
    r"|(?P<script>[_^])"
    r"|(?P<mark>[()\[\]{}|,;:.'])"
)
PARTS = re.compile(r"(?<=[,;])\s{2,}|\s{2,}")
GREEK = {"alpha", "beta", "gamma", "delta", "lambda", "phi", "pi", "rho", "sigma", "tau", "theta"}
SIGNS = {"<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "~": r"\sim ", "->": r"\to ", "*": r"\cdot "}
LARGE = {"sum": r"\sum", "prod": r"\prod"}
PLAIN = {"log", "exp", "max", "min", "sin", "cos"}  # operators that TeX knows
OPERATORS = {
    *("sigmoid", "clip", "mean", "std", "var", "softmax", "sqrt", "sg", "whiten", "argmax", "odds"),
    *("KL", "ESS", "quantile"),
}
KNOWN = {"E": r"\mathbb{E}", "P": r"\mathbb{P}", "kl": r"\mathrm{kl}", "in": r"\in "}


@dataclass(frozen=True)
class Atom:
    """A piece of TeX.

    kind: word, large (a sum), operator, symbol, group (in brackets), sign, mark or space.
    """

    tex: str
    kind: str


def is_mathematics(lines: list[str]) -> bool:
    """Whether an indented block is a formula: no table, no code, no sentence.

    >>> is_mathematics(["L = max(0, 1 - u)"]), is_mathematics(["V(t')          inside an episode"])
    (True, False)
    >>> is_mathematics(["jaxalign dpo --policy runs/sft"])
    False
    """
    text = " ".join(lines)
    table = any(re.search(r"[^\s=]\s{5,}(?!=)[^=]*$", line.strip()) for line in lines)
    sentence = not re.search(r" [=~] ", text) and re.search(r"^([a-z]{2,} ){3}| --\w", text)
    try:
        return not table and not sentence and bool([tex_of(line) for line in lines])
    except ValueError:
        return False


def tex_of(line: str) -> str:
    r"""The TeX of a line of equations.

    >>> tex_of("h = log(pi / pi_ref)")
    'h=\\log \\frac{\\pi }{\\pi _{\\text{ref}}}'
    >>> tex_of("m_it [H_it >= 1]")
    'm_{it}[H_{it}\\ge 1]'
    """
    line = re.sub(r"\s+=", " =", line.strip())
    return r"\qquad ".join(_row(_tokens(piece)) for piece in PARTS.split(line) if piece)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{text!r}: no symbol is known for {text[position]!r}")
        found.append((str(match.lastgroup), match[0]))
        position = match.end()
    return found


def _row(tokens: list[tuple[str, str]]) -> str:
    """The TeX of tokens: scripts joined to what they belong to, fractions made, words spaced."""
    return _spaced(_fractions(_phrases(_atoms(list(tokens)))))


def _atoms(tokens: list[tuple[str, str]]) -> list[Atom]:
    atoms: list[Atom] = []
    while tokens:
        kind, text = tokens.pop(0)
        if kind == "script":
            last = atoms.pop()
            script = _script(tokens)
            base = rf"\left({last.tex}\right)" if _is_fraction(last.tex) else last.tex
            atoms.append(Atom(f"{base}{text}{{{script}}}", last.kind))
        elif text in "([|" and kind == "mark" and (inner := _inside(text, tokens)) is not None:
            atoms.append(Atom(_bracketed(text, _row(inner), atoms[-1:]), "group"))
        elif text == "|":
            atoms.append(Atom(r"\mid ", "sign"))
        elif kind == "space":
            atoms.append(Atom("", "space"))
        elif kind == "operator":
            atoms.append(Atom(SIGNS.get(text, text), "sign"))
        elif kind == "name":
            atoms.append(_name(text))
        elif kind == "code":
            atoms.append(_word(text.strip("`")))
        else:
            atoms.append(Atom(text, "mark" if kind == "mark" else "symbol"))
    return atoms


def _bracketed(opening: str, row: str, before: list[Atom]) -> str:
    """A row in its brackets, as tall as it is; none around a fraction that stands alone."""
    if opening == "|":
        return rf"\lvert {row}\rvert "
    alone = not before or before[0].kind in ("space", "sign") or before[0].tex == r"\log "
    if opening == "(" and alone and _is_fraction(row):
        return row
    tall = r"\frac" in row
    left, right = "()" if opening == "(" else "[]"
    return rf"\left{left}{row}\right{right}" if tall else f"{left}{row}{right}"


def _is_fraction(row: str) -> bool:
    """Whether a row is one fraction and nothing else.

    >>> _is_fraction(r"\\frac{1}{n}"), _is_fraction(r"\\frac{1}{n}-1")
    (True, False)
    """
    ends, depth = [], 0
    for place, letter in enumerate(row):
        depth += (letter == "{") - (letter == "}")
        if letter == "}" and depth == 0:
            ends.append(place)
    return row.startswith(r"\frac{") and len(ends) == 2 and ends[1] == len(row) - 1


def _phrases(atoms: list[Atom]) -> list[Atom]:
    """Words that follow each other as one piece of text."""
    done: list[Atom] = []
    for atom in atoms:
        words = [a.kind for a in done[-2:]] == ["word", "space"] and atom.kind == "word"
        if words and done[-2].tex.endswith("}") and done[-2].tex.startswith(r"\text{"):
            done[-2:] = [Atom(done[-2].tex[:-1] + " " + atom.tex.removeprefix(r"\text{"), "word")]
        else:
            done.append(atom)
    return done


def _inside(opening: str, tokens: list[tuple[str, str]]) -> list[tuple[str, str]] | None:
    """What stands up to the closing bracket, taken off; None if the bar is a condition's."""
    closing = {"(": ")", "[": "]", "{": "}", "|": "|"}[opening]
    if opening == "|" and (not tokens or tokens[0][0] == "space"):
        return None
    depth = 0
    for number, (_, text) in enumerate(tokens):
        if depth == 0 and text == closing:
            inner = tokens[:number]
            del tokens[: number + 1]
            return inner
        depth += (text in "([{") - (text in ")]}")
    raise ValueError(f"{opening!r} is not closed")


def _script(tokens: list[tuple[str, str]]) -> str:
    """The index or exponent after `_` or `^`, taken off."""
    kind, text = tokens.pop(0)
    if text == "{":
        return _row(_inside("{", tokens) or [])
    if text == "(":
        return f"({_row(_inside('(', tokens) or [])})"
    if kind == "operator":
        return text + _script(tokens)
    if kind == "name" and "_" in text:  # G^n_t: the index of the base, not of the exponent
        text, _, index = text.partition("_")
        tokens[:0] = [("script", "_"), ("name", index)]
    return text if kind == "number" else _index(text)


def _name(text: str) -> Atom:
    """A symbol with its index, an operator, or a word."""
    stem, primes = text.rstrip("~").rstrip("'"), "'" * text.count("'")
    base, _, index = stem.partition("_")
    digit = re.fullmatch(r"([A-Za-z]+)(\d)", base)
    if digit and _symbol(digit[1]):
        base, index = digit[1], digit[2]
    tex, kind = _symbol(base), _kind(base)
    if "_" in index or index in ("coef", "size") or not (tex or 0 < len(index) <= 2):
        return _word(stem, primes)
    tex, kind = (tex, kind) if tex else (rf"\text{{{base}}}", "word")
    tex = rf"\tilde{{{tex}}}" if text.endswith("~") else tex
    return Atom(tex + primes + (f"_{{{_index(index)}}}" if index else ""), kind)


def _word(text: str, primes: str = "") -> Atom:
    return Atom(rf"\text{{{text}}}{primes}", "word")


def _symbol(base: str) -> str:
    """The TeX of a name without index, empty for a word."""
    if base in GREEK:
        return f"\\{base} "
    if base in PLAIN:
        return f"\\{base} "
    if base in OPERATORS:
        return rf"\operatorname{{{base}}}"
    return LARGE.get(base, KNOWN.get(base, base if len(base) == 1 else ""))


def _kind(base: str) -> str:
    if base in LARGE:
        return "large"
    return "operator" if base in PLAIN | OPERATORS else "sign" if base == "in" else "symbol"


def _index(index: str) -> str:
    if index in GREEK:
        return f"\\{index} "
    return index if len(index.rstrip("'")) <= 2 else rf"\text{{{index}}}"


def _fractions(atoms: list[Atom]) -> list[Atom]:
    """`a / b` as a fraction where both stand alone; products and calls keep their stroke."""
    done: list[Atom] = []
    while atoms:
        atom = atoms.pop(0)
        space = Atom("", "space")
        spaced = [a.kind for a in done[-1:]] == ["space"] and atoms[:1] == [space]
        if atom.tex != "/" or not spaced:
            done.append(atom)
            continue
        upper = done[-2:-1]
        lower = atoms[1] if len(atoms) > 1 else space
        before = next((a.kind for a in reversed(done[:-2]) if a.kind != "space"), "mark")
        after = next((a.kind for a in atoms[2:] if a.kind != "space"), "mark")
        good = {"symbol", "group", "word"}
        alone = {before, after} <= {"sign", "mark"}
        if upper and alone and upper[0].kind in good and lower.kind in good:
            del done[-2:], atoms[:2]
            done.append(Atom(rf"\frac{{{_bare(upper[0].tex)}}}{{{_bare(lower.tex)}}}", "group"))
        else:
            done.append(atom)
    return done


def _bare(tex: str) -> str:
    """A group without the brackets that the line of a fraction makes superfluous."""
    inner = tex[1:-1]
    whole = tex.startswith("(") and tex.endswith(")") and not _unbalanced(inner)
    return inner if whole else tex


def _unbalanced(text: str) -> bool:
    depth = 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return True
    return depth != 0


def _spaced(atoms: list[Atom]) -> str:
    """The row in one string, with a space on either side of words where no sign stands."""
    tex = ""
    for before, atom, after in zip([None, *atoms], atoms, [*atoms[1:], None], strict=False):
        kinds = {piece.kind for piece in (before, after) if piece}
        if atom.kind != "space":
            tex += atom.tex
        elif not kinds & {"sign", "mark"} and before and after:
            tex += r"\ " if "word" in kinds else r"\," if "operator" in kinds else ""
    return tex
