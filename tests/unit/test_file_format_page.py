"""docs/file-format.md, followed to the letter: files are read and written with the standard library and NumPy alone."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import prototokens as pt
from prototokens.errors import FileError

PAGE = Path(__file__).parents[2] / "docs" / "file-format.md"
KINDS = {"slots": ("I32", "<i4", "torch.int32"), "vectors": ("F32", "<f4", "torch.float32")}
TEXT = "Grüße, sea"


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
    assert sorted(outer) == sorted(KINDS)
    tensors, spans = {}, []
    for name, declared in outer.items():
        begin, end = declared["data_offsets"]
        assert declared["dtype"] == KINDS[name][0]
        tensors[name] = np.frombuffer(data[begin:end], KINDS[name][1]).reshape(declared["shape"])
        spans.append((begin, end))
    spans.sort()
    assert [spans[0][0], spans[0][1], spans[1][1]] == [0, spans[1][0], len(data)]  # no gaps, nothing behind the last
    return metadata["prototokens"], metadata["sha256"], tensors


def write(header, tensors, order=("slots", "vectors")):
    """A file's bytes."""
    text = json.dumps({**header, "tensors_sha256": tensors_hash(tensors)})
    outer = {"__metadata__": {"prototokens": text, "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}}
    data = b""
    for name in order:
        raw = tensors[name].astype(KINDS[name][1]).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        outer[name] = {"dtype": KINDS[name][0], "shape": list(tensors[name].shape), "data_offsets": offsets}
        data += raw
    head = json.dumps(outer).encode("utf-8")
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data


def tensors_hash(tensors):
    digest = hashlib.sha256()
    for name in ("slots", "vectors"):
        rows, columns = tensors[name].shape
        digest.update(f"{name} {KINDS[name][2]} ({rows}, {columns})\n".encode("ascii"))
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
    options = {"layout": "paper", "share": "m"} if request.param == "shared m" else {"layout": "tiled:2"}
    encoded = pt.encode(tiny_llama, TEXT, chunk_length=5, recipe=pt.Recipe.named("fast", steps=60), **options)
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
    assert sorted(header) == sorted(table)
    wrong = {key: value for key, value in header.items() if not TYPES[table[key]](value)}
    assert not wrong


def test_the_header_is_written_as_the_page_says(made):
    text = read(made[1])[0]
    assert text.isascii()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), allow_nan=False)


def test_the_values_mean_what_the_page_says(made, tiny_llama):
    header, tensors = json.loads(read(made[1])[0]), read(made[1])[2]
    raw = TEXT.encode("utf-8")
    assert header["format"] == 1
    assert header["text"] == {
        "sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw), "characters": len(TEXT), "tokens": sum(header["chunks"]),
    }  # fmt: skip
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
        digest.update(f"{name}\t{array.dtype}\t{'x'.join(str(size) for size in array.shape)}\t{inner}\n".encode())
    assert tiny_llama.fingerprint == digest.hexdigest()


def test_the_tokenizers_hash_is_the_one_that_the_page_describes(tiny_folder):
    lm = pt.FrozenLM.from_pretrained(tiny_folder)
    form = json.loads(lm.tokenizer.backend_tokenizer.to_str())
    form.pop("truncation")
    form.pop("padding")
    assert lm.tokenizer_hash == hashlib.sha256(json.dumps(form, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()


@pytest.mark.parametrize("order", [("slots", "vectors"), ("vectors", "slots")], ids=["slots first", "vectors first"])
def test_a_file_written_by_the_page_is_read_by_the_package(made, order, tmp_path):
    text, _, tensors = read(made[1])
    (tmp_path / "ours.ptok").write_bytes(write({**json.loads(text), "a_later_key": {"x": 1}}, tensors, order))
    loaded = pt.EncodedText.load(tmp_path / "ours.ptok")
    assert np.array_equal(loaded.vectors.numpy(), tensors["vectors"])
    assert np.array_equal(loaded.slots.numpy(), tensors["slots"])


def test_the_first_fault_in_the_pages_order_is_the_one_that_is_told(made, tmp_path):
    """A file with a fault of each kind, mended from the first to the last."""
    text, _, tensors = read(made[1])
    bad = {name: tensor.copy() for name, tensor in tensors.items()}
    bad["vectors"][0, 0] = np.nan
    bad["slots"][0, 0] = len(bad["vectors"])
    good = json.loads(text)
    path = tmp_path / "bad.ptok"

    def told(raw):
        path.write_bytes(raw)
        with pytest.raises(FileError) as raised:
            pt.EncodedText.load(path)
        return str(raised.value)

    faulty = {**good, "format": 2, "chunks": [*good["chunks"], 1]}
    assert "not a whole .ptok file" in told(write(faulty, bad)[:-1])
    assert "format 2" in told(write(faulty, bad).replace(b"recipe", b"rezept"))  # its hash is wrong too
    faulty["format"] = 1
    assert "not the one that was saved" in told(write(faulty, bad).replace(b"recipe", b"rezept"))
    assert "lacks what decoding needs" in told(write(faulty, bad))
    wide = {**bad, "slots": np.concatenate([bad["slots"], bad["slots"]], axis=1)}
    assert "its slots have shape" in told(write(good, wide))
    whole = write(good, bad, order=("slots", "vectors"))
    assert "its vectors are not the ones" in told(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "not finite" in told(whole)
    assert "names a vector that is not there" in told(write(good, {**bad, "vectors": tensors["vectors"]}))
