"""A reader of `.ptok` files, written from docs/file-format.md: `ptok_reader.py MODEL < FILE`."""

import io
import sys
from collections import Counter

import ptok_checks as check
import torch
from ptok_checks import need
from transformers import AutoModelForCausalLM, AutoTokenizer


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
        part = bytearray(stream.read(-(-b * width // 8)))
        row = torch.frombuffer(part, dtype=torch.float16 if b == 16 else torch.uint8)
        if b < 9:
            whole = int.from_bytes(part, "little")
            row = torch.tensor([2.0 * (whole >> b * i & 2**b - 1) + 1 - 2**b for i in range(width)])
        rows.append(row.view(torch.float32) if b == 32 else row.float() * (scale if b < 9 else 1))
    return torch.vstack(rows)


def read_patches(packed, h):
    """Patches and stored chunks, by the number of the chunk, and edits."""
    patches, stored, edits, raw = {}, {}, [], check.inflate(packed.numpy().tobytes())
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
    h, tensors = check.header_and_tensors(raw)
    check.tensors(tensors, h, arrangement(h["layout"], 1)[0])
    table = tensors["vectors"] if "vectors" in tensors else unpack(tensors, h)
    need(table.isfinite().all(), "not-finite")
    extras = read_patches(tensors["patches"], h) if "patches" in tensors else ({}, {}, [])
    slots = {c: row for c, row in enumerate(tensors["slots"].tolist()) if c not in extras[1]}
    need(all(0 <= v < len(table) for row in slots.values() for v in row), "slots")
    return h, {c: table[row] for c, row in slots.items()}, extras


@torch.no_grad()
def decode(raw, folder):
    h, vectors, (patches, stored, edits) = read(raw)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    tokenizer, ids, prefix = AutoTokenizer.from_pretrained(folder), [], torch.tensor(h["prefix"])
    check.model(model, tokenizer, h)
    check.limits(model, h, patches, stored)
    model = model.to(getattr(torch, h["model"]["dtype"]))
    before = model.get_input_embeddings()(prefix.long())
    for c, n in enumerate(h["chunks"]):
        chunk = dict(enumerate(stored.get(c, [])))
        if c not in stored:
            _, index, positions = arrangement(h["layout"], n)
            keys = signs(len(index), len(vectors[c][0])) if h["keys"] else 1.0
            inputs = torch.cat([before, (vectors[c][index] * keys).to(model.dtype)])
            logits = model(inputs_embeds=inputs[None]).logits[0, len(prefix) :]
            chunk = dict(enumerate(logits[positions].argmax(-1).tolist())) | patches.get(c, {})
        ids += chunk.values()
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    old, new, at = text.encode("utf-8", "surrogatepass"), b"", 0
    for keep, drop, insertion in edits:
        new, at = new + old[at : at + keep] + insertion, at + keep + drop
    new += old[at:]
    need(at <= len(old) and check.sha256(new) == h["text"]["sha256"], "text")
    return new


if __name__ == "__main__":
    sys.stdout.buffer.write(decode(sys.stdin.buffer.read(), sys.argv[1]))
