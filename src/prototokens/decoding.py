"""From vectors back to text."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import NamedTuple, overload

from prototokens.encoded import EncodedText
from prototokens.engine.decode import decode_ids
from prototokens.errors import NotExactError
from prototokens.frozen_lm import FrozenLM
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
