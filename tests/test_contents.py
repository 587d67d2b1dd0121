"""`import jaxalign`: its version, and the list of what it offers by theme."""

import re

import jax
import numpy as np
import pytest

import jaxalign
from jaxalign import contents
from jaxalign.contents import HEADINGS, themes
from tests.folders import ROOT


def offered():
    return [getattr(jaxalign, name) for name in jaxalign.__all__]


def test_every_public_name_is_in_the_help_once():
    _, _, listed = jaxalign.__doc__.partition("Supervised")
    names = re.findall(r"^  (.+)$", listed, re.MULTILINE)
    assert sorted(name for line in names for name in line.split(", ")) == sorted(jaxalign.__all__)
    assert max(map(len, jaxalign.__doc__.splitlines())) <= 100


def test_themes_are_those_of_the_declarations():
    found = themes(offered())
    assert list(found) == list(HEADINGS)
    assert (
        "dpo_loss" in found["Paired preferences"]
        and "gae" in found["Advantages and rewards per step"]
    )


def test_a_function_without_a_theme_is_an_error():
    def lost():
        """Of no file that declares a loss."""

    with pytest.raises(LookupError, match="lost has no heading"):
        contents.contents([lost])


def test_the_version_is_that_of_the_package():
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxalign.__version__)
    assert f"version: {jaxalign.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("pair", [jaxalign.PairLogps, jaxalign.PairLengths])
def test_pairs_are_made_by_position_and_by_name(pair):
    chosen, rejected = np.zeros(2), np.ones(2)
    made = pair(chosen, rejected)
    assert made.chosen is chosen and made.rejected is rejected
    by_name = pair(rejected=rejected, chosen=chosen)
    assert jax.tree.structure(made) == jax.tree.structure(by_name)
    with pytest.raises(TypeError, match="rejected"):
        pair(chosen)
