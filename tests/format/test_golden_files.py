"""Ten files of every kind, read by a reader that was written from the specification alone.

The reader (`ptok_reader.py`) and the validator (`ptok_checks.py`) import nothing of this package.
Every error of the specification's table is provoked, in the validator and in the package, and no
fault makes the reader give another text.
"""

import ast
import hashlib
import json
import random
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import ptok_checks
import ptok_reader
import pytest
import torch
from ptok_checks import FormatError
from safetensors.numpy import load
from tests.ptok.test_file_format_page import PAGE, table_of_the_page, write

import prototokens as pt
from prototokens.decoding import decode_text
from prototokens.errors import FileError

HERE = Path(__file__).parent
FILES = sorted((HERE / "files").glob("*.ptok"))
NAMES = [path.stem for path in FILES]
BUILTIN = Path(pt.__file__).parent / "builtin"
LAYOUTS = ["one", "halves", "alternating", "free", "paper", "tiled:1", "tiled:3", "tiled:1024"]
LAYOUTS += ["keyed:1", "keyed:7", "mixed:1", "mixed:2", "mixed:4", "mixed:9"]


@pytest.fixture(scope="module")
def lm():
    return pt.FrozenLM.from_pretrained("builtin", dtype="float32")


def content(name):
    """(header, tensors) of a golden file."""
    raw = (HERE / "files" / f"{name}.ptok").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["prototokens"])
    return header, load(raw)


def rewritten(name, changes=None, tensors=None):
    """A golden file with other values in its header and other tensors, and with right hashes.

    A value None drops its key; a dot leads into an object.
    """
    header, arrays = content(name)
    for path, value in (changes or {}).items():
        *way, key = path.split(".")
        inner = header
        for part in way:
            inner = inner[part]
        if value is None:
            inner.pop(key, None)
        else:
            inner[key] = value
    arrays = {key: one for key, one in (arrays | (tensors or {})).items() if one is not None}
    return write(header, arrays, sorted(arrays))


def error_of_checks(raw):
    with pytest.raises(FormatError) as raised:
        ptok_checks.read(raw)
    return raised.value.args[0]


def error_of_package(raw, tmp_path):
    (tmp_path / "bad.ptok").write_bytes(raw)
    with pytest.raises(FileError):
        pt.EncodedText.load(tmp_path / "bad.ptok")


def test_the_reader_is_short_and_uses_nothing_of_the_package():
    allowed = {"hashlib", "io", "json", "sys", "zlib", "collections"}
    allowed |= {"safetensors", "torch", "transformers"}
    for name, more in (("ptok_reader.py", set()), ("ptok_checks.py", {"ptok_reader"})):
        source = (HERE / name).read_text(encoding="utf-8")
        nodes = list(ast.walk(ast.parse(source)))
        names = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert {one.partition(".")[0] for one in names} <= allowed | more
    assert len((HERE / "ptok_reader.py").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_reader_and_the_package_decode_a_golden_file(path, lm):
    text = path.with_suffix(".txt").read_bytes()
    assert ptok_reader.decode(path.read_bytes(), BUILTIN) == text
    encoded = pt.EncodedText.load(path)
    decoded = decode_text(lm, encoded)
    assert decoded.matches
    assert decoded.content == text


def test_the_golden_files_show_every_part_of_the_format():
    assert len(FILES) == 10
    headers = [pt.EncodedText.load(path).header for path in FILES]
    assert {header.format for header in headers} == {1, 2, 3}
    kinds = {header.layout.partition(":")[0] for header in headers}
    assert kinds == {layout.partition(":")[0] for layout in LAYOUTS}
    assert {header.shared for header in headers} == {None, "e", "m_1"}
    assert {width for header in headers for width in header.bits or ()} >= {3, 4, 16, 32}
    for wanted in ("prefix", "keys", "stored", "patched", "edited"):
        assert any(getattr(header, wanted) for header in headers), wanted
    assert any(len(header.chunks) > 2 for header in headers)
    assert sum(path.stat().st_size for path in FILES) < 200_000


def blocks_of_the_page():
    """The functions that the page defines."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        if re.search(r"^def ", block, re.MULTILINE):
            exec(block, names)
    return names


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pages_rule_is_that_of_the_package_and_of_the_reader(layout, capsys):
    rule, known = blocks_of_the_page()["arrangement"], pt.Layout.named(layout)
    for length in (1, 2, 3, 8, 33, 200):
        expected = known.vectors, known.index(length).tolist(), known.scored(length).tolist()
        assert rule(layout, length) == expected
        vectors, index, positions = ptok_reader.arrangement(layout, length)
        assert (vectors, index, list(positions)) == expected


def test_the_pages_signs_and_numbers_are_those_of_the_package(capsys):
    page, keys = blocks_of_the_page(), pt.Layout.named("keyed:2").keys(50, 40)
    assert [[page["sign"](i, j) for j in range(40)] for i in range(50)] == keys.tolist()
    assert torch.equal(ptok_reader.signs(50, 40), keys)
    header, tensors = content("keyed-2-bits-4")
    raw, width = tensors["codes"].tobytes(), header["model"]["d_model"]
    first = page["numbers"](raw[: width // 2], 4, float(tensors["scale"][0]))
    loaded = pt.EncodedText.load(HERE / "files" / "keyed-2-bits-4.ptok").vectors
    assert np.array_equal(np.array(first, np.float32), loaded[0].numpy())


HEADER_FAULTS = {
    "no layout": {"layout": None},
    "another layout": {"layout": "keyed:0"},
    "a layout with a zero": {"layout": "keyed:02"},
    "keys of another layout": {"layout": "paper"},
    "no keys": {"keys": None},
    "keys true": {"keys": True},
    "no chunks": {"chunks": []},
    "an empty chunk": {"chunks": [17, 0, 5]},
    "a chunk with a fraction": {"chunks": [17.0, 5]},
    "another sum": {"text.tokens": 23},
    "a width of 0": {"model.d_model": 0},
    "no width": {"model.d_model": None},
    "no fingerprint": {"model.fingerprint": None},
    "no dtype": {"model.dtype": None},
    "no tokenizer": {"tokenizer": None},
    "no hash of the text": {"text.sha256": None},
    "no bytes": {"text.bytes": None},
    "nine bits": {"bits": [9, 4, 4, 4]},
    "no format but bits": {"format": 1},
    "format 0": {"format": 0},
    "format true": {"format": True},
    "a prefix in format 2": {"prefix": [7]},
    "a negative id": {"prefix": [-1], "format": 3},
    "stored twice": {"stored": [0, 0]},
    "stored but not there": {"stored": [2]},
}


@pytest.mark.parametrize("changes", HEADER_FAULTS.values(), ids=HEADER_FAULTS.keys())
def test_a_header_that_cannot_be_is_refused(changes, tmp_path):
    raw = rewritten("keyed-2-bits-4", changes)
    assert error_of_checks(raw) == "header"
    error_of_package(raw, tmp_path)


def leaves(header, before=""):
    for key, value in header.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{before}{key}.")


def required_of_the_page():
    section = PAGE.read_text(encoding="utf-8").split("a file must have")[1].split("All others")[0]
    return set(re.findall(r"`([\w.]+)`", section))


@pytest.mark.parametrize("name", ["one", "keyed-1-prefix-patches", "lossless-bits-3"])
def test_a_key_may_be_absent_exactly_where_the_page_says_so(name, tmp_path):
    required = required_of_the_page()
    assert required <= table_of_the_page().keys()
    for key in leaves(content(name)[0]):
        # The first is written anew by this test; without the others it is another file.
        if key in ("tensors_sha256", "prefix") or (key == "stored" and not content(name)[0][key]):
            continue
        whole = {one for one in required if one.startswith(f"{key}.")}
        raw = rewritten(name, {key: None})
        if key in required or whole:
            error_of_package(raw, tmp_path)
        else:
            (tmp_path / "fine.ptok").write_bytes(raw)
            pt.EncodedText.load(tmp_path / "fine.ptok")
            ptok_checks.read(raw)


def container(header, data=b"\0" * 4, length=None):
    raw = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def metadata(text, digest=None):
    digest = hashlib.sha256(text.encode()).hexdigest() if digest is None else digest
    return {"__metadata__": {"prototokens": text, "sha256": digest}}


NUMBER = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
GAP = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}
OUTER_FAULTS = {
    "empty": (b"", "container"),
    "only a length": (b"\0" * 8, "container"),
    "cut": (container({**NUMBER})[:-1], "container"),
    "too long a header": (container(b" " * 64, length=2**24 + 1), "container"),
    "no JSON": (container(b"{'x': 1}"), "container"),
    "no object": (container(b"[]"), "container"),
    "no UTF-8": (container(b'{"\xff": 1}'), "container"),
    "a gap": (container(GAP, b"\0" * 8), "container"),
    "a tail": (container(NUMBER, b"\0" * 8), "container"),
    "a key twice": (container(b'{"__metadata__": {}, "__metadata__": {}}', b""), "container"),
    "no header": (container({"__metadata__": {"a": "b"}, **NUMBER}), "no-header"),
    "no header at all": (container(NUMBER), "no-header"),
    "a list": (container({**metadata("[]"), **NUMBER}), "json"),
    "no JSON inside": (container({**metadata("{"), **NUMBER}), "json"),
    "no format": (container({**metadata("{}"), **NUMBER}), "json"),
    "a key twice inside": (container({**metadata('{"format":1,"format":1}'), **NUMBER}), "json"),
    "not finite": (container({**metadata('{"format":1,"x":NaN}'), **NUMBER}), "json"),
    "too large": (container({**metadata('{"format":1,"x":1e999}'), **NUMBER}), "json"),
    "format 4": (container({**metadata('{"format":4}', "?"), **NUMBER}), "version"),
    "keys 2": (container({**metadata('{"format":1,"keys":2}', "?"), **NUMBER}), "version"),
    "another hash": (container({**metadata('{"format":1}', "?"), **NUMBER}), "header-hash"),
}


@pytest.mark.parametrize(("raw", "error"), OUTER_FAULTS.values(), ids=OUTER_FAULTS.keys())
def test_a_container_or_a_header_that_cannot_be_read_is_refused(raw, error, tmp_path):
    assert error_of_checks(raw) == error
    error_of_package(raw, tmp_path)


def packed(raw):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return np.frombuffer(packer.compress(raw) + packer.flush(), np.uint8)


def inner_faults():
    """name -> (golden file, changed values of the header, changed tensors, error)."""
    _, one = content("one")
    _, lossless = content("lossless-bits-3")
    infinite, wide = one["vectors"].copy(), np.concatenate([one["slots"], one["slots"]], 1)
    infinite[0, 0] = np.inf
    scale = lossless["scale"].copy()
    scale[int(scale.argmax())] = np.nan
    behind = one["slots"].copy()
    behind[0, 0] = len(one["vectors"])
    patched = "keyed-1-prefix-patches"
    return {
        "another dtype": ("one", {}, {"vectors": one["vectors"], "slots": None}, "tensors"),
        "wide slots": ("one", {}, {"slots": wide}, "tensors"),
        "narrow vectors": ("one", {}, {"vectors": one["vectors"][:, 1:]}, "tensors"),
        "no vectors": ("one", {}, {"vectors": one["vectors"][:0]}, "tensors"),
        "patches in format 1": ("one", {}, {"patches": packed(b"\0\0\0")}, "tensors"),
        "few codes": ("lossless-bits-3", {}, {"codes": lossless["codes"][1:]}, "tensors"),
        "infinite": ("one", {}, {"vectors": infinite}, "not-finite"),
        "NaN": ("lossless-bits-3", {}, {"scale": scale}, "not-finite"),
        "slots behind the end": ("one", {}, {"slots": behind}, "slots"),
        "negative slots": ("one", {}, {"slots": -1 - one["slots"]}, "slots"),
        "no patches": ("lossless-bits-3", {}, {"patches": None}, "patches"),
        "no stream": (patched, {}, {"patches": np.full(9, 255, np.uint8)}, "patches"),
        "half a stream": (patched, {}, {"patches": packed(bytes(99))[:-1]}, "patches"),
        "a long stream": (patched, {}, {"patches": packed(bytes(2**21 + 1))}, "patches"),
        "outside": (patched, {}, {"patches": packed(b"\1\x63\7\0")}, "patches"),
        "a number cut off": (patched, {}, {"patches": packed(b"\0\1\0\x80")}, "patches"),
        "a long number": (patched, {}, {"patches": packed(b"\0\1\0" + b"\x80" * 5)}, "patches"),
        "an insertion cut off": (patched, {}, {"patches": packed(b"\0\0\0\0\5ab")}, "patches"),
        "long insertions": (
            patched,
            {},
            {"patches": packed(b"\0\0" + b"\0\0\x64" + b"a" * 100)},
            "patches",
        ),
    }


@pytest.mark.parametrize("fault", inner_faults().values(), ids=inner_faults().keys())
def test_tensors_that_cannot_be_are_refused(fault, tmp_path):
    name, changes, tensors, error = fault
    raw = rewritten(name, changes, tensors)
    assert error_of_checks(raw) == error
    error_of_package(raw, tmp_path)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_any_flipped_bit_is_noticed(path, tmp_path):
    raw, chance = path.read_bytes(), random.Random(path.stem)
    header = 8 + int.from_bytes(raw[:8], "little")
    drawn = chance.sample(range(header), 12) + chance.sample(range(header, len(raw)), 12)
    for offset in (*range(8), *drawn):
        damaged = bytearray(raw)
        damaged[offset] ^= 1 << chance.randrange(8)
        assert error_of_checks(bytes(damaged)) in ERRORS
        error_of_package(bytes(damaged), tmp_path)


def errors_of_the_page():
    section = PAGE.read_text(encoding="utf-8").split("\n## Errors\n")[1].split("\n## ")[0]
    return re.findall(r"^\| \d+ \| `([\w-]+)` \|", section, re.MULTILINE)


ERRORS = errors_of_the_page()
TRIED = {"header", "tensors-hash", "model", "tokenizer", "limits", "text"}


def test_every_error_of_the_page_is_tried():
    """But for a file that cannot be opened, and the answer to fixed vectors, which is optional."""
    tried = TRIED | {error for _, error in OUTER_FAULTS.values()}
    tried |= {fault[-1] for fault in inner_faults().values()}
    assert set(ERRORS) - tried == {"unreadable", "response"}


def decoding_error(raw, folder=BUILTIN):
    with pytest.raises(FormatError) as raised:
        ptok_checks.decode(raw, folder)
    return raised.value.args[0]


def test_changed_tensors_are_not_the_ones_that_were_saved(tmp_path):
    raw = bytearray((HERE / "files" / "one.ptok").read_bytes())
    raw[-1] ^= 1
    assert error_of_checks(bytes(raw)) == "tensors-hash"
    error_of_package(bytes(raw), tmp_path)


MODEL_FAULTS = {
    "another model": ({"model.fingerprint": "0" * 64}, "model"),
    "another tokenizer": ({"tokenizer": "0" * 64}, "tokenizer"),
    "an unknown id before": ({"prefix": [4096]}, "limits"),
    "another text": ({"text.sha256": "0" * 64}, "text"),
}


@pytest.mark.parametrize(("changes", "error"), MODEL_FAULTS.values(), ids=MODEL_FAULTS.keys())
def test_a_model_or_a_text_that_differs_is_noticed(changes, error, lm, tmp_path):
    raw = rewritten("keyed-1-prefix-patches", changes)
    assert decoding_error(raw) == error
    (tmp_path / "bad.ptok").write_bytes(raw)
    encoded = pt.EncodedText.load(tmp_path / "bad.ptok")
    if error == "text":
        assert not decode_text(lm, encoded).matches
    else:
        with pytest.raises(FileError):
            decode_text(lm, encoded)


def test_an_edit_behind_the_end_gives_another_text(lm, tmp_path):
    patches = packed(b"\0\0" + b"\x7f\x7f\0")
    raw = rewritten("keyed-1-prefix-patches", {}, {"patches": patches})
    assert decoding_error(raw) == "text"
    (tmp_path / "bad.ptok").write_bytes(raw)
    assert not decode_text(lm, pt.EncodedText.load(tmp_path / "bad.ptok")).matches


def test_a_chunk_longer_than_the_context_is_refused(lm, tmp_path):
    raw = rewritten("one", {"chunks": [1, 1, 2000], "text.tokens": 2002})
    assert decoding_error(raw) == "limits"
    (tmp_path / "bad.ptok").write_bytes(raw)
    with pytest.raises(FileError):
        pt.EncodedText.load(tmp_path / "bad.ptok").check_model(lm)


def test_the_reader_is_a_command():
    path, command = (
        HERE / "files" / "keyed-2-bits-4.ptok",
        [sys.executable, HERE / "ptok_reader.py"],
    )
    with path.open("rb") as stdin:
        made = subprocess.run([*command, BUILTIN], stdin=stdin, capture_output=True, check=True)
    assert made.stdout == path.with_suffix(".txt").read_bytes()
