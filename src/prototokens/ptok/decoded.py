"""A decoded text and what it took, and texts as bytes."""

from __future__ import annotations

from typing import NamedTuple


class DecodedText(NamedTuple):
    """A decoded file and what it took.

    Attributes:
        content: the bytes that come out: vectors, patches and edits together.
        tokens: their number; `forward_passes`: passes through the model, each chunk in exactly one;
            `seconds`: wall clock.
        matches: whether it is the text that was encoded, by its SHA-256.
    """

    content: bytes
    tokens: int
    forward_passes: int
    seconds: float
    matches: bool

    @property
    def text(self) -> str:
        """The bytes as text; those that are no UTF-8 as U+FFFD."""
        return as_text(self.content)


def as_bytes(text: str | bytes) -> bytes:
    """The bytes of a text: its UTF-8, lone surrogates as three bytes each."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def as_text(content: bytes) -> str:
    """The text of bytes: lone surrogates as themselves; other bytes that are no UTF-8 as U+FFFD."""
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return content.decode("utf-8", "replace")
