"""Texts and options of the tests of corpora, and what they read back."""

import json

from pyarrow import parquet

TEXTS = [
    "It was dark.",
    "He had never seen the sea before.",
    "",
    "\u00e9t\u00e9 \u2013 \u4e2d\u6587 \u2013 na\u00efve",
    "It was dark.",
    "Call me Ishmael.",
    "A lamp.",
]
# Rows of at most eight tokens, which are bytes here.
QUICK = {"length": 8, "shard_rows": 4, "start": "random", "layout": "keyed:4", "steps": 3}


def source_of(path, texts):
    """A source of texts: a file of JSON lines."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return f"file:{path}"


def rows_of(folder):
    """All rows of a folder, as they lie in its files."""
    return [
        row
        for path in sorted((folder / "data").glob("*.parquet"))
        for row in parquet.read_table(path).to_pylist()
    ]


def files_of(folder):
    """The names of its shards."""
    return sorted(path.name for path in (folder / "data").iterdir())
