"""The input of an encoding, of any kind.

Bytes, as a text that a tokenizer takes, and the edits that lead back.

Most texts need no edits. They are needed where bytes are no UTF-8 (the model is not given those),
for lone surrogates, and where a tokenizer changes a text (white space at its ends, composed
letters).
"""

from __future__ import annotations

from typing import NamedTuple

from prototokens.errors import TextError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.decoded import as_bytes
from prototokens.ptok.patches import MAX_UNPACKED, Edit, edits_between, edits_size

# Where more of the input's bytes stand in the edits, the model is given one token alone, unless all
# of it is few tokens.
NEARLY_ALL, FEW_TOKENS = 0.9, 8


class Source(NamedTuple):
    """Input bytes as token ids and edits.

    Attributes:
        content: the bytes themselves; of a text, its UTF-8.
        text: what a tokenizer is given for them.
        ids: what it gives for that.
        edits: that turn the UTF-8 of the ids' text into `content`.
    """

    content: bytes
    text: str
    ids: list[int]
    edits: list[Edit]

    @property
    def edited(self) -> int:
        """Bytes that stand in the edits and not in the ids."""
        return sum(len(edit.insert) for edit in self.edits)


def read_source(lm: FrozenLM, text: str | bytes) -> Source:
    """Read text or bytes of any kind as token ids and edits.

    Raises:
        TextError: nothing is given, the tokenizer gives no token for it, or too much of it would be
            edits.
    """
    content = as_bytes(text)
    if not content:
        raise TextError("the text is empty: there is nothing to encode")
    # What is no text is left out, and not given as U+FFFD: models have hardly ever seen that, and
    # vectors do not hold it.
    readable = content.decode("utf-8", "ignore") or content.decode("utf-8", "replace")
    ids = lm.tokenize(readable)
    if not ids:
        raise TextError(
            f"the tokenizer of {lm.name!r} gives no token for this text: use a model with a"
            " byte-level tokenizer"
        )
    source = Source(content, readable, ids, _edits(lm, ids, content))
    if len(ids) > FEW_TOKENS and source.edited > NEARLY_ALL * len(content):
        # Vectors for the tokens between the edits would give next to nothing of the input.
        first = ids[:1]
        source = Source(content, lm.detokenize(first), first, _edits(lm, first, content))
    if edits_size(source.edits) > MAX_UNPACKED // 2:  # the rest is for what vectors will not hold
        raise TextError(
            f"{source.edited:,} of {len(content):,} bytes are no UTF-8 text, or are changed by this"
            " tokenizer: stored as they"
            f" are, they would take more than {MAX_UNPACKED // 2:,} bytes; encode it in parts"
        )
    return source


def _edits(lm: FrozenLM, ids: list[int], content: bytes) -> list[Edit]:
    """What turns the text of these ids into the content."""
    back = as_bytes(lm.detokenize(ids))
    return [] if back == content else edits_between(back, content)
