"""A hook of mkdocs: formulas become MathML while the pages are built, so that no script has to be fetched to show them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return FORMULA.sub(_formula, html)


def _formula(found: re.Match[str]) -> str:
    if found[2] == "(":
        return convert(unescape(found[3]))
    return f'<div class="formula">{convert(unescape(found[3]), display="block")}</div>'
