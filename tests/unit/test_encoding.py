"""Whole texts: chunks that fail are halved, solved ones are reused, decoding decides."""

from dataclasses import replace

import pytest
import torch

import prototokens as pt
from prototokens import encoding
from prototokens.errors import NotExactError, UsageError
from prototokens.layout import Layout
from prototokens.options import EncodeOptions
from prototokens.planning.chunks import plan_chunks
from prototokens.ptok.resume import load_partial, partial_key, save_partial
from prototokens.ptok.spans import Span, left_by

TEXT = "Call me Ishmael. Some"


@pytest.fixture
def fits(monkeypatch):
    """The targets of every fit that is begun, and a way to spoil solutions.

    `fits.spoil(ids, solution) -> solution`.
    """

    class Fits(list):
        spoil = None

    fits, fit = Fits(), encoding.fit

    def watched(lm, targets, *resolved, finished, **options):
        fits.append([tuple(target) for target in targets])

        def spoiled(order, solution):
            finished(order, fits.spoil(solution) if fits.spoil else solution)

        return fit(lm, targets, *resolved, finished=spoiled, **options)

    monkeypatch.setattr(encoding, "fit", watched)
    return fits


def wrong(solution):
    return replace(solution, protos=torch.zeros_like(solution.protos), correct=0)


def solved(lm, text, spans, layout="keyed:5"):
    """Solutions of stretches of a text, as an interrupted run leaves them."""
    ids = lm.tokenize(text)
    solutions = pt.fit(lm, [ids[span.start : span.end] for span in spans], layout=layout)
    assert all(solution.exact for solution in solutions)
    return dict(zip(spans, solutions, strict=True))


@pytest.mark.parametrize("layout", ["one", "halves", "alternating", "free", "paper", "tiled:3"])
def test_every_layout_reproduces_a_text(tiny_llama, layout):
    encoded = pt.encode(
        tiny_llama, "Call", layout=layout, chunk_length=2, recipe=pt.Recipe(steps=200)
    )
    assert encoded.exact
    assert encoded.header.layout == layout
    assert pt.decode(tiny_llama, encoded) == "Call"


def test_characters_that_are_split_over_chunks(tiny_llama):
    """A byte-level tokenizer gives four tokens for an emoji.

    With chunks of three, none of its chunks is valid UTF-8.
    """
    text = "\U0001f469‍\U0001f680\U0001f30d"
    encoded = pt.encode(tiny_llama, text, chunk_length=3)
    chunks = [tiny_llama.detokenize(ids) for ids in pt.decode_ids(tiny_llama, encoded.chunks()).ids]
    assert "�" in "".join(chunks)
    assert pt.decode(tiny_llama, encoded) == text


def test_a_chunk_that_fails_is_halved(tiny_llama, fits):
    ids = tuple(tiny_llama.tokenize(TEXT))
    fits.spoil = lambda solution: wrong(solution) if solution.ids == ids[:8] else solution
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=8)
    assert fits == [[ids[:8], ids[8:16], ids[16:]], [ids[:4], ids[4:8]]]
    assert encoded.header.chunks == (4, 4, 8, 5)
    assert encoded.header.seeds == (1, 1, 0, 0)  # a failed start is not tried again
    assert encoded.exact
    assert pt.decode(tiny_llama, encoded) == TEXT


def test_a_token_that_fails_is_tried_again_and_then_given_up(tiny_llama, fits):
    fits.spoil = wrong
    encoded = pt.encode(
        tiny_llama, "abc", chunk_length=2, recipe=pt.Recipe.named("fast", steps=0), inexact="halve"
    )
    assert len(fits) == encoding.MAX_HALVINGS + 1
    assert [len(targets) for targets in fits] == [2] + [3] * encoding.MAX_HALVINGS
    assert encoded.header.chunks == (1, 1, 1)
    assert encoded.header.row_steps == 2 + 3 * encoding.MAX_HALVINGS
    assert encoded.header.stored == (0, 1, 2)  # what vectors do not hold stands in the file
    assert pt.decode(tiny_llama, encoded) == "abc"


def test_inexact_vectors_without_patches_are_refused(tiny_llama):
    encoded = pt.encode(
        tiny_llama, "abc", chunk_length=2, recipe=pt.Recipe.named("fast", steps=0), inexact="keep"
    )
    assert not encoded.exact
    with pytest.raises(NotExactError) as refusal:
        pt.decode(tiny_llama, encoded)
    assert len(refusal.value.text) >= 1


def test_a_fit_that_is_wrongly_called_exact_is_found_by_decoding(tiny_llama, fits):
    ids = tuple(tiny_llama.tokenize(TEXT))
    spoilt = set()

    def lie(solution):
        if solution.ids != ids[:8]:
            return solution
        spoilt.add(solution.ids)
        return replace(solution, protos=torch.zeros_like(solution.protos), scored=None)

    fits.spoil = lie
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=8)
    assert spoilt
    assert encoded.header.chunks == (4, 4, 8, 5)
    assert pt.decode(tiny_llama, encoded) == TEXT


def test_accuracy_is_that_of_the_decoded_text(tiny_llama, fits):
    fits.spoil = lambda solution: replace(
        solution, protos=torch.zeros_like(solution.protos), scored=None
    )
    encoded = pt.encode(
        tiny_llama,
        "abcd",
        layout="paper",
        chunk_length=2,
        share="m",
        recipe=pt.Recipe(steps=5),
        inexact="keep",
    )
    ids = [token for chunk in pt.decode_ids(tiny_llama, encoded.chunks()).ids for token in chunk]
    right = [a == b for a, b in zip(ids, tiny_llama.tokenize("abcd"), strict=True)]
    assert encoded.header.accuracy == sum(right) / 4 < 1
    assert not encoded.exact
    assert len(fits) == 1  # chunks that share a vector are not halved


@pytest.mark.parametrize(("share", "number", "layout"), [("e", 0, "free"), ("m", 1, "paper")])
def test_a_shared_vector_is_stored_once(tiny_llama, share, number, layout):
    encoded = pt.encode(tiny_llama, "abcdef", layout=layout, chunk_length=2, share=share)
    assert encoded.exact
    assert encoded.vectors.shape == (4, 32)
    assert len(set(encoded.slots[:, number].tolist())) == 1
    assert len(set(encoded.slots[:, 1 - number].tolist())) == 3
    assert pt.decode(tiny_llama, encoded) == "abcdef"


def test_one_e_cannot_give_chunks_different_first_tokens(tiny_llama, fits):
    for layout in ("paper", "halves", "alternating"):
        with pytest.raises(
            UsageError, match=f"{layout!r} the first token of a chunk is read from e alone"
        ):
            pt.encode(tiny_llama, "abcd", layout=layout, chunk_length=2, share="e")
    assert fits == []
    assert pt.encode(tiny_llama, "abac", layout="paper", chunk_length=2, share="e").exact


def test_solved_spans_are_not_fitted_again(tiny_llama, fits):
    ids = tuple(tiny_llama.tokenize(TEXT))
    kept = solved(tiny_llama, TEXT, [Span(0, 8), Span(12, 16)])
    vectors = kept[Span(0, 8)].protos
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=8, kept=kept)
    assert fits == [[ids[8:12], ids[16:]]]
    assert encoded.header.chunks == (8, 4, 4, 5)
    assert torch.equal(encoded.vectors[:5], vectors)
    assert encoded.header.row_steps == sum(solution.row_steps for solution in kept.values())
    assert pt.decode(tiny_llama, encoded) == TEXT
    assert set(kept) == {Span(0, 8), Span(8, 12), Span(12, 16), Span(16, 21)}


def test_nothing_is_left_to_fit(tiny_llama, fits):
    kept = {}
    first = pt.encode(tiny_llama, TEXT, chunk_length=8, kept=kept)
    second = pt.encode(tiny_llama, TEXT, chunk_length=8, kept=kept)
    assert fits[1:] == [[]]
    assert torch.equal(first.vectors, second.vectors)


def test_saved_vectors_that_do_not_decode_are_fitted_again(tiny_llama, fits):
    kept = solved(tiny_llama, TEXT, [Span(0, 8)])
    kept[Span(0, 8)] = replace(kept[Span(0, 8)], protos=torch.full((5, 32), 0.1))
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=8, kept=kept)
    assert encoded.exact
    assert pt.decode(tiny_llama, encoded) == TEXT


def test_spans_solved_apart_are_not_taken_where_a_vector_is_shared(tiny_llama, fits):
    kept = solved(tiny_llama, "abcdef", [Span(0, 2), Span(2, 4)], layout="paper")
    encoded = pt.encode(tiny_llama, "abcdef", layout="paper", chunk_length=2, share="m", kept=kept)
    assert [len(targets) for targets in fits] == [3]
    assert pt.decode(tiny_llama, encoded) == "abcdef"
    assert len(kept) == 2


def test_an_earlier_run_is_followed_as_far_as_it_halved(tiny_llama):
    some = pt.fit(tiny_llama, [[1]])[0]
    kept = dict.fromkeys([Span(0, 2), Span(4, 8), Span(9, 10)], some)
    assert left_by(Span(0, 8), kept) == [(0, 2), (2, 4), (4, 8)]
    assert left_by(Span(8, 16), kept) == [(8, 9), (9, 10), (10, 12), (12, 16)]
    assert left_by(Span(16, 24), kept) == [(16, 24)]
    assert left_by(Span(4, 8), kept) == [(4, 8)]
    # Cut elsewhere: of no use, and no harm.
    assert left_by(Span(3, 9), kept) == [(3, 6), (6, 9)]


def test_a_plan_of_another_text_is_refused(tiny_llama):
    plan = plan_chunks(tiny_llama, tiny_llama.tokenize("abc"))
    with pytest.raises(UsageError, match="the plan is for 3 tokens and the text has 4"):
        pt.encode(tiny_llama, "abcd", plan=plan)


def resolved(layout, **others):
    """Options of an encoding, as the key of a resumable file takes them."""
    return EncodeOptions(**{"layout": layout, "recipe": pt.Recipe(), "start": "random", **others})


class TestPartial:
    """What an interrupted run leaves behind."""

    @pytest.fixture
    def left(self, tiny_llama, tmp_path):
        kept = solved(tiny_llama, TEXT, [Span(0, 8), Span(12, 16)])
        ids, layout = tiny_llama.tokenize(TEXT), Layout.named("keyed:5")
        key = partial_key(tiny_llama, ids, resolved(layout))
        save_partial(tmp_path / "x.partial", key, kept)
        return tmp_path / "x.partial", key, layout, ids, kept

    def test_comes_back_whole(self, left):
        path, key, layout, ids, kept = left
        back = load_partial(path, key, layout, ids)
        assert back.keys() == kept.keys()
        for span, solution in kept.items():
            assert back[span] == solution

    def test_a_partial_file_of_other_work_is_left_alone(self, tiny_llama, left):
        path, key, layout, ids, _ = left
        others = [
            partial_key(tiny_llama, ids[:-1], resolved(layout)),
            partial_key(tiny_llama, ids, resolved(Layout.named("paper"))),
            partial_key(tiny_llama, ids, resolved(layout, recipe=pt.Recipe(steps=7))),
            partial_key(tiny_llama, ids, resolved(layout, seed=1)),
            partial_key(tiny_llama, ids, resolved(layout, start="encoder")),
        ]
        assert len({key, *others}) == 6
        assert key == partial_key(tiny_llama, ids, resolved(layout, bits=8, inexact="keep"))
        assert all(load_partial(path, other, layout, ids) == {} for other in others)

    def test_damaged_or_missing_costs_only_time(self, left):
        path, key, layout, ids, _ = left
        whole = path.read_bytes()
        for content in (
            b"",
            whole[: len(whole) // 2],
            whole[:-1],
            b"\x80\x05N.",
            whole.replace(b"span", b"spam"),
        ):
            path.write_bytes(content)
            assert load_partial(path, key, layout, ids) == {}
        path.unlink()
        assert load_partial(path, key, layout, ids) == {}


def test_an_encoded_text_is_shown_in_one_line(tiny_llama, tmp_path):
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=8, layout="keyed:2")
    tokens = len(tiny_llama.tokenize(TEXT))
    assert repr(encoded) == f"EncodedText({tokens} tokens in 3 chunks, 6 x 32 'keyed:2', exact)"
    encoded.save(tmp_path / "x.ptok")
    assert repr(pt.EncodedText.load(tmp_path / "x.ptok")).endswith("x.ptok')")
