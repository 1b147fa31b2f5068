"""A reader of `.ptok` files, written from docs/file-format.md: `ptok_reader.py MODEL < FILE`."""

import hashlib
import io
import json
import sys
import zlib
from collections import Counter

import torch
from safetensors.torch import load
from transformers import AutoModelForCausalLM, AutoTokenizer


def need(condition, fault):
    if not condition:
        raise ValueError(fault)


def arrangement(layout, n):
    """The number of vectors, the vector at each position, and the positions that are read."""
    kind, _, k = ("tiled", ":", "1") if layout == "paper" else layout.partition(":")
    fixed = {"one": [0] * n, "halves": [int(2 * i >= n) for i in range(n)], "free": [0] + [1] * n}
    fixed["alternating"] = [i % 2 for i in range(n)]
    if layout in fixed:
        return 2 - (kind == "one"), fixed[kind], range(len(fixed[kind]) - n, len(fixed[kind]))
    need(kind in ("tiled", "mixed", "keyed") and k in map(str, range(1, 1025)), "header")
    count, order, seen = int(k) + (kind != "keyed"), [], Counter()
    for i in range(n):  # without contexts, as in `keyed:K`, the vectors take turns
        contexts = [tuple(order[i - back :]) for back in (1, 2, 3)[: i * (kind == "mixed")]]
        turn = [((order[-1] + 1 if order else 0) + step) % count for step in range(count)]
        order.append(min(turn, key=lambda v: [seen[*context, v] for context in contexts]))
        seen.update((*context, order[-1]) for context in contexts)
    index = order if kind != "tiled" else [0, *(1 + i % int(k) for i in range(n - 1))]
    return count, index, range(n)


def signs(n, width):
    h = torch.arange(n)[:, None] * 0x9E3779B1 + torch.arange(width) * 0x85EBCA77 + 1 & 0xFFFFFFFF
    h = (h ^ h >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    h = (h ^ h >> 12) * 0x297A2D39 & 0xFFFFFFFF
    return 1.0 - 2.0 * ((h ^ h >> 15) >> 31)


def unpack(tensors, h):
    stream, width = io.BytesIO(tensors["codes"].numpy().tobytes()), h["model"]["d_model"]
    rows = [torch.empty(0, width)]
    for b, scale in zip(h["bits"], tensors["scale"], strict=True):
        raw = bytearray(stream.read(-(-b * width // 8)))
        if b > 8:
            rows.append(torch.frombuffer(raw, dtype=getattr(torch, f"float{b}")).float())
        else:
            whole = int.from_bytes(raw, "little")
            levels = [2.0 * (whole >> b * i & 2**b - 1) + 1 - 2**b for i in range(width)]
            rows.append(scale * torch.tensor(levels))
    return torch.vstack(rows)


def read_extras(packed, chunks, in_tokens):
    """The tokens that patches set, by chunk and position, and the edits of the bytes."""
    raw = zlib.decompressobj(-15).decompress(packed.numpy().tobytes(), 2**21 + 1)
    stream, tokens, edits = io.BytesIO(raw), [{} for _ in chunks], []

    def number(shift=0):
        (byte,) = stream.read(1)
        return (byte & 127) << shift | (number(shift + 7) if byte > 127 else 0)

    for c, n in enumerate(chunks):
        position = -1
        for _ in range(n if c in in_tokens else number()):
            position += 1 if c in in_tokens else 1 + number()
            tokens[c][position] = number()
    while stream.tell() < len(raw):
        edits.append((number(), number(), stream.read(number())))
    return tokens, edits


@torch.no_grad()
def decode(raw, folder):
    """The text of a file, by the model in a folder of transformers."""
    tensors = load(raw)
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    h = {"keys": 0, "prefix": [], "stored": [], **json.loads(metadata["prototokens"])}
    need(h["format"] <= 3 and h["keys"] <= 1, "version")
    digest = hashlib.sha256(metadata["prototokens"].encode())
    need(digest.hexdigest() == metadata["sha256"], "header-hash")
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        line = f"{name} {tensor.dtype} {tuple(tensor.shape)}\n"
        digest.update(line.encode() + tensor.numpy().tobytes())
    need(digest.hexdigest() == h["tensors_sha256"], "tensors-hash")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=h["model"]["dtype"]).eval()
    tokenizer, ids = AutoTokenizer.from_pretrained(folder), []
    table = tensors["vectors"] if "vectors" in tensors else unpack(tensors, h)
    set_tokens, edits = [{} for _ in h["chunks"]], []
    if "patches" in tensors:
        set_tokens, edits = read_extras(tensors["patches"], h["chunks"], h["stored"])
    before = model.get_input_embeddings()(torch.tensor(h["prefix"]).long())
    for c, n in enumerate(h["chunks"]):
        chunk = {}
        if c not in h["stored"]:
            _, index, read_at = arrangement(h["layout"], n)
            vectors = table[tensors["slots"][c].long()][index]
            vectors = vectors * signs(*vectors.shape) if h["keys"] else vectors
            inputs = torch.cat([before, vectors.to(model.dtype)])[None]
            logits = model(inputs_embeds=inputs).logits[0, len(before) :]
            chunk = dict(enumerate(logits[read_at].argmax(-1).tolist()))
        ids += (chunk | set_tokens[c]).values()
    old, new, at = tokenizer.decode(ids, clean_up_tokenization_spaces=False).encode(), b"", 0
    for keep, drop, insertion in edits:
        new, at = new + old[at : at + keep] + insertion, at + keep + drop
    new += old[at:]
    need(hashlib.sha256(new).hexdigest() == h["text"]["sha256"], "text")
    return new


if __name__ == "__main__":
    sys.stdout.buffer.write(decode(sys.stdin.buffer.read(), sys.argv[1]))
