"""From vectors back to text."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, overload

from prototokens.engine.certify import Certificate, certify
from prototokens.engine.decode import decode_ids
from prototokens.engine.forward import HasVectors
from prototokens.engine.matrix import Tried, rounded_cells
from prototokens.errors import NotExactError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.release import check_usable
from prototokens.ptok.decoded import DecodedText, as_bytes
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.patches import apply_edits, apply_patches
from prototokens.solution import Chunk, Solution


def decode_text(lm: FrozenLM, encoded: EncodedText, any_model: bool = False) -> DecodedText:
    """Decode a file's content and compare it with the hash of the text it was made from.

    Args:
        any_model: decode with a model of other weights all the same; `matches` says whether the
            text came out.

    Raises:
        FileError: made for another model or tokenizer.
    """
    encoded.check_model(lm, any_model)
    began = time.perf_counter()
    decoded, passes = decode_ids(lm, encoded.chunks())
    flat = [token for chunk in apply_patches(decoded, encoded.extras) for token in chunk]
    # All ids at once: a byte-level tokenizer may split a character between two chunks.
    content = as_bytes(lm.detokenize(flat))
    matches = True
    try:
        content = apply_edits(content, encoded.extras.edits)
    except ValueError:  # the vectors gave a shorter text than the edits are for
        matches = False
    seconds = time.perf_counter() - began
    matches = matches and hashlib.sha256(content).hexdigest() == encoded.header.text.sha256
    return DecodedText(content, len(flat), passes, seconds, matches)


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


def verify_text(
    lm: FrozenLM,
    encoded: EncodedText,
    level: str = "strict",
    progress: Callable[[Tried], None] | None = None,
    any_model: bool = False,
    portable: bool = False,
) -> Verified:
    """Decode a file's content in every way of a level, and compare each with the plain way.

    The plain way is compared with the text's hash.

    Positions that patches set right are not looked at: whatever the vectors give there, the text
    does not change.

    Args:
        portable: also decode with the weights rounded to the precisions of GGUF files; a file with
            a certificate of the level `portable` is decoded so in any case.

    Raises:
        FileError: made for another model or tokenizer.
    """
    matches = decode_text(lm, encoded, any_model).matches
    chunks = encoded.chunks()
    ids = decode_ids(lm, chunks).ids
    rows = [
        Chunk.of(chunk.protos, chunk.layout, row) for chunk, row in zip(chunks, ids, strict=True)
    ]
    patched = [sorted(encoded.extras.patches.get(number, ())) for number in encoded.in_vectors()]
    certified = encoded.header.certificate
    portable = portable or (certified is not None and certified.level == "portable")
    further = rounded_cells() if portable and level != "portable" else ()
    return Verified(matches, certify(lm, rows, level, patched, progress, further)[0])


@overload
def decode(lm: FrozenLM, what: Solution | EncodedText, *, any_model: bool = ...) -> str: ...
@overload
def decode(lm: FrozenLM, what: Sequence[Solution], *, any_model: bool = ...) -> list[str]: ...


def decode(lm: Any, what: Any, *, any_model: bool = False) -> str | list[str]:
    """The text that vectors hold, from one forward pass.

    Args:
        lm: the frozen model.
        what: a solution or several (all in one pass, as far as memory allows), or an encoded text.
        any_model: decode vectors that were fitted to other weights all the same.

    Raises:
        NotExactError: an encoded text does not decode to the text it was made from; the error
            carries what it decodes to.
        FileError: an encoded text was made for another model or tokenizer.
        UsageError: a solution was fitted to another model, or vectors are of another width.
        TypeError: an argument is none of these.
    """
    check_usable(lm, "decode")
    if isinstance(what, EncodedText):
        decoded = decode_text(lm, what, any_model)
        if not decoded.matches:
            raise NotExactError(
                "the decoded text differs from the one that was encoded (its SHA-256 does not"
                " match)",
                decoded.text,
            )
        return decoded.text
    if isinstance(what, HasVectors):
        return lm.detokenize(decode_ids(lm, [what], any_model=any_model).ids[0])
    rows = list(what) if isinstance(what, Sequence) and not isinstance(what, str) else None
    if rows is None or not all(isinstance(row, HasVectors) for row in rows):
        raise TypeError(
            "decode() takes a Solution, a list of them, or an EncodedText as what, not"
            f" {type(what).__name__}"
            + ("" if rows is None else f" of {', '.join({type(row).__name__ for row in rows})}")
        )
    return [lm.detokenize(ids) for ids in decode_ids(lm, rows, any_model=any_model).ids]
