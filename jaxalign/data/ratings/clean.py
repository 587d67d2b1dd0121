"""Repair of encoding errors in the published texts; words and grammar stay as they were."""

import html
import re
import unicodedata

QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "“": '"', "”": '"', "–": "-", "—": "-"})
LOST_DASH = re.compile(r"(?<=\S) {3,}(?=\S)")
LOST_APOSTROPHE = re.compile(r"(?<=[A-Za-z])\?(?=s\b)")


def clean_text(text: str, *, lost_dashes: bool) -> str:
    """Text with entities decoded, quotes and dashes in ASCII, NFC letters and single spaces.

    HTML entities are decoded until nothing changes (`&amp;#38;` is encoded twice); `''` is one
    double quote; `Cube?s` is `Cube's`.

    Args:
      lost_dashes: where the source dropped every dash (the movies do), three or more spaces are
        read as " - ": "a crock    or something like it". Single hyphens ("co writer") are beyond
        repair.
    """
    while (decoded := html.unescape(text)) != text:
        text = decoded
    text = unicodedata.normalize("NFC", text).translate(QUOTES).replace("''", '"')
    text = LOST_APOSTROPHE.sub("'", text)
    if lost_dashes:
        text = LOST_DASH.sub(" - ", text)
    return " ".join(text.split())


def text_key(text: str) -> str:
    """Key of equal texts: letters and digits, regardless of case and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower())) or text
