"""What the docstrings of configurations say: of every field, and the example of a class."""

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping


@functools.cache
def field_texts(cls: type) -> Mapping[str, str]:
    """What is said of each field of a configuration, by its docstring or by those of the losses."""
    return dict(_texts(cls))


def _texts(cls: type) -> Iterator[tuple[str, str]]:
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                assert isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant), cls
                yield field.target.id, " ".join(str(text.value.value).split())
    for field in dataclasses.fields(cls):  # pyright: ignore
        if "help" in field.metadata:
            yield field.name, field.metadata["help"]


def sentence_of(cls: type) -> str:
    """The sentence of a class, on one line.

    >>> from jaxalign.config.lora import LoraConfig
    >>> sentence_of(LoraConfig)[:50]
    'LoRA: low-rank adapters in place of full fine-tuni'
    """
    return " ".join((cls.__doc__ or "").partition("\n\n")[0].split())


def example_of(cls: type) -> str:
    """The command in the docstring of a class, behind `Example:`; empty: there is none."""
    return " ".join((cls.__doc__ or "").partition("Example:")[2].split())


def first_sentence(text: str) -> str:
    """The beginning of a text up to its first full stop, or to what it says of None.

    >>> first_sentence("Peak learning rate, >= 0; None follows the model."), first_sentence("A. B.")
    ('Peak learning rate, >= 0', 'A')
    """
    return re.split(r"\.(?: |$)|; None|; empty:", text)[0]
