"""Files of few bits: the same text from them, rounded and repaired, and their size."""

import pytest
import torch
from safetensors.torch import save

import prototokens as pt
from prototokens.engine.quantise import WIDTHS, check_bits, quantise
from prototokens.errors import FileError, UsageError
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.header import write_header
from prototokens.ptok.tensors import pack_codes, tensors_hash

TEXT = "Call me Ishmael."


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ptok"


@pytest.fixture(scope="module")
def solutions(tiny_llama):
    ids = tiny_llama.tokenize(TEXT)
    found = pt.fit(tiny_llama, [ids[:6], ids[6:11], ids[11:]], layout="tiled:4")
    assert all(one.exact for one in found)
    return found


@pytest.mark.parametrize("bits", [16, 8, 4, 2, "auto"])
def test_the_text_comes_back_from_few_bits(tiny_llama, path, bits):
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=6, bits=bits)
    assert encoded.exact
    size = encoded.save(path)
    loaded = EncodedText.load(path)
    assert pt.decode(tiny_llama, loaded) == TEXT
    assert torch.equal(loaded.vectors, encoded.vectors)
    assert loaded.to_bytes() == path.read_bytes()
    widths = loaded.header.bits
    assert len(widths) == len(loaded.vectors)
    assert all(width in WIDTHS for width in widths)
    if bits != "auto":
        assert min(widths) >= bits
    assert size < pt.encode(tiny_llama, TEXT, chunk_length=6).save(path.with_name("whole.ptok"))
    assert loaded.bits == sum(32 * width + 32 * (width <= 8) for width in widths)


def test_auto_finds_what_one_after_another_finds_or_better(tiny_llama, solutions):
    recipe = pt.Recipe()
    # One at a time: beside other rows sums are rounded otherwise, and a fit at the edge may end
    # otherwise.
    for solution in solutions:
        (one,) = quantise(tiny_llama, [solution], "auto", recipe)
        assert one.solution.exact
        assert one.solution.margin > recipe.margin
        narrower = WIDTHS[WIDTHS.index(one.bits) - 1]
        if one.bits > 1:  # the next narrower was tried and failed, so asking for it gives more
            assert quantise(tiny_llama, [solution], narrower, recipe)[0].bits > narrower


def test_each_chunk_goes_its_own_way(tiny_llama, solutions):
    together, alone = (
        quantise(tiny_llama, solutions, 3, pt.Recipe()),
        quantise(tiny_llama, solutions[:1], 3, pt.Recipe()),
    )
    assert together[0].bits == alone[0].bits
    assert torch.equal(together[0].solution.protos, alone[0].solution.protos)


def test_repairing_is_counted(tiny_llama, solutions):
    assert sum(one.row_steps for one in quantise(tiny_llama, solutions, 1, pt.Recipe())) > 0
    assert all(one.row_steps == 0 for one in quantise(tiny_llama, solutions, 32, pt.Recipe()))


def test_a_shared_vector_has_one_grid(tiny_llama, path):
    encoded = pt.encode(tiny_llama, "abcdef", layout="paper", chunk_length=2, share="m", bits=8)
    assert encoded.exact
    encoded.save(path)
    loaded = EncodedText.load(path)
    assert pt.decode(tiny_llama, loaded) == "abcdef"
    assert len(set(loaded.header.bits)) == 1


def test_inexact_solutions_are_not_rounded(tiny_llama, solutions):
    (broken,) = pt.fit(tiny_llama, [solutions[0].ids], layout="tiled:4", recipe=pt.Recipe(steps=0))
    found = quantise(tiny_llama, [broken, solutions[1]], 8, pt.Recipe())
    assert [one.bits for one in found] == [32, 8]
    assert found[0].solution is broken


def test_a_word_other_than_auto_is_refused():
    with pytest.raises(UsageError, match="not 'few'"):
        check_bits("few")


@pytest.mark.parametrize("bits", [0, 9, 12, 64, -8])
def test_no_such_number_of_bits(tiny_llama, solutions, bits):
    with pytest.raises(UsageError, match=r"bits must be one of 1, 2, .* 16, 32 or 'auto'"):
        quantise(tiny_llama, solutions, bits, pt.Recipe())


def test_a_scale_that_is_not_finite_is_refused(tiny_llama, path):
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=6, bits=8)
    tensors = {
        "codes": pack_codes(encoded.vectors, encoded.scale, encoded.header.bits),
        "scale": encoded.scale.clone().fill_(float("nan")),
        "slots": encoded.slots.int(),
    }
    path.write_bytes(
        save(
            tensors,
            metadata=write_header(
                {**encoded.header.as_json(), "tensors_sha256": tensors_hash(tensors)}
            ),
        )
    )
    with pytest.raises(FileError, match="not finite"):
        EncodedText.load(path)
