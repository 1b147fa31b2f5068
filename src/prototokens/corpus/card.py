"""The card of a corpus: what a reader of the data set must know, and the head that loads it."""

from __future__ import annotations

from typing import Any

from prototokens.corpus.meta import Meta
from prototokens.corpus.shards import DATA
from prototokens.lab.report import share
from prototokens.ptok.hub import front_matter, plain

COLUMNS = {
    "row": "number of the row, from 0; unique",
    "id": "name of the text and the part of it",
    "source": "where the texts come from",
    "document": "name of the text",
    "part": "number of the part, from 0",
    "parts": "parts of the text",
    "verbatim": "whether the ids of all parts together give the source's text unchanged",
    "text": "what the ids stand for",
    "ids": "token ids",
    "vectors": "the vectors, one after the other",
    "scales": "of each vector: number c of `vectors` stands for (2 c + 1) times it",
    "correct": "tokens that are right",
    "margin": "least lead of a right token's logit over the best other one",
    "steps": "optimizer steps of the fit",
    "row_steps": "forward and backward passes in all, repairs among them",
    "exact": "whether the vectors, as they are stored, decode to the ids",
    "certificate": "level of the certificate that the row passed, or `none`",
}


def card(meta: Meta) -> str:
    """The text of `README.md`."""
    settings, shape = meta.settings, meta.shape
    model = settings["model"]
    head = front_matter(
        {
            "tags": ["prototokens", "one-step-generation"],
            "configs": [
                {
                    "config_name": "default",
                    "data_files": [{"split": "train", "path": f"{DATA}/*.parquet"}],
                }
            ],
        }
    )
    name, revision = plain(model["name"]), model.get("revision")
    lines = {
        "model": f"{name}{f' at {plain(revision)}' if revision else ''}, fingerprint"
        f" `{plain(model['fingerprint'][:16])}`, computed in {plain(model['dtype'])}",
        "texts": f"{plain(str(settings.get('source')))}, at most {settings.get('length')} tokens a"
        " row",
        "vectors": f"{shape.vectors} of {shape.d_model} numbers a row, {shape.values}, layout"
        f" `{plain(settings['layout'])}`, {len(settings['prefix'])} tokens before them",
        "rows": _rows(meta.complete),
        "made with": f"prototokens {plain(str(meta.versions.get('prototokens')))}, recipe"
        f" `{plain(str(settings.get('recipe', {}).get('name')))}`",
    }
    facts = "\n".join(f"| {key} | {value} |" for key, value in lines.items())
    kept = {key: words for key, words in COLUMNS.items() if key != "scales" or _grid(meta)}
    columns = "\n".join(f"| `{key}` | {words} |" for key, words in kept.items())
    return f"""\
{head}
# Texts as vectors of {name}

Each row is a text, or a part of one, with a few input vectors from which the frozen model gives the
text back in one forward pass.

| | |
|---|---|
{facts}

| column | |
|---|---|
{columns}

```python
import prototokens as pt

corpus = pt.Corpus.open("FOLDER")
lm = pt.FrozenLM.from_pretrained("{name}")
print(corpus.decode(lm, slice(0, 4)).texts)
```

Without this package: `datasets.load_dataset("FOLDER")`, or any reader of Parquet.
"""


def _grid(meta: Meta) -> bool:
    return meta.shape.values == "int8"


def _rows(complete: dict[str, Any] | None) -> str:
    """How many rows there are, and how many of them are exact."""
    if complete is None:
        return "not complete yet: the same command goes on"
    exact, rows = complete.get("exact", 0), complete.get("rows", 0)
    return f"{rows:,} in {complete.get('shards', 0):,} files; exact {share(exact, rows)}"
