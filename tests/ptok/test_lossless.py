"""Whatever goes in comes out, byte for byte.

Where vectors do not hold it, patches, stored chunks and edits do.
"""

import os
import random
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import normalizers

import prototokens as pt
from prototokens.decoding import decode_text, verify_text
from prototokens.encoding import certified_recipe
from prototokens.engine.certify import threshold
from prototokens.errors import FileError, TextError, UsageError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.assemble import Record
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.patches import Extras
from prototokens.ptok.repair import repair
from prototokens.ptok.source import read_source

EXAMPLES = int(
    os.environ.get("PROTOTOKENS_EXAMPLES", "40")
)  # docs/reliability.md reports a run of 1,000
NOT_TRIED = pt.Recipe(steps=0)  # what no step has fitted: nearly all of it wrong


def there_and_back(lm, text, path, **options):
    """What a saved file gives, and the file."""
    encoded = pt.encode(
        lm, text, **{"certify": "none", "inexact": "patch", "recipe": NOT_TRIED, **options}
    )
    encoded.save(path)
    loaded = EncodedText.load(path)
    assert loaded.to_bytes() == path.read_bytes()
    return decode_text(lm, loaded), loaded


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ptok"


@pytest.fixture(scope="module")
def misread(tiny_llama):
    """Solutions of one text, meant for another that differs from it in two tokens."""
    fitted, meant = "Call me Ishmael.", "Call my Ishmaek."
    recipe = certified_recipe(tiny_llama, pt.Recipe(), "standard")
    halves = [tiny_llama.tokenize(fitted)[start : start + 8] for start in (0, 8)]
    solutions = pt.fit(tiny_llama, halves, layout="tiled:4", recipe=recipe)
    assert all(one.exact for one in solutions)
    ids = tiny_llama.tokenize(meant)
    return meant, [
        replace(one, ids=tuple(ids[start : start + 8]), correct=7)
        for one, start in zip(solutions, (0, 8), strict=True)
    ]


@pytest.fixture(scope="module")
def patched(tiny_llama):
    encoded = pt.encode(
        tiny_llama,
        b"Call me\xff Ishmael.",
        chunk_length=5,
        recipe=NOT_TRIED,
        inexact="patch",
        certify="none",
    )
    assert encoded.header.stored
    return encoded


def test_bytes_that_are_no_text_are_not_given_to_the_model(tiny_llama):
    """U+FFFD would take three tokens each that the built-in model never saw."""
    source = read_source(tiny_llama, b"caf\xe9 noir")
    assert source.text == "caf noir"
    assert source.edited == 1
    assert read_source(tiny_llama, b"\xff\xfe").text == "\ufffd\ufffd"  # something has to be given


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.one_of(
        st.text(min_size=1),
        st.binary(min_size=1),
        st.text("a \n\r\t\0\u0301\u200d\U0001f9d1", min_size=1),
    )
)
@example("<bos>in the text<eos>")
@example(b"caf\xe9 \xff\xfe\x00 \xf0\x9f")
@example("half \ud83d and \udc00 half")
@example(" ")
@example("\r\n\r\n")
def test_any_text_and_any_bytes_come_back(tiny_llama, tmp_path_factory, text):
    decoded, loaded = there_and_back(tiny_llama, text, tmp_path_factory.mktemp("any") / "x.ptok")
    assert decoded.matches
    assert loaded.exact
    if isinstance(text, str):
        assert decoded.text == text
    else:
        assert decoded.content == text


class TestPatches:
    def test_wrong_tokens_are_patched(self, tiny_llama, path, misread):
        text, solutions = misread
        repaired = repair(tiny_llama, solutions, "standard")
        assert {number: list(patch) for number, patch in repaired.extras.patches.items()} == {
            0: [6],
            1: [6],
        }
        assert not repaired.extras.stored
        certificate = repaired.certificate
        encoded = EncodedText.of(
            tiny_llama,
            text,
            solutions,
            recipe=pt.Recipe(),
            extras=repaired.extras,
            record=Record(certificate=certificate, least_margin=repaired.least),
        )
        encoded.save(path)
        loaded = EncodedText.load(path)
        assert pt.decode(tiny_llama, loaded) == text
        assert loaded.header.format == 2
        assert loaded.header.patched == 2
        assert loaded.header.accuracy == 14 / 16
        assert loaded.header.min_margin > 0
        # The places that are patched decode wrong in every way, and are not counted against the
        # vectors.
        verified = verify_text(tiny_llama, loaded, "standard")
        assert verified.passed
        assert loaded.certified
        assert certificate.least_margin >= certificate.threshold - certificate.shift > 0

    def test_without_patches_a_wrong_token_is_found_out(self, tiny_llama, misread):
        repaired = repair(tiny_llama, misread[1], "standard", patches=False)
        assert not repaired.extras
        assert not repaired.certificate.passed

    def test_a_chunk_of_which_little_is_right_is_stored(self, tiny_llama, path):
        decoded, loaded = there_and_back(tiny_llama, "Call me Ishmael.", path, chunk_length=4)
        assert decoded.matches
        assert loaded.header.stored
        assert len(loaded.vectors) == loaded.layout.vectors * (4 - len(loaded.header.stored))
        assert not any(
            flag
            for number, flag in enumerate(loaded.header.chunks_exact)
            if number in loaded.header.stored
        )

    def test_one_vector_for_all_chunks(self, tiny_llama, path):
        options = {"layout": "paper", "chunk_length": 4, "share": "m", "recipe": pt.Recipe(steps=3)}
        decoded, loaded = there_and_back(tiny_llama, "Call me Ishmael.", path, **options)
        assert decoded.text == "Call me Ishmael."
        in_vectors = 4 - len(loaded.header.stored)
        assert len(loaded.vectors) == (in_vectors + 1 if in_vectors else 0)

    def test_halves_come_first_and_what_is_left_is_patched(self, tiny_llama, path):
        decoded, loaded = there_and_back(tiny_llama, "abcd", path, chunk_length=4, inexact="halve")
        assert decoded.matches
        assert loaded.header.chunks == (1, 1, 1, 1)

    def test_inexact_chunks_that_are_kept_are_reported(self, tiny_llama, path):
        decoded, loaded = there_and_back(tiny_llama, "Call me Ishmael.", path, inexact="keep")
        assert not decoded.matches
        assert not loaded.exact
        with pytest.raises(UsageError, match="inexact must be one of halve, patch, keep, not 'no'"):
            pt.encode(tiny_llama, "a", inexact="no")

    def test_a_margin_too_narrow_for_the_certificate_is_patched(self, tiny_llama, monkeypatch):
        encoded = pt.encode(tiny_llama, "Call me Ishmael.", chunk_length=8, certify="standard")
        assert encoded.certified
        assert not encoded.extras
        asked = threshold(tiny_llama, "standard")
        wide = asked._replace(margin=encoded.header.certificate.least_margin + asked.shift + 0.001)
        monkeypatch.setattr("prototokens.ptok.repair.threshold", lambda *_: wide)
        patched = pt.encode(tiny_llama, "Call me Ishmael.", chunk_length=8, certify="standard")
        assert patched.header.patched >= 1
        assert pt.decode(tiny_llama, patched) == "Call me Ishmael."


class TestBytes:
    def test_bytes_that_are_no_text(self, tiny_llama, path):
        raw = random.Random(0).randbytes(200)
        decoded, loaded = there_and_back(tiny_llama, raw, path)
        assert decoded.content == raw
        assert loaded.header.edited > 0
        # Hardly a byte of it would come out of vectors, so hardly any are fitted.
        assert loaded.header.text.tokens == 1

    def test_a_text_with_some_bytes_that_are_no_text_is_still_fitted(self, tiny_llama):
        source = read_source(tiny_llama, b"Call me \xff\xfe Ishmael, some years ago.")
        assert len(source.ids) > 10
        assert 0 < source.edited < 10

    def test_a_tokenizer_that_changes_a_text(self, tiny_llama, byte_tokenizer, path):
        byte_tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Strip()]
        )
        changing = FrozenLM(tiny_llama.model, byte_tokenizer, name="changing")
        text = "  A cafe\u0301, far from here; e\u0301.\n"
        assert changing.detokenize(changing.tokenize(text)) != text
        decoded, _ = there_and_back(changing, text, path)
        assert decoded.text == text

    def test_texts_that_need_too_many_edits_are_refused_before_any_work(
        self, tiny_llama, monkeypatch
    ):
        monkeypatch.setattr("prototokens.ptok.source.MAX_UNPACKED", 150)
        with pytest.raises(TextError, match="of 200 bytes"):
            read_source(tiny_llama, random.Random(0).randbytes(200))

    def test_nothing_and_what_no_token_stands_for_is_refused(self, tiny_llama, byte_tokenizer):
        for nothing in ("", b""):
            with pytest.raises(TextError, match="the text is empty"):
                pt.encode(tiny_llama, nothing)
        byte_tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
        stripping = FrozenLM(tiny_llama.model, byte_tokenizer, name="stripping")
        with pytest.raises(TextError, match="'stripping' gives no token for this text"):
            read_source(stripping, "   ")


class TestDamage:
    def test_tokens_that_the_model_does_not_have(self, tiny_llama, patched):
        stored = {number: [10**6] * len(ids) for number, ids in patched.extras.stored.items()}
        with pytest.raises(FileError, match="patches in tokens that 'tiny-llama' does not have"):
            decode_text(tiny_llama, replace(patched, extras=replace(patched.extras, stored=stored)))

    def test_edits_of_another_text(self, tiny_llama, patched):
        far = [edit._replace(keep=10**6) for edit in patched.extras.edits]
        decoded = decode_text(
            tiny_llama, replace(patched, extras=replace(patched.extras, edits=far))
        )
        assert not decoded.matches

    @pytest.mark.parametrize(
        "changes",
        [
            {"stored": "all"},
            {"stored": [0, 0]},
            {"stored": [99]},
            {"stored": [-1]},
            {"stored": [True]},
            {"patched": -1},
            {"edited": "no"},
            {"bits": [4.0]},
            {"bits": [9]},
            {"bits": "all"},
            {"sizes": {"plain": -1}},
            {"sizes": []},
            {"format": 1},
        ],
    )
    def test_headers_of_another_kind(self, patched, path, changes):
        path.write_bytes(_with_header(patched, changes))
        with pytest.raises(FileError, match=f"its header has .* as '{next(iter(changes))}"):
            EncodedText.load(path)

    def test_stored_chunks_that_are_not_there(self, patched, path):
        whole = replace(patched, extras=Extras())
        path.write_bytes(whole.to_bytes())
        with pytest.raises(FileError, match="chunks are stored as tokens, and there are none"):
            EncodedText.load(path)


def _with_header(encoded, changes):
    """A file whose header says what its tensors do not know of."""
    from safetensors.torch import load as load_tensors
    from safetensors.torch import save

    from prototokens.ptok.header import write_header
    from prototokens.ptok.tensors import tensors_hash

    tensors = load_tensors(encoded.to_bytes())
    return save(
        tensors,
        metadata=write_header(
            {**encoded.header.as_json(), "tensors_sha256": tensors_hash(tensors), **changes}
        ),
    )


class TestOtherWeights:
    def test_one_bit_of_one_weight_is_noticed(self, tiny_folder, tmp_path):
        lm = pt.FrozenLM.from_pretrained(tiny_folder)
        pt.encode(lm, "Call me Ishmael.").save(tmp_path / "x.ptok")
        changed = tmp_path / "changed"
        shutil.copytree(tiny_folder, changed)
        weights = load_file(changed / "model.safetensors")
        name = max(weights, key=lambda name: weights[name].numel())
        weights[name].view(-1).view(torch.int32)[0] ^= 1  # the last bit of a float32
        save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
        other = pt.FrozenLM.from_pretrained(changed)
        loaded = EncodedText.load(tmp_path / "x.ptok")
        with pytest.raises(FileError, match="fingerprint"):
            decode_text(other, loaded)
        assert decode_text(
            other, loaded, any_model=True
        ).matches  # so small a change, within the margins

    def test_are_refused_without_any_model_and_then_judged_by_the_hash(
        self, tiny_llama, tiny_neox, path
    ):
        pt.encode(tiny_llama, "Call me Ishmael.").save(path)
        loaded = EncodedText.load(path)
        with pytest.raises(FileError, match="was made for the model 'tiny-llama'"):
            decode_text(tiny_neox, loaded)
        decoded = decode_text(tiny_neox, loaded, any_model=True)
        assert not decoded.matches
        assert decoded.text != "Call me Ishmael."
