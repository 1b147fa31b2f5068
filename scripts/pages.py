"""Tables that scripts write into pages of docs/, each between two marks of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def put_between(page: Path, parts: Mapping[tuple[str, str], str]) -> None:
    """Write Markdown between marks, in place of what stands there.

    Args:
        parts: what is written, by the mark before it and the mark behind it; the page has each once.
    """
    text = page.read_text(encoding="utf-8")
    for (begin, end), made in parts.items():
        before, rest = text.split(begin)
        text = "\n".join([before + begin, "", made, "", end + rest.split(end)[1]])
    page.write_text(text, encoding="utf-8")
