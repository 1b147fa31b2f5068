"""From vectors back to text."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from jaxtyping import Float32
from torch import Tensor

from prototokens.encoded import EncodedText
from prototokens.engine.certify import Certificate, certify
from prototokens.engine.decode import decode_ids
from prototokens.engine.matrix import Tried
from prototokens.errors import NotExactError
from prototokens.frozen_lm import FrozenLM
from prototokens.layout import Layout
from prototokens.solution import Solution


class DecodedText(NamedTuple):
    """A decoded file and what it took.

    Attributes:
        text: what the vectors decode to.
        tokens: their number; `forward_passes`: passes through the model, each chunk in exactly one; `seconds`: wall clock.
        matches: whether it is the text that was encoded, by its SHA-256.
    """

    text: str
    tokens: int
    forward_passes: int
    seconds: float
    matches: bool


def decode_text(lm: FrozenLM, encoded: EncodedText) -> DecodedText:
    """Decode a file's content and compare it with the hash of the text it was made from.

    Raises:
        FileError: made for another model or tokenizer.
    """
    encoded.check_model(lm)
    began = time.perf_counter()
    ids, passes = decode_ids(lm, encoded.chunks())
    flat = [token for chunk in ids for token in chunk]
    # All ids at once: a byte-level tokenizer may split a character between two chunks.
    text = lm.decode(flat)
    seconds = time.perf_counter() - began
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return DecodedText(text, len(flat), passes, seconds, digest == encoded.header["text"]["sha256"])


class Verified(NamedTuple):
    """What decoding in many ways gave.

    Attributes:
        matches: whether the plain way gives the text that was encoded, by its SHA-256.
        certificate: what was tried, and how it came out.
    """

    matches: bool
    certificate: Certificate

    @property
    def passed(self) -> bool:
        """Whether all is right."""
        return self.matches and self.certificate.passed


@dataclass(frozen=True)
class _Row:
    protos: Float32[Tensor, "vectors d_model"]
    layout: Layout
    ids: tuple[int, ...]


def verify_text(
    lm: FrozenLM, encoded: EncodedText, level: str = "strict", progress: Callable[[Tried], None] | None = None
) -> Verified:
    """Decode a file's content in every way of a level, and compare each with the plain way, and that with the text's hash.

    Raises:
        FileError: made for another model or tokenizer.
    """
    matches = decode_text(lm, encoded).matches
    chunks = encoded.chunks()
    ids = decode_ids(lm, chunks).ids
    rows = [_Row(chunk.protos, chunk.layout, tuple(row)) for chunk, row in zip(chunks, ids, strict=True)]
    return Verified(matches, certify(lm, rows, level, progress=progress)[0])


@overload
def decode(lm: FrozenLM, what: Solution | EncodedText) -> str: ...
@overload
def decode(lm: FrozenLM, what: Sequence[Solution]) -> list[str]: ...


def decode(lm: FrozenLM, what: Solution | EncodedText | Sequence[Solution]) -> str | list[str]:
    """The text that vectors hold, from one forward pass.

    Args:
        what: a solution or several (all in one pass, as far as memory allows), or an encoded text.

    Raises:
        NotExactError: an encoded text does not decode to the text it was made from; the error carries what it decodes to.
        FileError: an encoded text was made for another model or tokenizer.
    """
    if isinstance(what, EncodedText):
        decoded = decode_text(lm, what)
        if not decoded.matches:
            raise NotExactError(
                "the decoded text differs from the one that was encoded (its SHA-256 does not match)", decoded.text
            )
        return decoded.text
    if isinstance(what, Solution):
        return lm.decode(decode_ids(lm, [what]).ids[0])
    return [lm.decode(ids) for ids in decode_ids(lm, list(what)).ids]
