"""Make the golden files of tests/format/files, each with its text beside it.

    python scripts/artefacts/golden_files.py

The files show every part of the format once (docs/file-format.md). They are committed, and the
tests read the committed ones: another processor gives other vectors for the same seed, and another
version of the package other values in the header.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import prototokens as pt

FOLDER = Path(__file__).parents[2] / "tests" / "format" / "files"
SEA = "He had never seen the sea before that day."
NAMES = "Zoë met Søren at the café. 海 means sea."
UNUSED = " glyphosate"
FAST = pt.Recipe.named("fast", steps=4000)
SHORTEST = pt.Recipe.named("fast", steps=6)
SHORT = pt.Recipe.named("fast", steps=8)


class Golden(NamedTuple):
    """A golden file: its name, its text, the options of `pt.encode`, and what it has to show."""

    name: str
    text: str | bytes
    options: dict[str, Any]
    format: int


GOLDEN = (
    Golden("one", "Call me", {"layout": "one"}, 1),
    Golden("halves", "The sea was calm.", {"layout": "halves", "chunk_length": 3}, 1),
    Golden("alternating", SEA, {"layout": "alternating", "chunk_length": 8}, 1),
    Golden("free-shared-e", "It was dark.", {"layout": "free", "share": "e", "chunk_length": 3}, 1),
    Golden(
        "paper-shared-m", "It was late.", {"layout": "paper", "share": "m", "chunk_length": 3}, 1
    ),
    Golden("tiled-3-bits-16", SEA, {"layout": "tiled:3", "bits": 16}, 2),
    # The model never learned the bytes of some letters: their tokens are left to patches.
    Golden("mixed-4-untrained", f"{SEA} {NAMES}", {"layout": "mixed:4", "chunk_length": 16}, 2),
    # Three bytes of a character lie across the first two chunks.
    Golden("keyed-2-bits-4", NAMES, {"layout": "keyed:2", "bits": 4, "chunk_length": 17}, 2),
    Golden(
        "keyed-1-prefix-patches",
        f"{SEA} It was a grey and quiet morning.",
        {
            "layout": "keyed:1",
            "chunk_length": 12,
            "prefix": "text:A story. ",
            "recipe": SHORT,
            "inexact": "patch",
        },
        3,
    ),
    Golden(
        "lossless-bits-3",
        f"\xff{SEA}\xfe ".encode("latin-1") + f"zq#{UNUSED} xv%: {NAMES}\r\n".encode() + b"\x80",
        {
            "layout": "keyed:2",
            "chunk_length": 11,
            "bits": 3,
            "recipe": SHORTEST,
            "inexact": "patch",
        },
        2,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="the name of one file, without its suffix")
    given = parser.parse_args()
    lm = pt.FrozenLM.from_pretrained("builtin", dtype="float32")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for golden in GOLDEN:
        if given.only in (None, golden.name):
            make(lm, golden)


def make(lm: pt.FrozenLM, golden: Golden) -> None:
    """Encode one text, and write the file and the text where all of it came back."""
    encoded = pt.encode(lm, golden.text, **{"recipe": FAST, **golden.options})
    header = encoded.header
    assert encoded.exact, golden.name
    assert header.format == golden.format, (golden.name, header.format)
    size = encoded.save(FOLDER / f"{golden.name}.ptok")
    raw = golden.text if isinstance(golden.text, bytes) else golden.text.encode()
    (FOLDER / f"{golden.name}.txt").write_bytes(raw)
    print(
        f"{golden.name}: format {header.format}, {len(header.chunks)} chunks, {size:,} bytes,"
        f" {header.patched} patched, {len(header.stored)} stored, {header.edited} edited,"
        f" bits {sorted(set(header.bits or (32,)))}",
        flush=True,
    )


if __name__ == "__main__":
    main()
