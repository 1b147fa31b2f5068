"""Tokens of single bytes are shown as the characters that they make up."""

import pytest

import prototokens as pt
from prototokens.explorer import show
from prototokens.explorer.tokens import Piece, all_tokens, characters, joined, tokens_of
from prototokens.ptok.encoded import EncodedText

TEXTS = ["über", "Das Mädchen läuft.", "海は静か", "a😀b", "naïve café", "𐍈 "]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_add_up_to_the_text(tiny_llama, text):
    """The tokenizer of the tiny model has a token for each byte, as the built-in one for some."""
    ids = tiny_llama.tokenize(text)
    found = characters(tiny_llama, ids)
    assert "".join(piece for piece, _ in found) == text
    assert sum(count for _, count in found) == len(ids)
    assert all("\ufffd" not in piece for piece, _ in found)


def test_bytes_of_no_character_stay_tokens_of_their_own(tiny_llama):
    ids = tiny_llama.tokenize("aü")[:-1] + tiny_llama.tokenize("b")
    assert characters(tiny_llama, ids) == [("a", 1), ("\ufffd", 1), ("b", 1)]


def test_german_is_shown_without_half_characters(tiny_llama):
    text = "übt"
    solution = pt.fit(tiny_llama, text)
    assert solution.exact
    shown = tokens_of(tiny_llama, solution, solution.ids)
    assert [(token.text, token.count, token.right) for token in shown] == [
        ("ü", 2, True),
        ("b", 1, True),
        ("t", 1, True),
    ]
    assert shown[0].margin == pytest.approx(min(solution.margins[:2]), abs=1e-3)
    html = show.text(shown)
    assert 'title="tokens 1 to 2, of one character, least margin' in html
    assert 'title="token 3, margin' in html


def test_a_character_across_two_chunks_is_one(tiny_llama):
    ids = tiny_llama.tokenize("xü")
    parts = [pt.fit(tiny_llama, ids[:2]), pt.fit(tiny_llama, ids[2:])]
    encoded = EncodedText.of(tiny_llama, "xü", parts, recipe=pt.Recipe())
    assert [token.text for token in all_tokens(tiny_llama, encoded)] == ["x", "ü"]


def test_a_wrong_byte_makes_its_whole_character_wrong_and_is_a_dot(tiny_llama):
    ids = tiny_llama.tokenize("ü!")
    (b,) = tiny_llama.tokenize("b")
    pieces = [Piece(ids[0], 1.0, True), Piece(b, -2.0, False), Piece(ids[2], 3.0, True)]
    wrong, right = joined(tiny_llama, pieces, ids)
    assert (wrong.text, wrong.right, wrong.margin, wrong.count) == ("·b", False, -2.0, 2)
    assert (right.text, right.right) == ("!", True)
