"""Layouts against the arrangements as the paper writes them."""

from collections import Counter
from itertools import pairwise

import pytest

from prototokens.errors import UsageError
from prototokens.layout import Layout

WRITTEN = {
    ("one", 4): "e e e e",
    ("halves", 4): "e e m m",
    ("halves", 5): "e e e m m",
    ("alternating", 5): "e m e m e",
    ("free", 4): "e m m m m",
    ("paper", 4): "e m m m",
    ("paper", 1): "e",
    ("tiled:3", 9): "e 1 2 3 1 2 3 1 2",
    ("tiled:3", 2): "e 1",
    ("mixed:1", 8): "e 1 e e 1 1 e e",
    ("mixed:3", 12): "e 1 2 3 e 2 e 3 1 3 2 1",
}

UNKNOWN = [
    "",
    "Paper",
    "tiled",
    "tiled:",
    "tiled:0",
    "tiled:-1",
    "tiled:1025",
    "tiled:1e2",
    "tiled:٣x",
    "tiled:" + "9" * 5000,
]
UNKNOWN += ["mixed", "mixed:0", "mixed:1025"]


@pytest.mark.parametrize(("name", "length"), WRITTEN)
def test_index_is_the_written_arrangement(name, length):
    symbols = {"e": 0, "m": 1, "1": 1, "2": 2, "3": 3}
    layout = Layout.named(name)
    written = [symbols[symbol] for symbol in WRITTEN[name, length].split()]
    assert layout.index(length).tolist() == written
    assert layout.positions(length) == len(written)


@pytest.mark.parametrize(
    "name", ["one", "halves", "alternating", "free", "paper", "tiled:4", "mixed:4"]
)
@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_one_output_is_read_for_each_token_and_only_vectors_that_exist_are_used(name, length):
    layout = Layout.named(name)
    index, scored = layout.index(length), layout.scored(length)
    assert len(scored) == length
    assert len(set(scored.tolist())) == length
    assert int(scored.max()) == len(index) - 1
    assert 0 <= int(index.min()) <= int(index.max()) < layout.vectors


def test_the_two_readings_of_the_guided_e_differ_in_what_e_predicts():
    assert Layout.named("paper").scored(3).tolist() == [0, 1, 2]
    assert Layout.named("free").scored(3).tolist() == [1, 2, 3]


def test_tiling_with_one_vector_is_the_papers_layout():
    assert Layout.named("tiled:1").name == "paper"
    assert Layout.named("tiled:1").index(6).tolist() == Layout.named("paper").index(6).tolist()


@pytest.mark.parametrize("repeated", [1, 2, 4, 7, 30])
def test_mixing_begins_alike_at_every_length_and_uses_all_vectors_alike(repeated):
    layout = Layout.named(f"mixed:{repeated}")
    whole = layout.index(300).tolist()
    assert whole[: repeated + 1] == list(range(repeated + 1))
    for length in (1, 2, 3, 5, 64, 65, 299):
        assert layout.index(length).tolist() == whole[:length]
    counts = Counter(whole)
    assert max(counts.values()) - min(counts.values()) <= 0.2 * 300 / (repeated + 1) + 2


def test_mixing_repeats_no_pair_of_neighbours_before_one_vector_has_stood_before_all():
    for repeated in (2, 4, 9):
        index = Layout.named(f"mixed:{repeated}").index((repeated + 1) ** 2).tolist()
        pairs = list(pairwise(index))
        again = next(position for position, pair in enumerate(pairs) if pair in pairs[:position])
        before = pairs[again][0]
        assert {after for first, after in pairs[:again] if first == before} == set(
            range(repeated + 1)
        )
        assert again > (repeated + 1) ** 2 / 2


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_names_are_refused_in_words(name):
    with pytest.raises(UsageError, match="choose one of one, halves"):
        Layout.named(name)


def test_an_empty_target_has_no_layout():
    with pytest.raises(UsageError, match="at least one token"):
        Layout.named("paper").index(0)
