"""Where a text is cut: nothing lost, nothing too long, and no scrap at the end."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prototokens.chunks import BITS_PER_NUMBER, LONGEST, ChunkPlan, _cut, longest_target, plan_chunks
from prototokens.errors import UsageError
from prototokens.layout import Layout

BITS = st.floats(0, 40, allow_subnormal=False)


def pieces_of(information, lengths):
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return [information[end - length : end] for end, length in zip(ends, lengths, strict=True)]


@settings(max_examples=200, deadline=None)
@given(information=st.lists(BITS, min_size=1, max_size=200), budget=st.floats(0.5, 300), longest=st.integers(1, 64))
def test_pieces_hold_the_whole_text_within_both_limits(information, budget, longest):
    lengths = _cut(information, budget, longest)
    assert sum(lengths) == len(information)
    assert all(1 <= length <= longest for length in lengths)
    assert all(sum(piece) <= budget * (1 + 1e-9) or len(piece) == 1 for piece in pieces_of(information, lengths))


@settings(max_examples=200, deadline=None)
@given(information=st.lists(BITS, min_size=1, max_size=200), budget=st.floats(80, 300))
def test_there_are_hardly_more_pieces_than_needed(information, budget):
    """A token is half a piece at most, so each piece but the last can be filled by half at least."""
    lengths = _cut(information, budget, 1000)
    assert len(lengths) <= max(1, math.ceil(2 * sum(information) / budget))


@pytest.mark.parametrize("tokens", range(1, 200, 7))
@pytest.mark.parametrize("bits", [0.7, 1.0, 3.3])
def test_an_even_text_is_cut_evenly(tokens, bits):
    lengths = _cut([bits] * tokens, 13.0, 64)
    most = int(13.0 / bits)
    assert max(lengths) - min(lengths) <= 1 or min(lengths) >= most // 2
    assert len(lengths) == math.ceil(tokens / most)


def test_a_text_without_information_is_cut_by_length():
    assert _cut([0.0] * 10, 5.0, 64) == [10]
    assert _cut([0.0] * 130, 5.0, 64) == [44, 43, 43]
    assert _cut([1e-9] * 130, 5.0, 64) == [44, 43, 43]


def test_information_that_is_all_at_one_end_leaves_no_scraps():
    lengths = _cut([10.0] * 20 + [0.0] * 1000, 50.0, 256)
    assert all(length >= 4 for length in lengths)
    assert max(lengths) <= 256


@pytest.mark.parametrize("place", [0, 57, 99])
def test_a_token_of_more_information_than_a_piece_may_hold(place):
    information = [1.0] * 100
    information[place] = 1000.0
    lengths = _cut(information, 10.0, 64)
    assert sum(lengths) == 100
    alone = [piece for piece in pieces_of(information, lengths) if 1000.0 in piece]
    assert alone == [[1000.0]]
    assert all(sum(piece) <= 10 for piece in pieces_of(information, lengths) if piece != [1000.0])
    assert len(lengths) <= 2 + 100 / 5


def ids_of(lm, count):
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(0)).tolist()


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 300), layout=st.sampled_from(["auto", "paper", "free", "tiled:9"]))
def test_a_plan_for_a_model(tiny_llama, count, layout):
    ids = ids_of(tiny_llama, count)
    plan = plan_chunks(tiny_llama, ids, layout)
    assert sum(plan.lengths) == count
    assert max(plan.lengths) <= min(LONGEST, longest_target(tiny_llama, plan.layout))
    information = (tiny_llama.surprisal(ids).double() / math.log(2)).tolist()
    assert plan.bits == pytest.approx(sum(information))
    budget = BITS_PER_NUMBER * plan.layout.vectors * tiny_llama.d_model
    assert all(sum(piece) <= budget + 1e-6 or len(piece) == 1 for piece in pieces_of(information, plan.lengths))


def test_auto_takes_two_vectors_for_a_text_they_hold_with_ease(tiny_llama, monkeypatch):
    surprisal = {"bits": 0.0}
    monkeypatch.setattr(tiny_llama, "surprisal", lambda ids: torch.full(ids.shape, surprisal["bits"] * math.log(2)))
    ease = BITS_PER_NUMBER * 2 * tiny_llama.d_model
    for bits, name in [(ease / 10 * 0.99, "paper"), (ease / 10 * 1.01, "tiled:4")]:
        surprisal["bits"] = bits
        plan = plan_chunks(tiny_llama, ids_of(tiny_llama, 10))
        assert (plan.layout.name, plan.lengths) == (name, [10])
    assert plan_chunks(tiny_llama, ids_of(tiny_llama, 10), length=10).layout.name == "tiled:4"


def test_a_very_predictable_text_still_keeps_to_the_context(tiny_llama, monkeypatch):
    monkeypatch.setattr(tiny_llama, "surprisal", lambda ids: torch.zeros(ids.shape))
    plan = plan_chunks(tiny_llama, ids_of(tiny_llama, 300))
    assert plan.lengths == [100, 100, 100]
    assert plan_chunks(tiny_llama, ids_of(tiny_llama, 128), "free").lengths == [64, 64]


def test_lengths_that_are_given(tiny_llama, tiny_mamba):
    layout, *rest = plan_chunks(tiny_llama, [1] * 20, length=8)
    assert (layout.name, *rest) == ("tiled:4", [8, 8, 4], None)
    assert plan_chunks(tiny_llama, [1] * 16, "paper", length=8).lengths == [8, 8]
    assert plan_chunks(tiny_llama, [1], length=128).lengths == [1]
    assert plan_chunks(tiny_mamba, [1] * 3000, length=3000).lengths == [3000]  # no limit is stated
    for length, layout in [(0, "paper"), (129, "paper"), (128, "free")]:
        with pytest.raises(UsageError, match=f"chunks of {length} tokens asked for"):
            plan_chunks(tiny_llama, [1] * 200, layout, length=length)


def test_a_plan_in_words():
    layout = Layout.named("tiled:4")
    assert ChunkPlan(layout, [5], None).describe() == "1 chunk of 5 tokens, 5 vectors each, layout tiled:4"
    told = ChunkPlan(layout, [5, 3], 16.0).describe()
    assert told == "2 chunks of 3-5 tokens, 5 vectors each, layout tiled:4 (2.0 bits a token)"
