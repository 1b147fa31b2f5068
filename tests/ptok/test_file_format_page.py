"""docs/file-format.md, followed to the letter.

Files are read and written with the standard library and NumPy alone.
"""

import hashlib
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import prototokens as pt
from prototokens.errors import FileError

PAGE = Path(__file__).parents[2] / "docs" / "file-format.md"
KINDS = {
    "codes": ("U8", "u1", "torch.uint8"),
    "patches": ("U8", "u1", "torch.uint8"),
    "scale": ("F32", "<f4", "torch.float32"),
    "slots": ("I32", "<i4", "torch.int32"),
    "vectors": ("F32", "<f4", "torch.float32"),
}
TEXT = "Grüße, sea"
SECOND = {"stored", "patched", "edited", "bits"}  # keys that came with format 2
THIRD = {"keys", "prefix"}  # of keyed layouts, and of format 3


def is_integer(value):
    return type(value) is int


def is_number(value):
    return type(value) in (int, float)


def all_of(check):
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


TYPES = {
    "integer": is_integer,
    "integer or null": lambda value: value is None or is_integer(value),
    "number": is_number,
    "number or null": lambda value: value is None or is_number(value),
    "string": lambda value: isinstance(value, str),
    "string or null": lambda value: value is None or isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "list of integers": all_of(is_integer),
    "list of numbers": all_of(is_number),
    "list of objects": all_of(lambda value: isinstance(value, dict)),
    "list of strings": all_of(lambda value: isinstance(value, str)),
    "list of booleans": all_of(lambda value: isinstance(value, bool)),
}


def table_of_the_page():
    """Key -> type, from the table under the heading "Header"."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Header\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.]+)` \| ([a-z ]+) \|", section, re.MULTILINE))


def read(raw):
    """(header text, header hash, tensors) of a file's bytes."""
    length = int.from_bytes(raw[:8], "little")
    outer, data = json.loads(raw[8 : 8 + length].decode("utf-8")), raw[8 + length :]
    metadata = outer.pop("__metadata__")
    assert sorted(metadata) == ["prototokens", "sha256"]
    assert outer.keys() <= KINDS.keys()
    tensors, spans = {}, []
    for name, declared in outer.items():
        begin, end = declared["data_offsets"]
        assert declared["dtype"] == KINDS[name][0]
        tensors[name] = np.frombuffer(data[begin:end], KINDS[name][1]).reshape(declared["shape"])
        spans.append((begin, end))
    spans.sort()
    # No gaps, nothing before the first or behind the last.
    assert [0, *(end for _, end in spans)] == [*(begin for begin, _ in spans), len(data)]
    return metadata["prototokens"], metadata["sha256"], tensors


def write(header, tensors, order=("slots", "vectors")):
    """A file's bytes."""
    text = json.dumps({**header, "tensors_sha256": tensors_hash(tensors)})
    outer = {
        "__metadata__": {
            "prototokens": text,
            "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
        }
    }
    data = b""
    for name in order:
        raw = tensors[name].astype(KINDS[name][1]).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        outer[name] = {
            "dtype": KINDS[name][0],
            "shape": list(tensors[name].shape),
            "data_offsets": offsets,
        }
        data += raw
    head = json.dumps(outer).encode("utf-8")
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data


def tensors_hash(tensors):
    digest = hashlib.sha256()
    for name in sorted(tensors):
        sizes = ", ".join(map(str, tensors[name].shape)) + "," * (tensors[name].ndim == 1)
        digest.update(f"{name} {KINDS[name][2]} ({sizes})\n".encode("ascii"))
        digest.update(tensors[name].astype(KINDS[name][1]).tobytes())
    return digest.hexdigest()


def leaves(value, before=""):
    """Dotted key -> value, objects opened, lists not."""
    if not isinstance(value, dict):
        return {before: value}
    inner = (leaves(item, f"{before}.{key}" if before else key) for key, item in value.items())
    return {key: item for part in inner for key, item in part.items()}


@pytest.fixture(scope="module", params=["own vectors", "shared m"])
def made(request, tiny_llama):
    """A file as the package makes it: (what was encoded, its bytes)."""
    options = (
        {"layout": "paper", "share": "m"} if request.param == "shared m" else {"layout": "tiled:2"}
    )
    recipe = pt.Recipe.named("fast", steps=60)
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=5, recipe=recipe, inexact="keep", **options)
    return encoded, encoded.to_bytes()


def test_the_bytes_are_laid_out_as_the_page_says(made):
    encoded, raw = made
    _, _, tensors = read(raw)
    assert np.array_equal(tensors["vectors"], encoded.vectors.numpy())
    assert np.array_equal(tensors["slots"], encoded.slots.numpy())


def test_both_hashes_come_out_as_the_page_says(made):
    text, digest, tensors = read(made[1])
    assert hashlib.sha256(text.encode("utf-8")).hexdigest() == digest
    assert json.loads(text)["tensors_sha256"] == tensors_hash(tensors)


def test_the_headers_keys_are_those_of_the_pages_table_and_of_their_types(made):
    header, table = leaves(json.loads(read(made[1])[0])), table_of_the_page()
    assert sorted(header) == sorted(
        table.keys() - THIRD - (SECOND if header["format"] == 1 else set())
    )
    wrong = {key: value for key, value in header.items() if not TYPES[table[key]](value)}
    assert not wrong


def test_the_header_is_written_as_the_page_says(made):
    text = read(made[1])[0]
    assert text.isascii()
    assert text == json.dumps(
        json.loads(text), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def test_the_values_mean_what_the_page_says(made, tiny_llama):
    header, tensors = json.loads(read(made[1])[0]), read(made[1])[2]
    raw = TEXT.encode("utf-8")
    assert header["format"] == 1
    assert header["text"] == {
        "sha256": hashlib.sha256(raw).hexdigest(),
        "bytes": len(raw),
        "characters": len(TEXT),
        "tokens": sum(header["chunks"]),
    }
    assert tensors["vectors"].shape[1] == header["model"]["d_model"] == tiny_llama.d_model
    chunks = len(header["chunks"])
    assert tensors["slots"].shape == (chunks, pt.Layout.named(header["layout"]).vectors)
    assert all(len(header[key]) == chunks for key in ("chunks_exact", "steps", "seeds", "restarts"))
    if header["shared"] is None:
        assert tensors["slots"].ravel().tolist() == list(range(len(tensors["vectors"])))
    else:
        assert header["shared"] == "m_1"
        assert len(set(tensors["slots"][:, 1].tolist())) == 1
        assert len(tensors["vectors"]) == chunks + 1


def test_the_fingerprint_is_the_hash_that_the_page_describes(tiny_llama):
    digest = hashlib.sha256(b"prototokens state 1\n")
    for name, tensor in sorted(tiny_llama.model.state_dict().items()):
        array = tensor.numpy()
        inner = hashlib.sha256(array.tobytes()).hexdigest()
        shape = "x".join(str(size) for size in array.shape)
        digest.update(f"{name}\t{array.dtype}\t{shape}\t{inner}\n".encode())
    assert tiny_llama.fingerprint == digest.hexdigest()


def test_the_tokenizers_hash_is_the_one_that_the_page_describes(tiny_folder):
    lm = pt.FrozenLM.from_pretrained(tiny_folder)
    form = json.loads(lm.tokenizer.backend_tokenizer.to_str())
    form.pop("truncation")
    form.pop("padding")
    assert (
        lm.tokenizer_hash
        == hashlib.sha256(
            json.dumps(form, sort_keys=True, ensure_ascii=False).encode("utf-8")
        ).hexdigest()
    )


@pytest.mark.parametrize(
    "order", [("slots", "vectors"), ("vectors", "slots")], ids=["slots first", "vectors first"]
)
def test_a_file_written_by_the_page_is_read_by_the_package(made, order, tmp_path):
    text, _, tensors = read(made[1])
    (tmp_path / "ours.ptok").write_bytes(
        write({**json.loads(text), "a_later_key": {"x": 1}}, tensors, order)
    )
    loaded = pt.EncodedText.load(tmp_path / "ours.ptok")
    assert np.array_equal(loaded.vectors.numpy(), tensors["vectors"])
    assert np.array_equal(loaded.slots.numpy(), tensors["slots"])


def test_the_first_fault_in_the_pages_order_is_the_one_reported(made, tmp_path):
    """A file with a fault of each kind, repaired from the first to the last."""
    text, _, tensors = read(made[1])
    bad = {name: tensor.copy() for name, tensor in tensors.items()}
    bad["vectors"][0, 0] = np.nan
    bad["slots"][0, 0] = len(bad["vectors"])
    good = json.loads(text)
    path = tmp_path / "bad.ptok"

    def message(raw):
        path.write_bytes(raw)
        with pytest.raises(FileError) as raised:
            pt.EncodedText.load(path)
        return str(raised.value)

    faulty = {**good, "format": 4, "chunks": [*good["chunks"], 1]}
    assert "not a whole .ptok file" in message(write(faulty, bad)[:-1])
    assert "format 4" in message(
        write(faulty, bad).replace(b"recipe", b"rezept")
    )  # its hash is wrong too
    faulty["format"] = 1
    assert "not the one that was saved" in message(write(faulty, bad).replace(b"recipe", b"rezept"))
    assert "its header has" in message(write(faulty, bad))
    wide = {**bad, "slots": np.concatenate([bad["slots"], bad["slots"]], axis=1)}
    assert "its slots have shape" in message(write(good, wide))
    whole = write(good, bad, order=("slots", "vectors"))
    assert "its vectors are not the ones" in message(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "not finite" in message(whole)
    assert "names a vector that is not there" in message(
        write(good, {**bad, "vectors": tensors["vectors"]})
    )


def numbers_of(raw):
    """The numbers in unpacked patches, by the page.

    An iterator, and `raw` beside it for insertions.
    """
    offset = 0

    def number():
        nonlocal offset
        value = shift = 0
        while True:
            byte = raw[offset]
            offset, value, shift = offset + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    def stretch(count):
        nonlocal offset
        offset += count
        return raw[offset - count : offset]

    return number, stretch, lambda: offset == len(raw)


def test_few_bits_patches_and_edits_are_read_by_the_page(tiny_llama):
    """A file with all that came with format 2, against what the package reads from it."""
    raw = "Call me \xe9Ishmael, some".encode("latin-1")
    encoded = pt.encode(
        tiny_llama,
        raw,
        layout="tiled:2",
        chunk_length=6,
        bits=4,
        inexact="patch",
        recipe=pt.Recipe.named("fast", steps=16),
    )
    text, digest, tensors = read(encoded.to_bytes())
    header = json.loads(text)
    assert header["format"] == 2
    assert (hashlib.sha256(text.encode()).hexdigest(), header["tensors_sha256"]) == (
        digest,
        tensors_hash(tensors),
    )
    table = table_of_the_page()
    assert sorted(leaves(header)) == sorted(table.keys() - THIRD)
    assert not {key: value for key, value in leaves(header).items() if not TYPES[table[key]](value)}

    bits, vectors, at = header["bits"], [], 0
    for width, scale in zip(bits, tensors["scale"], strict=True):
        size = -(-width * header["model"]["d_model"] // 8)
        part, at = tensors["codes"][at : at + size], at + size
        if width > 8:
            vectors.append(
                np.frombuffer(part.tobytes(), {16: "<f2", 32: "<f4"}[width]).astype(np.float32)
            )
            continue
        flags = [int(byte) >> shift & 1 for byte in part for shift in range(8)]
        codes = [
            sum(flags[width * i + j] << j for j in range(width))
            for i in range(header["model"]["d_model"])
        ]
        vectors.append(np.array([2 * code + 1 - 2**width for code in codes], np.float32) * scale)
    assert at == len(tensors["codes"])
    assert np.array_equal(np.array(vectors), encoded.vectors.numpy())
    assert {4, 32} == set(bits)

    number, stretch, ended = numbers_of(zlib.decompress(tensors["patches"].tobytes(), -15))
    patches, stored, edits = {}, {}, []
    for chunk, length in enumerate(header["chunks"]):
        if chunk in header["stored"]:
            stored[chunk] = [number() for _ in range(length)]
            assert (tensors["slots"][chunk] == -1).all()
            continue
        offset = -1
        for _ in range(number()):
            offset += 1 + number()
            patches.setdefault(chunk, {})[offset] = number()
    while not ended():
        keep, drop, count = number(), number(), number()
        edits.append((keep, drop, stretch(count)))
    assert patches == encoded.extras.patches
    assert stored == encoded.extras.stored
    assert edits == [tuple(edit) for edit in encoded.extras.edits]
    assert edits
    assert patches
    assert stored


def sign_of_the_page(i, j):
    h = (i * 0x9E3779B1 + j * 0x85EBCA77 + 1) % 2**32
    h = (h ^ (h >> 15)) * 0x2C1B3C6D % 2**32
    h = (h ^ (h >> 12)) * 0x297A2D39 % 2**32
    return -1.0 if (h ^ (h >> 15)) >> 31 else 1.0


def test_a_keyed_file_with_a_prefix_is_decoded_by_the_page(tiny_llama):
    encoded = pt.encode(tiny_llama, "Call me", layout="keyed:2", prefix=[7, 3, 9], chunk_length=4)
    text, _, tensors = read(encoded.to_bytes())
    header, table = json.loads(text), table_of_the_page()
    assert (header["format"], header["layout"], header["keys"], header["prefix"]) == (
        3,
        "keyed:2",
        1,
        [7, 3, 9],
    )
    assert sorted(leaves(header)) == sorted(table.keys() - SECOND)
    ids = []
    for slots, length in zip(tensors["slots"], header["chunks"], strict=True):
        rows = [[sign_of_the_page(i, j) for j in range(tiny_llama.d_model)] for i in range(length)]
        inputs = torch.tensor(rows) * torch.tensor(
            tensors["vectors"][slots[[i % 2 for i in range(length)]]]
        )
        before = tiny_llama.model.get_input_embeddings()(torch.tensor(header["prefix"]))
        logits = tiny_llama.model(inputs_embeds=torch.cat([before, inputs])[None]).logits[
            0, len(before) :
        ]
        ids += logits.argmax(-1).tolist()
    assert tiny_llama.detokenize(ids) == "Call me"


def test_keys_and_prefixes_that_cannot_be_are_refused(tiny_llama, tmp_path):
    encoded, path = (
        pt.encode(tiny_llama, "Call me", layout="keyed:2", prefix=[7]),
        tmp_path / "bad.ptok",
    )

    def message(**changes):
        header = {
            key: value
            for key, value in {**encoded.header.as_json(), **changes}.items()
            if value is not None
        }
        tensors = {
            "vectors": encoded.vectors.numpy(),
            "slots": encoded.slots.numpy().astype(np.int32),
        }
        path.write_bytes(write(header, tensors))
        with pytest.raises(FileError) as raised:
            pt.EncodedText.load(path).check_model(tiny_llama)
        return str(raised.value)

    assert "keys of version 2" in message(keys=2)
    assert "'keys'" in message(keys=None)
    assert "'keys'" in message(keys=0)
    assert "'keys'" in message(keys=True)
    assert "'keys'" in message(keys=1.0)
    assert "'layout'" in message(layout="keyed:1025")
    assert "'keys'" in message(layout="paper")
    assert "'prefix" in message(prefix="7")
    assert "'prefix" in message(prefix=[-1])
    assert "'prefix" in message(prefix=[True])
    assert "'format'" in message(format=2)
    assert "its prefix has tokens" in message(prefix=[10**5])
    assert "format 4" in message(format=4)
