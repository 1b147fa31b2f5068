"""A hook of mkdocs: formulas become MathML while the pages are built.

So no script has to be fetched to show them.
"""

from __future__ import annotations

import re
import unicodedata
from html import unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
VARIANT = re.compile(r'<(m[ion]) mathvariant="(double-struck|script|bold|monospace)">(.*?)</\1>')


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return FORMULA.sub(_formula, html)


def _formula(found: re.Match[str]) -> str:
    if found[2] == "(":
        return _letters(convert(unescape(found[3])))
    return f'<div class="formula">{_letters(convert(unescape(found[3]), display="block"))}</div>'


def _letters(mathml: str) -> str:
    """Letters of a variant as the letters that Unicode has for it.

    Browsers leave `mathvariant` out (MathML Core).
    """

    def written(found: re.Match[str]) -> str:
        letters = (_letter(letter, found[2].upper()) for letter in unescape(found[3]))
        return f"<{found[1]}>{''.join(letters)}</{found[1]}>"

    return VARIANT.sub(written, mathml)


def _letter(letter: str, name: str) -> str:
    """One letter or digit in a variant.

    In the block of mathematical letters, or, older ones, among the letter-like symbols.
    """
    kind = unicodedata.name(letter, "").removeprefix("LATIN ").replace("LETTER ", "")
    for full in (f"MATHEMATICAL {name} {kind}", f"{name} {kind}"):
        try:
            return unicodedata.lookup(full)
        except KeyError:
            continue
    return letter
