"""A damaged or forged `.ptok` file is refused by name or gives the right text, never another."""

import copy
import errno
import hashlib
import json
import os
import pickle
import random
import tracemalloc
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

import prototokens as pt
from prototokens.decoding import decode_text
from prototokens.errors import FileError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.header import FORMAT, write_header
from prototokens.ptok.tensors import tensors_hash

TEXT = "Call me Ishmael."
FLIPS = 200
READ_LATER = [
    "model",
    "tokenizer",
    "layout",
    "chunks",
    "text",
    "exact",
    "accuracy",
    "min_margin",
    "row_steps",
    "recipe",
    "versions",
]


@pytest.fixture(scope="module")
def encoded(tiny_llama):
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=4)
    assert encoded.exact
    return encoded


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.ptok"


@pytest.fixture
def refused(path):
    """Write a content and load it: it must be refused with the file named and these words."""

    def refused(content, words=""):
        path.write_bytes(content)
        with pytest.raises(FileError) as refusal:
            EncodedText.load(path)
        assert str(path) in str(refusal.value)
        assert words in str(refusal.value)
        assert "\n" not in str(refusal.value)
        return True

    return refused


def forged(encoded, tensors=None, whole=None, **changes):
    """A file with other tensors or header values, whose hashes all agree.

    Args:
        tensors: in place of its own.
        whole: in place of the whole header.
        changes: values of the header; None takes a key out.
    """
    tensors = tensors or {"vectors": encoded.vectors, "slots": encoded.slots.to(torch.int32)}
    header = {**encoded.header.as_json(), "tensors_sha256": tensors_hash(tensors), **changes}
    header = {key: value for key, value in header.items() if value is not None}
    return save(tensors, metadata=write_header(header if whole is None else whole))


def test_the_forgery_of_these_tests_is_taken_where_nothing_is_wrong(encoded, tiny_llama, path):
    path.write_bytes(forged(encoded, unknown_key=[1, 2]))
    assert pt.decode(tiny_llama, EncodedText.load(path)) == TEXT


def loaded_or_refused(path):
    """What a file holds, or why it is refused."""
    try:
        return EncodedText.load(path), ""
    except FileError as refusal:
        return None, str(refusal)


class TestDamage:
    def test_truncated(self, encoded, refused):
        whole = encoded.to_bytes()
        for part in range(64):
            assert refused(whole[: len(whole) * part // 64], "truncated")
        assert refused(whole[:-1], "truncated")
        assert refused(whole + b"\0")

    def test_one_flipped_bit_is_refused_or_changes_nothing(self, encoded, tiny_llama, path):
        whole, chance, taken = encoded.to_bytes(), random.Random(0), 0
        for _ in range(FLIPS):
            damaged = bytearray(whole)
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            loaded, refusal = loaded_or_refused(path)
            if loaded is None:
                assert str(path) in refusal
            else:
                taken += 1
                assert pt.decode(tiny_llama, loaded) == TEXT
        assert taken < FLIPS / 20

    def test_every_byte_of_the_tensors_is_covered(self, encoded, refused):
        whole = encoded.to_bytes()
        start = 8 + int.from_bytes(whole[:8], "little")
        for offset in range(start, len(whole), 97):
            damaged = bytearray(whole)
            damaged[offset] ^= 1
            assert refused(bytes(damaged), "its vectors are not the ones that were saved")

    def test_every_byte_of_the_header_is_covered(self, encoded, refused):
        whole = encoded.to_bytes()
        start, end = whole.index(b"chunks_exact"), whole.index(b"vocab_size")
        for offset in range(start, end, 23):
            damaged = bytearray(whole)
            damaged[offset] = ord("0") if damaged[offset] != ord("0") else ord("1")
            assert refused(bytes(damaged))


class TestNumbers:
    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_not_finite(self, encoded, refused, number):
        vectors = encoded.vectors.clone()
        vectors[1, 3] = number
        assert refused(replace(encoded, vectors=vectors).to_bytes(), "not finite")

    @pytest.mark.parametrize("value", [-1, 20, 2**31 - 1])
    def test_a_slot_of_no_vector(self, encoded, refused, value):
        slots = encoded.slots.clone()
        slots[0, 0] = value
        assert refused(replace(encoded, slots=slots).to_bytes(), "names a vector that is not there")


class TestTensors:
    def test_swapped(self, encoded, refused):
        own = {"vectors": encoded.vectors, "slots": encoded.slots.to(torch.int32)}
        assert refused(
            forged(encoded, {"vectors": own["slots"], "slots": own["vectors"]}),
            "of another kind than",
        )

    def test_wrong_shapes(self, encoded, refused):
        vectors, slots = encoded.vectors, encoded.slots.to(torch.int32)
        for wrong in (vectors[:, :-1].contiguous(), vectors.flatten(), vectors[:0], vectors[None]):
            assert refused(
                forged(encoded, {"vectors": wrong, "slots": slots}), "its vectors have shape"
            )
        for wrong in (slots[:, :-1].contiguous(), slots[1:], slots.flatten(), slots[:0]):
            assert refused(
                forged(encoded, {"vectors": vectors, "slots": wrong}), "its slots have shape"
            )

    def test_other_kinds(self, encoded, refused):
        vectors, slots = encoded.vectors, encoded.slots.to(torch.int32)
        for wrong in (
            {"vectors": vectors.double(), "slots": slots},
            {"vectors": vectors, "slots": slots.long()},
        ):
            assert refused(forged(encoded, wrong), "of another kind than")

    def test_others(self, encoded, refused):
        own = {"vectors": encoded.vectors, "slots": encoded.slots.to(torch.int32)}
        assert refused(forged(encoded, {"vectors": own["vectors"]}), "'vectors' and 'slots'")
        assert refused(forged(encoded, {**own, "more": torch.zeros(1)}), "'vectors' and 'slots'")

    @pytest.mark.parametrize("shape", [[1 << 40, 32], [1 << 62, 1 << 62], [2**63, 2]])
    def test_huge_declared_shapes_cost_no_memory(self, encoded, refused, shape):
        whole = encoded.to_bytes()
        length = int.from_bytes(whole[:8], "little")
        declared = json.loads(whole[8 : 8 + length])
        size = 4 * shape[0] * shape[1]
        declared["vectors"] = {**declared["vectors"], "shape": shape, "data_offsets": [0, size]}
        declared["slots"]["data_offsets"] = [size, size + 80]
        text = json.dumps(declared).encode()
        tracemalloc.start()
        assert refused(
            len(text).to_bytes(8, "little") + text + whole[8 + length :],
            "is not a whole .ptok file",
        )
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
        tracemalloc.stop()

    def test_a_huge_declared_header_costs_no_memory(self, encoded, refused):
        whole = encoded.to_bytes()
        for size in (1 << 33, 2**64 - 1):
            assert refused(size.to_bytes(8, "little") + whole[8:], "is not a whole .ptok file")


class TestHeader:
    def test_newer_format(self, encoded, refused):
        words = (
            f"has format {FORMAT + 1}, and this version reads up to {FORMAT}:"
            " install a newer prototokens"
        )
        assert refused(forged(encoded, format=FORMAT + 1), words)
        assert refused(forged(encoded, whole={"format": 10**30}), "install a newer prototokens")

    @pytest.mark.parametrize(
        "text",
        ["", "no JSON", "[]", "7", '"text"', "null", "[" * 100_000, "{" * 9, '{"a":' * 100_000],
    )
    def test_is_no_json_object(self, encoded, refused, text):
        metadata = {**write_header({}), "prototokens": text}
        assert refused(
            save({"vectors": encoded.vectors}, metadata=metadata), "its header cannot be read"
        )

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
    def test_holds_impossible_numbers(self, encoded, refused, number):
        text = json.dumps({**encoded.header.as_json(), "accuracy": "HERE"}).replace(
            '"HERE"', number
        )
        metadata = {**write_header({}), "prototokens": text}
        assert refused(
            save({"vectors": encoded.vectors}, metadata=metadata), "its header cannot be read"
        )

    @pytest.mark.parametrize("key", READ_LATER)
    def test_lacks_a_key(self, encoded, refused, key):
        values = encoded.header.as_json()
        header = {name: value for name, value in values.items() if name != key}
        assert refused(forged(encoded, whole=header), f"its header lacks '{key}', ")
        if isinstance(values[key], dict):
            for wrong, found in (([], "a list of 0"), ("text", '"text"'), (5, "5")):
                words = f"its header has {found} as '{key}', and not an object"
                assert refused(forged(encoded, **{key: wrong}), words)
            assert refused(forged(encoded, **{key: {}}), f"its header lacks '{key}.")

    def test_without_format(self, encoded, refused):
        values = encoded.header.as_json()
        header = {name: value for name, value in values.items() if name != "format"}
        assert refused(forged(encoded, whole=header), "its header cannot be read")

    @pytest.mark.parametrize("wrong", ["1", 1.0, True, [1], {"a": 1}, 0, -1, "", None, 1e300])
    @pytest.mark.parametrize("key", ["format", "d_model", "tokens", "bytes", "characters"])
    def test_counts_of_another_kind(self, encoded, refused, key, wrong):
        header = json.loads(json.dumps(encoded.header.as_json()))
        offset = next(one for one in (header["text"], header["model"], header) if key in one)
        offset[key] = wrong
        assert refused(forged(encoded, whole=header), "damaged")

    @pytest.mark.parametrize(
        "wrong",
        [
            [],
            {},
            {"4": 4},
            "4444",
            16,
            [4, 4, 4, 4.0],
            [4, 4, 4, "4"],
            [4, 4, 4, True, 3],
            [8, 8, 8, -8],
            [16, 0],
            [4, 4, 4, [4]],
        ],
    )
    def test_chunks_of_another_kind(self, encoded, refused, wrong):
        assert refused(forged(encoded, chunks=wrong), "damaged")

    def test_chunks_that_do_not_add_up(self, encoded, refused):
        assert refused(forged(encoded, chunks=[4, 4, 4, 5]), "damaged")
        assert refused(forged(encoded, chunks=[8, 8]), "its slots have shape")

    @pytest.mark.parametrize(
        "wrong", [5, True, ["paper"], {"a": 1}, "", "papers", "tiled:0", "tiled:9999", "tiled:x"]
    )
    def test_layout_that_is_none(self, encoded, refused, wrong):
        assert refused(forged(encoded, layout=wrong), "as 'layout', and not")

    @pytest.mark.parametrize("wrong", [5, [], {}, True, None])
    def test_words_of_another_kind(self, encoded, refused, wrong):
        words = {
            "model": ["name", "fingerprint", "dtype"],
            "text": ["sha256"],
            "recipe": ["name"],
            "versions": ["torch"],
        }
        for part, key in ((part, key) for part, keys in words.items() for key in keys):
            values = encoded.header.as_json()[part]
            assert refused(forged(encoded, **{part: {**values, key: wrong}}), f"'{part}.{key}'")
        words = """has "yes" as 'exact', and not true or false"""
        assert refused(forged(encoded, exact="yes"), words)
        words = """has "all" as 'accuracy', and not a number"""
        assert refused(forged(encoded, accuracy="all"), words)

    @pytest.mark.parametrize(
        "wrong",
        [
            5,
            [],
            "yes",
            {"tried": 5},
            {"tried": [5]},
            {"tried": [{}]},
            {"tried": [{"wrong": "no"}]},
            {"shift": "far"},
        ],
    )
    def test_certificates_of_another_kind(self, encoded, refused, wrong):
        assert refused(forged(encoded, certificate=wrong), "'certificate")

    def test_a_file_without_a_certificate_is_read(self, encoded, tiny_llama, path):
        path.write_bytes(forged(encoded, certificate=None))
        loaded = EncodedText.load(path)
        assert not loaded.certified
        assert encoded.certified
        assert pt.decode(tiny_llama, loaded) == TEXT

    @pytest.mark.parametrize("length", [(1 << 20) + 1, 1 << 62, 10**300])
    def test_absurd_chunk_lengths(self, encoded, refused, length):
        chunks = [4, 4, 4, length]
        text = {**encoded.header.as_json()["text"], "tokens": sum(chunks)}
        assert refused(forged(encoded, chunks=chunks, text=text), "as 'chunks[3]', and not")

    def test_chunks_longer_than_the_context(self, encoded, tiny_llama, path):
        chunks = [4, 4, 4, 1 << 20]
        path.write_bytes(
            forged(
                encoded,
                chunks=chunks,
                text={**encoded.header.as_json()["text"], "tokens": sum(chunks)},
            )
        )
        with pytest.raises(
            FileError,
            match=r"x\.ptok is damaged: .* chunks of up to 1048576 tokens.* at most 128 tokens",
        ):
            pt.decode(tiny_llama, EncodedText.load(path))


class TestRepeatedKeys:
    """Two readers would read two files.

    One takes the first value of a repeated key, another the last.
    """

    @pytest.fixture
    def outer(self, encoded):
        """The header of the safetensors file, and the bytes of its tensors."""
        whole = encoded.to_bytes()
        end = 8 + int.from_bytes(whole[:8], "little")
        return whole[8:end].decode().rstrip(), whole[end:]

    @pytest.mark.parametrize(
        "repeated",
        [
            '"exact":false,',
            '"text":{"bytes":1},',
            '"format":1,',
            '"model":{"name":"/etc/passwd"},',
            '"exact":true,',
        ],
    )
    def test_in_the_formats_own_header(self, encoded, refused, repeated):
        key = repeated.split('"')[1]
        tensors = {"vectors": encoded.vectors, "slots": encoded.slots.to(torch.int32)}
        text = write_header({**encoded.header.as_json(), "tensors_sha256": tensors_hash(tensors)})[
            "prototokens"
        ]
        for changed in ("{" + repeated + text[1:], text[:-1] + "," + repeated[:-1] + "}"):
            metadata = {
                "prototokens": changed,
                "sha256": hashlib.sha256(changed.encode()).hexdigest(),
            }
            assert refused(
                save(tensors, metadata=metadata), f"its header names the key '{key}' twice"
            )

    @pytest.mark.parametrize("name", ["vectors", "slots", "__metadata__"])
    def test_in_the_header_of_safetensors(self, outer, refused, name):
        text, tensors = outer
        first = json.dumps({name: json.loads(text)[name]})[1:-1]
        for changed in ("{" + first + "," + text[1:], text[:-1] + "," + first + "}"):
            head = changed.encode()
            assert refused(
                len(head).to_bytes(8, "little") + head + tensors, f"names the key '{name}' twice"
            )

    def test_within_a_tensors_description(self, outer, refused):
        text, tensors = outer
        head = text.replace('"dtype":"F32"', '"dtype":"F64","dtype":"F32"').encode()
        assert refused(
            len(head).to_bytes(8, "little") + head + tensors, "names the key 'dtype' twice"
        )


class TestOtherFiles:
    def test_safetensors_of_somebody_else(self, refused):
        assert refused(save({"weight": torch.zeros(2)}), "no header of ours")
        assert refused(
            save({"weight": torch.zeros(2)}, metadata={"format": "pt"}), "no header of ours"
        )

    def test_pickle_empty_and_text(self, refused):
        assert refused(pickle.dumps({"vectors": [1.0]}), "not a whole .ptok file")
        assert refused(b"", "not a whole .ptok file")
        assert refused(
            b"Call me Ishmael. Some years ago, never mind how long", "not a whole .ptok file"
        )

    def test_folder_missing_and_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.ptok")
        for name, words in [
            (".", "is a folder"),
            ("none.ptok", "does not exist"),
            ("pipe.ptok", "no regular file"),
        ]:
            with pytest.raises(FileError, match=words) as refusal:
                EncodedText.load(tmp_path / name)
            assert str(tmp_path / name) in str(refusal.value)

    def test_unreadable(self, encoded, path, monkeypatch):
        def denied(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        encoded.save(path)
        monkeypatch.setattr("prototokens.ptok.stored.read_safetensors_header", denied)
        with pytest.raises(FileError, match=r"x\.ptok cannot be read \(Permission denied\)"):
            EncodedText.load(path)


class TestOtherModels:
    def test_other_weights(self, encoded, tiny_neox, path):
        encoded.save(path)
        with pytest.raises(
            FileError,
            match=r"x\.ptok was made for the model 'tiny-llama' .*, and 'tiny-gpt_neox' has",
        ) as refusal:
            pt.decode(tiny_neox, EncodedText.load(path))
        assert encoded.header.model.fingerprint[:12] in str(refusal.value)
        assert tiny_neox.fingerprint[:12] in str(refusal.value)
        assert "name the model they were made for" in str(refusal.value)

    def test_one_weight_changed(self, encoded, tiny_llama):
        weight = next(tiny_llama.model.parameters())
        before = weight[0, 0].item()
        try:
            weight.data[0, 0] += 1e-3
            other = FrozenLM(tiny_llama.model, tiny_llama.tokenizer, name="tiny-llama")
            with pytest.raises(FileError, match="that model has changed since"):
                pt.decode(other, encoded)
        finally:
            weight.data[0, 0] = before
        assert pt.decode(tiny_llama, encoded) == TEXT

    def test_other_code_for_the_same_weights(self, encoded, tiny_llama, path):
        """The same weights under other code are another model.

        Transformers 5.4 moved a factor of Gemma 1 and 2 from the body to the table.
        """
        model = copy.deepcopy(tiny_llama.model)

        def scaled(body, given, options):
            ids = options.pop("input_ids", None)
            vectors = options["inputs_embeds"] if ids is None else body.embed_tokens(ids)
            return given, {**options, "inputs_embeds": 6 * vectors}

        model.model.register_forward_pre_hook(scaled, with_kwargs=True)
        other = FrozenLM(model, tiny_llama.tokenizer, name="tiny-llama")
        assert (other.fingerprint, other.tokenizer_hash) == (
            tiny_llama.fingerprint,
            tiny_llama.tokenizer_hash,
        )
        encoded.save(path)
        with pytest.raises(
            FileError,
            match=r"x\.ptok was made with the weights of 'tiny-llama', but the code of"
            r" transformers",
        ):
            pt.decode(other, EncodedText.load(path))
        decode_text(other, EncodedText.load(path), any_model=True)

    @pytest.mark.parametrize("wrong", [5, "text", {}, ["a"], [None], [0.0] * 2000])
    def test_responses_of_another_kind(self, encoded, refused, wrong):
        assert refused(
            forged(encoded, model={**encoded.header.as_json()["model"], "response": wrong}),
            "'model.response",
        )

    def test_a_file_without_a_response_is_read(self, encoded, tiny_llama, path):
        model = {
            key: value for key, value in encoded.header.model.as_json().items() if key != "response"
        }
        path.write_bytes(forged(encoded, model=model))
        assert pt.decode(tiny_llama, EncodedText.load(path)) == TEXT

    def test_other_tokenizer(self, encoded, tiny_llama, byte_tokenizer, path):
        byte_tokenizer.add_tokens(["ab"])
        other = FrozenLM(tiny_llama.model, byte_tokenizer, name="other")
        encoded.save(path)
        with pytest.raises(
            FileError, match=r"x\.ptok was made with another tokenizer than that of 'other'"
        ):
            pt.decode(other, EncodedText.load(path))

    def test_other_width_under_the_same_name(self, encoded, tiny_llama, path):
        tensors = {"vectors": torch.zeros(20, 48), "slots": encoded.slots.to(torch.int32)}
        path.write_bytes(
            forged(encoded, tensors, model={**encoded.header.as_json()["model"], "d_model": 48})
        )
        with pytest.raises(FileError, match=r"x\.ptok is damaged: it holds vectors of width 48"):
            pt.decode(tiny_llama, EncodedText.load(path))


def test_a_text_that_differs_from_the_hash_is_reported(encoded, tiny_llama, path):
    """Vectors swapped between chunks with every hash made good.

    Only the text's own hash can tell.
    """
    path.write_bytes(
        forged(
            encoded, {"vectors": encoded.vectors, "slots": encoded.slots.flip(0).to(torch.int32)}
        )
    )
    loaded = EncodedText.load(path)
    assert decode_text(tiny_llama, loaded).text == "ael.Ishm me Call"
    with pytest.raises(pt.errors.NotExactError):
        pt.decode(tiny_llama, loaded)


def test_a_fit_without_a_finite_margin_can_still_be_saved(encoded, tiny_llama, path):
    """As a model gives whose loss is never finite."""
    solution = pt.fit(tiny_llama, [tiny_llama.tokenize("ab")], recipe=pt.Recipe(steps=0))[0]
    broken = replace(solution, correct=0, margin=-float("inf"), failure="the loss was not finite")
    pt.EncodedText.of(tiny_llama, "ab", [broken], recipe=pt.Recipe()).save(path)
    loaded = EncodedText.load(path)
    assert loaded.header.min_margin is None
    assert not loaded.exact
