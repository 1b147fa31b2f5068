"""Patches, stored chunks and edits: they make a file lossless where vectors are not.

Patches, chunks stored as tokens, and edits of the bytes.

Three lists of small integers, packed into one stretch of bytes with DEFLATE (zlib):

- a patch is a position of a chunk and the token that belongs there, whatever the vectors give;
- a chunk that vectors do not hold is stored as its tokens;
- edits turn the bytes of the decoded text into the bytes that were given: for input that is no
  UTF-8, for lone surrogates, and for tokenizers that change a text.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prototokens.errors import UsageError

# A stretch of so many equal bytes ends an edit; it is searched for this far on either side.
ANCHOR = 6
REACH = 48
MAX_NUMBER_BYTES = 5  # bytes of a number: seven bits each
MAX_UNPACKED = (
    1 << 21
)  # bytes, whatever a file says: of about a million tokens, and read in a second


class Edit(NamedTuple):
    """An edit: after `keep` bytes that stay, `drop` bytes are removed and `insert` is added."""

    keep: int
    drop: int
    insert: bytes


@dataclass(frozen=True)
class Extras:
    """What a file stores beside vectors.

    Attributes:
        patches: chunk -> position -> token.
        stored: chunk -> all of its tokens.
        edits: of the decoded text's bytes, in order.
    """

    patches: dict[int, dict[int, int]] = field(default_factory=dict)
    stored: dict[int, list[int]] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.patches or self.stored or self.edits)

    def tokens(self) -> Iterator[int]:
        """All tokens in patches and stored chunks."""
        for patch in self.patches.values():
            yield from patch.values()
        for ids in self.stored.values():
            yield from ids

    @property
    def patched(self) -> int:
        """Number of tokens that patches set."""
        return sum(map(len, self.patches.values()))


def apply_patches(decoded: Sequence[list[int]], extras: Extras) -> list[list[int]]:
    """The ids of all chunks, with patches and stored chunks applied.

    Args:
        decoded: of the chunks that vectors hold, in order: those that are stored are not among
            them.
    """
    waiting, whole = iter(decoded), []
    for number in range(len(decoded) + len(extras.stored)):
        if number in extras.stored:
            whole.append(extras.stored[number])
        else:
            patch = extras.patches.get(number, {})
            whole.append(
                [patch.get(position, token) for position, token in enumerate(next(waiting))]
            )
    return whole


def patch_size(patch: dict[int, int]) -> int:
    """Bytes of a chunk's patch before packing; to compare with `token_size`."""
    return len(_patch_bytes(patch))


def token_size(ids: Sequence[int]) -> int:
    """Bytes of a chunk's tokens before packing."""
    return sum(len(_number(token)) for token in ids)


def edits_size(edits: Sequence[Edit]) -> int:
    """Bytes of edits before packing."""
    return sum(len(_edit_bytes(edit)) for edit in edits)


def pack(extras: Extras, chunks: int) -> bytes:
    """Patches, stored chunks and edits as packed bytes.

    `chunks` is the number of chunks of the file.

    Raises:
        UsageError: more than a reader takes.
    """
    raw = bytearray()
    for number in range(chunks):
        if number in extras.stored:
            raw += b"".join(map(_number, extras.stored[number]))
        else:
            raw += _patch_bytes(extras.patches.get(number, {}))
    raw += b"".join(map(_edit_bytes, extras.edits))
    if len(raw) > MAX_UNPACKED:
        raise UsageError(
            f"what vectors do not hold takes {len(raw):,} bytes, more than the {MAX_UNPACKED:,}"
            " that a file may have of it:"
            " encode the text in parts, or with more steps"
        )
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(raw)) + packer.flush()


def unpack(packed: bytes, lengths: Sequence[int], stored: Sequence[int], text_bytes: int) -> Extras:
    """The inverse of `pack`; the bytes are untrusted input.

    Args:
        lengths: of the file's chunks, in tokens.
        stored: the chunks that are stored as tokens.
        text_bytes: of the whole text: no more than that can be inserted.

    Raises:
        ValueError: not such bytes.
    """
    tokens = sum(lengths)
    most = min(
        MAX_UNPACKED,
        2 * MAX_NUMBER_BYTES * tokens
        + MAX_NUMBER_BYTES * len(lengths)
        + (3 * MAX_NUMBER_BYTES + 1) * (text_bytes + 1),
    )
    unpacker = zlib.decompressobj(-15)
    try:
        raw = unpacker.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError("the patches cannot be unpacked") from error
    if not unpacker.eof or unpacker.unused_data or len(raw) > most:
        raise ValueError("the patches are not whole")
    reader = _Reader(raw)
    patches, kept = {}, {}
    whole = set(stored)
    for number, length in enumerate(lengths):
        if number in whole:
            kept[number] = [reader.number() for _ in range(length)]
        elif patch := _read_patch(reader, length):
            patches[number] = patch
    return Extras(patches, kept, list(_read_edits(reader, text_bytes)))


def _patch_bytes(patch: dict[int, int]) -> bytes:
    """A chunk's patch as bytes: the number of tokens, then the distance and the token of each."""
    raw, last = bytearray(_number(len(patch))), -1
    for position in sorted(patch):
        raw += _number(position - last - 1) + _number(patch[position])
        last = position
    return bytes(raw)


def _read_patch(reader: _Reader, length: int) -> dict[int, int]:
    patch, position = {}, -1
    for _ in range(reader.number()):
        position += 1 + reader.number()
        if position >= length:
            raise ValueError("a patch lies outside its chunk")
        patch[position] = reader.number()
    return patch


def _edit_bytes(edit: Edit) -> bytes:
    return _number(edit.keep) + _number(edit.drop) + _number(len(edit.insert)) + edit.insert


def _read_edits(reader: _Reader, text_bytes: int) -> Iterator[Edit]:
    inserted = 0
    while not reader.done:
        keep, drop, size = reader.number(), reader.number(), reader.number()
        inserted += size
        if inserted > text_bytes:
            raise ValueError("more bytes are inserted than the text has")
        yield Edit(keep, drop, reader.bytes(size))


def _number(value: int) -> bytes:
    """A number as bytes of seven bits, the lowest first; the high bit says that more follow."""
    raw = bytearray()
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    raw.append(value)
    return bytes(raw)


class _Reader:
    """Numbers and bytes, one after another."""

    def __init__(self, raw: bytes):
        self.raw, self.position = raw, 0

    @property
    def done(self) -> bool:
        return self.position == len(self.raw)

    def number(self) -> int:
        if (
            not self.done and (byte := self.raw[self.position]) < 0x80
        ):  # most are so small, and there may be millions
            self.position += 1
            return byte
        value = 0
        for shift in range(0, 7 * MAX_NUMBER_BYTES, 7):
            if self.done:
                break
            byte = self.raw[self.position]
            self.position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number of the patches is not whole")

    def bytes(self, count: int) -> bytes:
        part = self.raw[self.position : self.position + count]
        if len(part) < count:
            raise ValueError("an insertion of the patches is not whole")
        self.position += count
        return part


def edits_between(old: bytes, new: bytes) -> list[Edit]:
    """Edits that turn `old` into `new`: few where the two differ little, never wrong.

    Both are walked side by side; where they differ, the nearest stretch that they share again ends
    the edit.
    """
    edits: list[Edit] = []
    at, to, kept = 0, 0, 0
    while at < len(old) or to < len(new):
        same = _equal(old, new, at, to)
        at, to, kept = at + same, to + same, kept + same
        if at == len(old) and to == len(new):
            break
        drop, insert = _next_anchor(old, new, at, to)
        edits.append(Edit(kept, drop, new[to : to + insert]))
        at, to, kept = at + drop, to + insert, 0
    return edits


def apply_edits(old: bytes, edits: Sequence[Edit]) -> bytes:
    """The edited bytes.

    Raises:
        ValueError: an edit lies behind the end.
    """
    new, at = bytearray(), 0
    for keep, drop, insert in edits:
        if at + keep + drop > len(old):
            raise ValueError("an edit lies behind the end of the decoded text")
        new += old[at : at + keep] + insert
        at += keep + drop
    return bytes(new + old[at:])


def _equal(old: bytes, new: bytes, at: int, to: int) -> int:
    """Number of bytes that are the same from here on."""
    most, step, same = min(len(old) - at, len(new) - to), 1, 0
    while (
        same < most
    ):  # in steps that double while all is equal, and begin again small where it is not
        step = min(step, most - same)
        if old[at + same : at + same + step] == new[to + same : to + same + step]:
            same, step = same + step, 2 * step
        elif step == 1:
            break
        else:
            step = 1
    return same


def _next_anchor(old: bytes, new: bytes, at: int, to: int) -> tuple[int, int]:
    """How many bytes to drop and to insert until both agree again.

    All that is left, where they do not within reach.
    """
    for away in range(1, 2 * REACH + 1):
        for drop in range(max(0, away - REACH), min(away, REACH) + 1):
            insert = away - drop
            piece = old[at + drop : at + drop + ANCHOR]
            # Shorter than an anchor is only what is left of both.
            long_enough = len(piece) == ANCHOR or len(piece) == len(new) - to - insert
            if long_enough and new.startswith(piece, to + insert):
                return drop, insert
    # A long foreign stretch: go on behind it, where the text that is there now is met again.
    piece = old[at : at + 4 * ANCHOR]
    position = new.find(piece, to) if len(piece) == 4 * ANCHOR else -1
    return (0, position - to) if position >= 0 else (len(old) - at, len(new) - to)
