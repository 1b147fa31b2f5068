"""A validator of `.ptok` files: every fault of the table of errors in docs/file-format.md, by name.

The reader beside it (`ptok_reader.py`) checks the hashes; this checks what else a reader must.
"""

import hashlib
import io
import json
import zlib

import ptok_reader
import torch
from safetensors.torch import load
from transformers import AutoModelForCausalLM, AutoTokenizer

STRINGS = ("tokenizer", "layout", "tensors_sha256", "text.sha256")
STRINGS += ("model.fingerprint", "model.dtype")
NUMBERS = {
    "format": range(1, 4),
    "keys": range(2),
    "model.d_model": range(1, 2**20 + 1),
    "text.bytes": range(1, 2**63),
    "text.tokens": range(1, 2**63),
}
LISTS = {
    "chunks": range(1, 2**20 + 1),
    "prefix": range(2**20),
    "stored": range(2**63),
    "bits": (*range(1, 9), 16, 32),
}
SINCE = {"stored": 2, "patched": 2, "edited": 2, "bits": 2, "prefix": 3}


class FormatError(ValueError):
    """A fault of a file; the argument is its name in the specification's table of errors."""


def need(condition, name):
    if not condition:
        raise FormatError(name)


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


def parse(text, name):
    """A JSON object whose keys are unique and whose numbers are finite."""

    def unique(pairs):
        need(len(dict(pairs)) == len(pairs), name)
        return dict(pairs)

    try:
        text = text if isinstance(text, str) else text.decode()
        found = json.loads(text, object_pairs_hook=unique)
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        found = None
    need(isinstance(found, dict), name)
    return found


def at(header, path):
    for key in path.split("."):
        header = header.get(key) if isinstance(header, dict) else None
    return header


def header_and_tensors(raw):
    """The header, in which what may be absent has its default, and the tensors."""
    n = int.from_bytes(raw[:8], "little")
    need(0 < n <= min(2**24, len(raw) - 8), "container")
    metadata = parse(raw[8 : 8 + n], "container").get("__metadata__", {})
    try:
        found = load(raw)
    except Exception as error:  # whatever safetensors finds wrong
        raise FormatError("container") from error
    need("prototokens" in metadata, "no-header")
    h = parse(metadata["prototokens"], "json")
    need("format" in h, "json")
    for key, newest in (("format", 3), ("keys", 1)):
        need(type(h.get(key)) is not int or h[key] <= newest, "version")
    need(sha256(metadata["prototokens"].encode()) == metadata.get("sha256"), "header-hash")
    check_header(h)
    return h, found


def check_header(h):
    since = [least for key, least in SINCE.items() if key in h]
    for key, default in {"keys": 0, "prefix": [], "stored": []}.items():
        h.setdefault(key, default)
    need(all(isinstance(at(h, path), str) for path in STRINGS), "header")
    need(all(isinstance(h.get(key, []), list) for key in LISTS), "header")
    whole = [(at(h, path), known) for path, known in NUMBERS.items()]
    whole += [(value, known) for key, known in LISTS.items() for value in h.get(key, [])]
    need(all(type(value) is int and value in known for value, known in whole), "header")
    need(h.get("chunks") and sum(h["chunks"]) == h["text"]["tokens"], "header")
    need(len({*h["stored"]}) == len(h["stored"]), "header")
    need(max(h["stored"], default=0) < len(h["chunks"]), "header")
    need(len(h["prefix"]) <= 2**20 and h["format"] >= max(since, default=1), "header")
    need(h["keys"] == h["layout"].startswith("keyed:"), "header")


def check_tensors(found, h, vectors):
    """Refuse tensors that the header does not need, and those that are not the saved ones."""
    width, bits, rows = h["model"]["d_model"], h.get("bits"), 0
    shapes = {"slots": (torch.int32, (len(h["chunks"]), vectors))}
    if bits is None:
        if "vectors" in found and found["vectors"].ndim:
            rows = len(found["vectors"])
        need(rows or h["stored"], "tensors")
        shapes["vectors"] = (torch.float32, (rows, width))
    else:
        shapes["codes"] = (torch.uint8, (sum(-(-b * width // 8) for b in bits),))
        shapes["scale"] = (torch.float32, (len(bits),))
    if "patches" in found and h["format"] > 1:
        shapes["patches"] = (torch.uint8, (found["patches"].numel(),))
    need({name: (one.dtype, tuple(one.shape)) for name, one in found.items()} == shapes, "tensors")
    digest = hashlib.sha256()
    for name, tensor in sorted(found.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    need(digest.hexdigest() == h["tensors_sha256"], "tensors-hash")
    need("patches" in found or not h["stored"], "patches")


def inflate(packed):
    """The unpacked bytes of patches, stored chunks and edits."""
    unpacker = zlib.decompressobj(-15)
    try:
        raw = unpacker.decompress(packed, 2**21 + 1)
    except zlib.error as error:
        raise FormatError("patches") from error
    need(unpacker.eof and not unpacker.unused_data and len(raw) <= 2**21, "patches")
    return raw


def check_model(lm, tokenizer, h):
    """Refuse another model or tokenizer; the model is still in the dtype of its checkpoint."""
    digest = hashlib.sha256(b"prototokens state 1\n")
    for name, tensor in sorted(lm.state_dict().items()):
        raw = sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        shape = "x".join(map(str, tensor.shape))
        digest.update(f"{name}\t{str(tensor.dtype).split('.')[1]}\t{shape}\t{raw}\n".encode())
    need(digest.hexdigest() == h["model"]["fingerprint"], "model")
    form = json.loads(tokenizer.backend_tokenizer.to_str())
    form = {key: value for key, value in form.items() if key not in ("truncation", "padding")}
    form = json.dumps(form, sort_keys=True, ensure_ascii=False)
    need(sha256(form.encode()) == h["tokenizer"], "tokenizer")


def check_limits(lm, h, patches, stored):
    """Refuse ids, widths and lengths that the model does not take."""
    table, longest = lm.get_input_embeddings().weight, lm.config.max_position_embeddings
    ids = [token for patch in patches.values() for token in patch.values()]
    ids += [token for tokens in stored.values() for token in tokens]
    need(max(ids, default=0) < lm.config.vocab_size, "limits")
    need(max(h["prefix"], default=0) < len(table), "limits")
    need(h["model"]["d_model"] == table.shape[1], "limits")
    lengths = [n for c, n in enumerate(h["chunks"]) if c not in stored]
    extra = len(h["prefix"]) + (h["layout"] == "free")
    need(max(lengths, default=0) + extra <= longest, "limits")


def read_patches(packed, h):
    """Patches and stored chunks, by the number of the chunk, and edits."""
    patches, stored, edits, raw = {}, {}, [], inflate(packed.numpy().tobytes())
    stream = io.BytesIO(raw)

    def number(shift=0):
        byte = stream.read(1)
        need(byte and shift < 35, "patches")
        return (byte[0] & 127) << shift | (number(shift + 7) if byte[0] > 127 else 0)

    for c, length in enumerate(h["chunks"]):
        if c in h["stored"]:
            stored[c] = [number() for _ in range(length)]
            continue
        position, patches[c] = -1, {}
        for _ in range(number()):
            position += 1 + number()
            need(position < length, "patches")
            patches[c][position] = number()
    while stream.tell() < len(raw):
        keep, drop, size = number(), number(), number()
        edits.append((keep, drop, stream.read(size)))
        need(len(edits[-1][2]) == size, "patches")
    need(sum(len(insertion) for *_, insertion in edits) <= h["text"]["bytes"], "patches")
    return patches, stored, edits


def read(raw):
    """The header, the vectors of each chunk, and (patches, stored chunks, edits)."""
    h, tensors = header_and_tensors(raw)
    try:
        count, *_ = ptok_reader.arrangement(h["layout"], 1)
    except ValueError as error:
        raise FormatError("header") from error
    check_tensors(tensors, h, count)
    table = tensors["vectors"] if "vectors" in tensors else ptok_reader.unpack(tensors, h)
    need(table.isfinite().all(), "not-finite")
    extras = read_patches(tensors["patches"], h) if "patches" in tensors else ({}, {}, [])
    slots = {c: row for c, row in enumerate(tensors["slots"].tolist()) if c not in extras[1]}
    need(all(0 <= v < len(table) for row in slots.values() for v in row), "slots")
    return h, {c: table[row] for c, row in slots.items()}, extras


def decode(raw, folder):
    """The text, after every check."""
    h, _, (patches, stored, _) = read(raw)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    check_model(model, AutoTokenizer.from_pretrained(folder), h)
    check_limits(model, h, patches, stored)
    try:
        return ptok_reader.decode(raw, folder)
    except ValueError as error:
        raise FormatError(str(error)) from error
