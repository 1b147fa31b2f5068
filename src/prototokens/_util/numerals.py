"""Whole numbers that a user, or a file, writes as text."""

from __future__ import annotations

# the longest that is read: nothing here counts further, and Python refuses to read thousands of
# digits
DIGITS = 9


def whole_number(text: str) -> int | None:
    """The number that the text is; None where it is none, or has more than nine digits."""
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None
