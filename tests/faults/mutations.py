"""Mutations of valid `.ptok` files, for `mutate_files.py`.

Functions of a random number generator and two valid files.

The first four are damage: what disks, networks and editors do. The others are intent: they make all
hashes anew.
"""

from __future__ import annotations

import copy
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor

import prototokens as pt
from prototokens.decoding import decode_text
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText
from prototokens.ptok.patches import Edit, Extras, pack
from prototokens.ptok.tensors import tensors_hash

TEXT = "Call me Ishmael. Some years ago, never mind how long."
BYTES = b"Call me\xff Ish\xc3mael. \xed\xa0\xbd Some years ago\x80, never mind"

PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "~/.ssh/id_rsa",
    "file:///etc/passwd",
    "https://example.com/model",
    "//server/share",
    "C:\\Windows\\win.ini",
    "builtin/../../x",
    "./builtin",
    "owner/name",
    "owner/name/../..",
    "hf://owner/name",
    "/dev/stdin",
    "/proc/self/mem",
    "builtin\0",
    "builtin\n",
    "\x1b[2J\x1b[31m",
    "$(touch x)",
    "refs/pr/1",
    "..",
    "",
    "a" * 100_000,
    "\ud800",
]
ABSURD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3,
    7,
    31,
    1 << 20,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64,
    10**40,
    10**400,
    -(10**400),
    10**4000,
    0.5,
    -0.5,
    -0.0,
    1e-320,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "a",
    "0",
    "NaN",
    "paper",
    "one",
    "free",
    "halves",
    "tiled:2",
    "tiled:1024",
    "tiled:" + "0" * 5000 + "1",
    "float16",
    "\0",
    "\ud800",
    "\u202e",
    "x" * 100_000,
    [],
    [[]],
    [0],
    [-1],
    [1],
    [True],
    [2**31],
    [2**63],
    [1e308],
    [None],
    ["a"],
    [32],
    [4],
    list(range(1000)),
    {},
    {"": None},
    {"a": []},
    {"wrong": 0},
    [{"wrong": 0}],
    [{"wrong": 10**400}],
    [{}],
    {"tried": [{"wrong": 1}], "shift": 10**400},
    {"tried": [{"wrong": 0}], "threshold": 10**400, "shift": 0.5, "least_margin": 1.0},
]

EACH_KIND: list[Any] = [None, True, -1, 0, 10**300, 0.5, float("nan"), "x", [], [0], {}]


class Valid(NamedTuple):
    """A file as it was saved, and in parts.

    Attributes:
        text: what it decodes to.
        raw: the file.
        header: ours.
        tensors: by name.
    """

    name: str
    text: bytes
    raw: bytes
    header: dict[str, Any]
    tensors: dict[str, Tensor]

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and tensors, to be changed."""
        return copy.deepcopy(self.header), {
            name: tensor.clone() for name, tensor in self.tensors.items()
        }


Mutation = Callable[[Random, Valid, Valid], bytes]


def valid_files(lm: FrozenLM) -> list[Valid]:
    """Files of every kind that there is, made with this model."""
    tried = pt.Recipe(steps=0)
    made = {
        "paper": pt.encode(lm, TEXT[:16], layout="paper", chunk_length=4),
        "tiled": pt.encode(lm, TEXT, layout="tiled:4", chunk_length=12),
        "shared m": pt.encode(lm, TEXT[:16], layout="paper", chunk_length=4, share="m"),
        "few bits": pt.encode(lm, TEXT, layout="tiled:4", chunk_length=12, bits=6),
        "mixed bits": pt.encode(lm, TEXT[:30], layout="tiled:4", chunk_length=10, bits="auto"),
        "stored": pt.encode(lm, TEXT, chunk_length=8, recipe=tried, certify="none"),
        "stored and edits": pt.encode(lm, BYTES, chunk_length=8, recipe=tried, certify="none"),
        "patches": _patched(lm, TEXT.encode()),
        "patches, bits and edits": _patched(lm, BYTES, bits=8),
    }
    return [_valid(name, lm, encoded) for name, encoded in made.items()]


def _patched(lm: FrozenLM, text: bytes, **options: Any) -> EncodedText:
    """A text of which a fit that is cut short holds a part."""
    for steps in range(5, 400, 5):
        recipe = pt.Recipe(steps=steps, restarts=0)
        encoded = pt.encode(
            lm,
            text,
            layout="tiled:4",
            chunk_length=12,
            recipe=recipe,
            inexact="patch",
            certify="none",
            **options,
        )
        if encoded.extras.patches:
            return encoded
    raise RuntimeError("no fit left anything to patch")


def _valid(name: str, lm: FrozenLM, encoded: EncodedText) -> Valid:
    raw, decoded = encoded.to_bytes(), decode_text(lm, encoded)
    if not decoded.matches:
        raise RuntimeError(f"the file {name!r} does not decode to its text")
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["prototokens"])
    return Valid(name, decoded.content, raw, header, load_tensors(raw))


def forged(header: dict[str, Any], tensors: dict[str, Tensor], text: str | None = None) -> bytes:
    """A file whose hashes all agree.

    Args:
        text: the header's JSON, where it is to be another than that of `header`.
    """
    text = text or json.dumps(
        {**header, "tensors_sha256": tensors_hash(tensors)}, sort_keys=True, separators=(",", ":")
    )
    return save(
        tensors, metadata={"prototokens": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    )


def flipped_bits(chance: Random, one: Valid, other: Valid) -> bytes:
    damaged = bytearray(one.raw)
    for _ in range(chance.choice([1, 1, 1, 2, 8, 64])):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def changed_bytes(chance: Random, one: Valid, other: Valid) -> bytes:
    damaged = bytearray(one.raw)
    for _ in range(chance.choice([1, 1, 2, 16])):
        damaged[chance.randrange(len(damaged))] = chance.choice(
            [0, 0xFF, ord("0"), ord('"'), chance.randrange(256)]
        )
    return bytes(damaged)


def spliced(chance: Random, one: Valid, other: Valid) -> bytes:
    """A stretch of this file or another one put in, in place of one, or left out.

    Or a block of zeros, as a torn write.
    """
    start, stop = sorted(chance.randrange(len(one.raw) + 1) for _ in range(2))
    source = chance.choice([one.raw, other.raw])
    begin, end = sorted(chance.randrange(len(source) + 1) for _ in range(2))
    middle = chance.choice(
        [
            b"",
            source[begin:end],
            source[start:stop],
            bytes(stop - start),
            chance.randbytes(end - begin),
        ]
    )
    return one.raw[:start] + middle + one.raw[chance.choice([start, stop]) :]


def outer_header(chance: Random, one: Valid, other: Valid) -> bytes:
    """What safetensors reads: names, dtypes, shapes and offsets of tensors, twice or too large."""
    length = int.from_bytes(one.raw[:8], "little")
    declared, data = json.loads(one.raw[8 : 8 + length]), one.raw[8 + length :]
    name = chance.choice(sorted(one.tensors))
    tensor, size = declared[name], len(data)
    match chance.randrange(7):
        case 0:
            tensor["shape"] = chance.choice(
                [[], [0], [2**63, 2], [2**64 - 1], [1 << 40, 1 << 40], [-1], [0, 2**63], [1.5], "x"]
            )
        case 1:
            tensor["dtype"] = chance.choice(
                ["F64", "F16", "BF16", "BOOL", "F8_E4M3", "I64", "U8", "x", 7, None]
            )
        case 2:
            ends = [0, 1, size, size + 1, 2**32, 2**63, 2**64 - 1, -1]
            tensor["data_offsets"] = [chance.choice(ends), chance.choice(ends)]
        case 3:
            declared[chance.choice(["more", "__metadata__2", "\n", *other.tensors])] = dict(tensor)
        case 4:
            shape = [1 << chance.randrange(62), 1 << chance.randrange(62)]
            declared[name] = {
                **tensor,
                "shape": shape,
                "data_offsets": [0, 4 * shape[0] * shape[1]],
            }
        case 5:
            pair = chance.choice(sorted(one.tensors))
            declared[name], declared[pair] = declared[pair], declared[name]
        case 6:
            declared["__metadata__"] |= {
                chance.choice(["sha256", "more", "format"]): chance.choice(PATHS)
            }
    text = json.dumps(declared)
    if chance.random() < 0.2:
        text = text[:-1] + "," + text[1:]  # every key twice
    raw = text.encode()
    stated = chance.choice(
        [len(raw)] * 8 + [0, len(raw) - 1, len(raw) + 1, 2**32, 2**63, 2**64 - 1]
    )
    return stated.to_bytes(8, "little") + raw + data


def values(chance: Random, one: Valid, other: Valid) -> bytes:
    """Values of the header replaced by absurd ones of every kind."""
    header, tensors = one.parts()
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        owner, key = chance.choice(list(_values(header)))
        owner[key] = copy.deepcopy(chance.choice(ABSURD))
    return forged(header, tensors)


def keys(chance: Random, one: Valid, other: Valid) -> bytes:
    """Keys taken out, added, or with the value of another key."""
    header, tensors = one.parts()
    for _ in range(chance.choice([1, 1, 3])):
        owner, key = chance.choice(list(_values(header)))
        match chance.randrange(4):
            case 0:
                del owner[key]
            case 1:
                from_owner, from_key = chance.choice(list(_values(other.header)))
                owner[key] = copy.deepcopy(from_owner[from_key])
            case 2:
                header[
                    chance.choice(["stored", "bits", "patched", "edited", "sizes", "shared"])
                ] = copy.deepcopy(chance.choice(ABSURD))
            case 3:
                header = {
                    **header,
                    **{
                        name: copy.deepcopy(other.header[name])
                        for name in chance.sample(sorted(other.header), 3)
                    },
                }
    return forged(header, tensors)


def header_text(chance: Random, one: Valid, other: Valid) -> bytes:
    """JSON that is odd as a text: keys twice, deep nesting, numbers of thousands of digits."""
    header, tensors = one.parts()
    text = json.dumps({**header, "tensors_sha256": tensors_hash(tensors)})
    deep = 10 ** chance.randrange(1, 6) + chance.randrange(5)
    key = chance.choice(sorted(header))
    values = ["null", "-1", "1e999", "[]", "{}", "9" * 6000, "NaN", "-Infinity", "1" + "0" * 300]
    more = chance.choice(
        [
            f'"{key}": {chance.choice(values)}',
            f'"{key}": {json.dumps(header[key])}',
            '"deep": ' + "[" * deep + "]" * deep,
            '"deep": ' + '{"a":' * deep + "1" + "}" * deep,
            '"many": [' + "[]," * deep + "0]",
            '"many": {' + ",".join(f'"{number}":{number}' for number in range(deep)) + "}",
            '"many": "' + "\\ud83d" * deep + '"',
        ]
    )
    text = f"{{{more}, {text[1:]}" if chance.random() < 0.5 else f"{text[:-1]}, {more}}}"
    return forged(header, tensors, text)


def names(chance: Random, one: Valid, other: Valid) -> bytes:
    """Paths, addresses and control codes where names stand."""
    header, tensors = one.parts()
    trick = chance.choice(PATHS)
    for part, key in chance.choice(
        [[("model", "name")], [("model", "revision")], [("model", "name"), ("model", "revision")]]
    ):
        header[part][key] = trick
    if chance.random() < 0.5:
        owner, key = chance.choice(
            [(owner, key) for owner, key in _values(header) if isinstance(owner[key], str)]
        )
        owner[key] = chance.choice(PATHS)
    return forged(header, tensors)


def lengths(chance: Random, one: Valid, other: Valid) -> bytes:
    """Other chunk lengths, whose sum is right."""
    header, tensors = one.parts()
    chunks, tokens = header["chunks"], header["text"]["tokens"]
    far = [0, -1, 1 << 19, 1 << 20, (1 << 20) + 1, 1 << 31, 1 << 62, 10**300]
    chunks = chance.choice(
        [
            [*chunks[:-1], chance.choice(far)],
            [chance.choice(far) for _ in chunks],
            [tokens],
            [1] * tokens,
            chunks[::-1],
            [1] * (len(chunks) - 1) + [max(1, tokens - len(chunks) + 1)],
            [chunks[0] + 1, *chunks[1:]],
            [chance.randrange(1, 200) for _ in chunks],
        ]
    )
    header |= {"chunks": chunks, "text": {**header["text"], "tokens": sum(chunks)}}
    if chance.random() < 0.5:
        rows = [chance.randrange(len(one.header["chunks"])) for _ in chunks]
        tensors["slots"] = tensors["slots"][rows].contiguous()
    return forged(header, tensors)


def numbers(chance: Random, one: Valid, other: Valid) -> bytes:
    """NaN, infinities, the largest and the least numbers in vectors and scales.

    Slots out of range.
    """
    header, tensors = one.parts()
    name = chance.choice([name for name in tensors if name != "patches"])
    flat = tensors[name].view(-1)
    for _ in range(chance.choice([1, 1, 4, len(flat) or 1])):
        if len(flat) and tensors[name].is_floating_point():
            odd = [
                float("nan"),
                float("inf"),
                -float("inf"),
                3e38,
                -3e38,
                1e-45,
                0.0,
                1e30,
                chance.gauss(0, 1),
            ]
            flat[chance.randrange(len(flat))] = chance.choice(odd)
        elif len(flat):
            most = 255 if tensors[name].dtype == torch.uint8 else 2**31 - 1
            flat[chance.randrange(len(flat))] = chance.choice(
                [0, 1, most, most // 2, chance.randrange(256)]
            )
    return forged(header, tensors)


def tensors_swapped(chance: Random, one: Valid, other: Valid) -> bytes:
    """Tensors of another file, rows in another order, other shapes and kinds."""
    header, tensors = one.parts()
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    pair = chance.choice(sorted(other.tensors))
    tensors[name] = chance.choice(
        [
            lambda: other.tensors.get(name, other.tensors[pair]),
            lambda: other.tensors[pair],
            lambda: tensor[
                torch.randperm(
                    len(tensor), generator=torch.Generator().manual_seed(chance.randrange(99))
                )
            ],
            lambda: tensor.flip(-1),
            lambda: tensor[:-1],
            lambda: tensor[:0],
            lambda: tensor[None],
            lambda: tensor.flatten(),
            lambda: torch.cat([tensor, tensor]),
            lambda: tensor.double(),
            lambda: tensor.roll(1, 0),
        ]
    )().contiguous()
    return forged(header, tensors)


def extras(chance: Random, one: Valid, other: Valid) -> bytes:
    """Patches, stored chunks and edits that contradict the header, the text, or themselves."""
    header, tensors = one.parts()
    counts = header["chunks"]
    far = (
        [0, 1, 5, 40, 100]
        if chance.random() < 0.6
        else [0, 100, 259, 260, 1 << 16, 1 << 31, (1 << 35) - 1]
    )
    stored = {
        number: [chance.choice(far) for _ in range(counts[number])]
        for number in range(len(counts))
        if chance.random() < 0.3
    }
    patches = {
        number: {
            chance.choice([0, length // 2, length - 1, length - 1, length]): chance.choice(far)
        }
        for number, length in enumerate(counts)
        if number not in stored and chance.random() < 0.3
    }
    edits = [
        Edit(chance.choice(far), chance.choice(far), chance.randbytes(chance.choice([0, 1, 40])))
        for _ in range(3)
    ]
    packed = pack(Extras(patches, stored, edits[: chance.randrange(4)]), len(counts))
    if chance.random() < 0.2:
        own = tensors.get("patches", torch.empty(0)).numpy().tobytes()
        packed = chance.choice(
            [b"", packed[:-1], packed + b"\0", chance.randbytes(40), own, own + packed]
        )
    tensors["patches"] = torch.tensor(list(packed), dtype=torch.uint8)
    declared = chance.choice(
        [sorted(stored)] * 6 + [list(range(len(counts))), [], [0, 0], [len(counts)]]
    )
    header |= {
        "format": chance.choice([2] * 7 + [1]),
        "stored": declared,
        "patched": 1,
        "edited": 1,
    }
    if chance.random() < 0.2:
        header["bits"] = [
            chance.choice([1, 4, 8, 16, 32, 0, 9])
            for _ in range(chance.choice([0, 1, len(header.get("bits", "1"))]))
        ]
    if chance.random() < 0.5:
        tensors["slots"][sorted(stored)] = -1
    return forged(header, tensors)


def bombs(chance: Random, one: Valid, other: Valid) -> bytes:
    """A few bytes that unpack to many, in a file whose header makes room for them."""
    header, tensors = one.parts()
    size = 1 << chance.randrange(10, 25)
    raw = chance.choice(
        [
            b"\0",
            b"A",
            b"\x80",
            b"\xff",
            b"\x80\x01",
            b"\0\0\0",
            b"\0\0\x01a",
            b"\x01\0A",
            b"\xff\xff\xff\xff\x7f",
        ]
    )
    raw = (raw * (size // len(raw) + 1))[:size]
    chunk = min(size, 1 << 20)
    count = -(-size // chunk)
    whole = chance.random() < 0.6
    if not whole:  # one chunk, all of it patched: how many, then pairs
        raw = chance.choice([b"\xff\xff\x3f", b"\x80\x80\x04", b"\0"]) + raw
    header |= {
        "format": 2,
        "stored": list(range(count)) if whole else [],
        "patched": 0,
        "edited": 0,
    }
    header["chunks"] = [chunk] * count if chance.random() < 0.8 else [1] * count
    header["text"] |= {"tokens": sum(header["chunks"]), "bytes": 10 ** chance.randrange(1, 12)}
    tensors["slots"] = torch.full(
        (count, tensors["slots"].shape[1]), -1 if whole else 0, dtype=torch.int32
    )
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    tensors["patches"] = torch.tensor(
        list(packer.compress(raw) + packer.flush()), dtype=torch.uint8
    )
    return forged(header, tensors)


def _values(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in the header: the object or list, and the key or number in it."""
    for key in list(value) if isinstance(value, dict) else range(min(len(value), 3)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _values(value[key])


# The kinds, and how many shares of all mutants each has.
KINDS: dict[Mutation, int] = {
    flipped_bits: 10,
    changed_bytes: 6,
    spliced: 10,
    outer_header: 10,
    values: 24,
    keys: 10,
    header_text: 5,
    names: 4,
    lengths: 6,
    numbers: 5,
    tensors_swapped: 6,
    extras: 10,
    bombs: 1,
}


def mutant(files: list[Valid], seed: int, number: int) -> tuple[str, str, bytes]:
    """Mutant of that number: its kind, the file it was made of, and its bytes."""
    chance = Random(f"{seed}/{number}")
    kind = chance.choices(list(KINDS), weights=list(KINDS.values()))[0]
    one, other = chance.choice(files), chance.choice(files)
    return kind.__name__.replace("_", " "), one.name, kind(chance, one, other)


def mutants(
    files: list[Valid], count: int, seed: int, whole: bool
) -> Iterator[tuple[str, str, bytes]]:
    """`count` mutants at random.

    With `whole`, also each file cut off at every length, and with each header value replaced.
    """
    for one in files if whole else ():
        for length in range(len(one.raw)):
            yield "cut off", f"{one.name}, {length}", one.raw[:length]
    for one in files if whole else ():
        for index, value in product(range(len(list(_values(one.header)))), EACH_KIND):
            header, tensors = one.parts()
            owner, key = list(_values(header))[index]
            owner[key] = copy.deepcopy(value)
            yield "every value", f"{one.name}, {key} = {value!r:.40}", forged(header, tensors)
    for number in range(count):
        kind, name, content = mutant(files, seed, number)
        yield kind, f"{name}, --only {number}", content
