"""Docstrings of the package as Sphinx reads them: formulas as mathematics, sources as fields.

Docstrings are written for the terminal: an indented line is an equation, backticks hold code, and
paragraphs that begin with `When:`, `TRL:` or `Source:` end them.
"""

import itertools
import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from equations import is_mathematics, tex_of

SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:")
FIELDS = {"When": "When to use it", "TRL": "TRL", "Source": "Source"}
NAMED = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")  # a field of a class and what it is
PLAIN = re.compile(
    r"(?<!\S)\*\w+\*|[*|\\]|(?<=\w)_(?!\w)"
)  # what reStructuredText would read as markup


def rewritten(lines: list[str]) -> list[str]:
    """A docstring in reStructuredText, sections left to Napoleon.

    >>> rewritten(["A loss.", "", "  L = -log p", "", "Source: here,", "  and there."])[3:]
    ['.. math:: L=-\\\\log \\\\,p', '', '', ':Source: here, and there.', '']
    """
    done: list[str] = []
    while lines:
        block = _first_block(lines)
        lines = lines[len(block) :]
        label, _, text = block[0].partition(":")
        if block[0].startswith(SECTIONS):
            done += [block[0], *_plain("\n".join(block[1:])).split("\n")]
        elif label in FIELDS:
            text = " ".join(line.strip() for line in [text, *block[1:]])
            done += [f":{FIELDS[label]}: {_plain(text)}", ""]
        elif named := NAMED.match(block[0]):
            text = " ".join(line.strip() for line in [block[0][named.end() :], *block[1:]])
            done += ["", f"* **{_plain(named[1])}**: {_plain(text)}", ""]
        elif block[0].startswith(" "):
            done += _indented(block)
        else:
            done += block if block[0].startswith(">>>") else _plain("\n".join(block)).split("\n")
    return done


def _first_block(lines: list[str]) -> list[str]:
    """A section, a name or a label with all that is indented below it, an indented block, a
    doctest, a paragraph, or a blank line.
    """
    first = lines[0]
    if first.startswith(SECTIONS):
        rest = itertools.takewhile(lambda line: not line or line.startswith(" "), lines[1:])
    elif first.startswith(" ") or first.partition(":")[0] in FIELDS or NAMED.match(first):
        rest = itertools.takewhile(lambda line: line.startswith(" "), lines[1:])
    elif first.startswith(">>>"):
        rest = itertools.takewhile(bool, lines[1:])
    elif first:
        rest = itertools.takewhile(lambda line: line and not line.startswith(" "), lines[1:])
    else:
        rest = ()
    return [first, *rest]


def _indented(block: list[str]) -> list[str]:
    """An equation a line, or the lines as they stand."""
    if is_mathematics(block):
        return ["", *(text for line in block for text in (f".. math:: {tex_of(line)}", ""))]
    return ["", "::", "", *(f"   {line}" for line in block), ""]


def _plain(text: str) -> str:
    """Prose: its code in double backticks, the rest without markup.

    >>> _plain("`|x|` is |x|")
    '``|x|`` is \\\\|x\\\\|'
    """
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(
        f"``{part.strip('`')}``" if part.startswith("`") else PLAIN.sub(_escaped, part)
        for part in parts
    )


def _escaped(match: re.Match[str]) -> str:
    """A backslash before a mark; *emphasis* stays."""
    return match[0] if len(match[0]) > 1 else f"\\{match[0]}"


def process(app, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """What Sphinx calls with the lines of every docstring, to be changed in place."""
    lines[:] = rewritten(lines)


def visit_inline(translator, node: nodes.Node) -> None:
    """A formula in a line of text."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_display(translator, node: nodes.Node) -> None:
    """A formula on a line of its own."""
    formula = tex2mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def setup(app) -> dict[str, bool]:
    """Formulas are MathML: browsers set them without a script or a font from elsewhere."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
