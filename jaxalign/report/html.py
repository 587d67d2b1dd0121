"""HTML elements, with all text escaped that is not markup already."""

import html

from jaxalign.errors import printable


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def text(child: object) -> str:
    """HTML of a child: markup as it is, anything else escaped and without control characters.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return str(child) if isinstance(child, Markup) else html.escape(printable(str(child)))


def join(*children: object) -> Markup:
    """Children one after another; None is nothing."""
    return Markup("".join(text(child) for child in children if child is not None))


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; `class_` is class, an attribute that is None is left out.

    >>> tag("p", "1 < 2 ", tag("b", "&"), class_="x")
    '<p class="x">1 &lt; 2 <b>&amp;</b></p>'
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{named}>{join(*children)}</{name}>")
