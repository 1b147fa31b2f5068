"""Words of messages for people."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 chunk`, `2 chunks`, `1 pass`, `1,000 passes`.

    Args:
        plural: of the noun, where it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
