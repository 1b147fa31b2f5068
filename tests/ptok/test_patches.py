"""Patches, stored chunks and edits: whatever goes in comes out, and nothing hostile gets far."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prototokens.ptok.patches import (
    Edit,
    Extras,
    apply_edits,
    apply_patches,
    edits_between,
    pack,
    patch_size,
    token_size,
    unpack,
)

TOKENS = st.integers(0, 2**31 - 1)


@st.composite
def extras(draw):
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    patches, stored = {}, {}
    for number, length in enumerate(lengths):
        if draw(st.booleans()):
            stored[number] = draw(st.lists(TOKENS, min_size=length, max_size=length))
        elif patch := draw(st.dictionaries(st.integers(0, length - 1), TOKENS, max_size=length)):
            patches[number] = patch
    edits = draw(
        st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.binary(max_size=9)), max_size=5)
    )
    return (
        lengths,
        patches,
        stored,
        edits,
    )  # checked types draw random numbers of their own, which a strategy may not


@settings(deadline=None)
@given(extras())
def test_packed_patches_are_unpacked(made):
    lengths, whole = made[0], Extras(*made[1:3], [Edit(*edit) for edit in made[3]])
    packed = pack(whole, len(lengths))
    assert unpack(packed, lengths, sorted(whole.stored), 100) == whole


@settings(deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_edits_lead_from_any_bytes_to_any_others(old, new):
    assert apply_edits(old, edits_between(old, new)) == new


@settings(deadline=None)
@given(st.binary(min_size=20, max_size=200), st.data())
def test_edits_of_like_texts_are_right(old, data):
    new = bytearray(old)
    for _ in range(data.draw(st.integers(0, 4))):
        position = data.draw(st.integers(0, len(new)))
        new[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert apply_edits(old, edits_between(old, bytes(new))) == new


def test_few_differences_make_few_edits():
    text = " ".join(f"word{number}" for number in range(5000))
    upper = "".join(
        letter.upper() if position % 500 == 7 else letter for position, letter in enumerate(text)
    )
    changed = sum(a != b for a, b in zip(text, upper, strict=True))
    edits = edits_between(text.encode(), upper.encode())
    assert changed / 2 < len(edits) <= changed
    assert sum(len(edit.insert) for edit in edits) <= 2 * changed


def test_a_byte_near_the_end_takes_one_byte():
    assert edits_between(b"caf noir", b"caf\xe9 noir") == [Edit(3, 0, b"\xe9")]
    assert edits_between(b"ab", b"a\xff") == [Edit(1, 1, b"\xff")]


def test_a_long_foreign_stretch_is_inserted_and_the_text_goes_on():
    text, foreign = bytes(range(256)) * 4, random.Random(0).randbytes(5000)
    (edit,) = edits_between(text, text[:500] + foreign + text[500:])
    assert (edit.drop, len(edit.insert)) == (0, 5000)


def test_patches_and_stored_chunks_replace_tokens():
    extras = Extras({0: {1: 9}}, {1: [7, 8]})
    assert apply_patches([[1, 2, 3], [4]], extras) == [[1, 9, 3], [7, 8], [4]]


def test_sizes_are_those_that_are_written():
    patch = {3: 5, 200: 70_000}
    assert patch_size(patch) == 1 + (1 + 1) + (2 + 3)
    assert token_size([5, 70_000]) == 4
    raw = zlib.decompress(pack(Extras({0: patch}), 1), -15)
    assert len(raw) == patch_size(patch)


class TestSuspicion:
    def refused(self, raw, lengths=(4, 4), stored=(), text_bytes=50, packed=None):
        with pytest.raises(ValueError):  # noqa: PT011 (its caller reports each as damage)
            unpack(
                zlib.compress(raw, wbits=-15) if packed is None else packed,
                lengths,
                stored,
                text_bytes,
            )
        return True

    def test_positions_outside_the_chunk(self):
        assert self.refused(b"\x01\x04\x01" + b"\0")
        assert self.refused(b"\x02\x03\x01\x00\x01" + b"\0")

    def test_numbers_that_are_cut_off_or_endless(self):
        assert self.refused(b"")
        assert self.refused(b"\x01\x01")
        assert self.refused(b"\x80" * 20)
        assert self.refused(b"\x01\x02", stored=[0])

    def test_insertions_that_are_not_there_or_too_many(self):
        assert self.refused(b"\0\0" + b"\0\0\x05abc")
        assert self.refused(b"\0\0" + b"\0\0\x33" + b"a" * 51)

    def test_bytes_that_unpack_to_too_much(self):
        assert self.refused(bytes(10_000_000))

    def test_bytes_that_are_not_packed_or_go_on(self):
        assert self.refused(b"", packed=b"\xff\xff\xff")
        assert self.refused(b"", packed=b"")
        assert self.refused(b"", packed=zlib.compress(b"\0\0", wbits=-15) + b"more")

    def test_an_edit_behind_the_end(self):
        with pytest.raises(ValueError, match="behind the end"):
            apply_edits(b"abc", [Edit(2, 2, b"")])

    def test_random_bytes_are_refused_or_read(self):
        chance = random.Random(0)
        for _ in range(2000):
            raw = chance.randbytes(chance.randrange(1, 30))
            try:
                found = unpack(zlib.compress(raw, wbits=-15), [4, 4], [1], 50)
            except ValueError:
                continue
            assert all(0 <= position < 4 for patch in found.patches.values() for position in patch)
            assert len(found.stored[1]) == 4
