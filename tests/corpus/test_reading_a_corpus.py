"""A corpus loads without code of ours; ours gives batches, decodes and finds damage."""

import json
import random

import numpy as np
import pytest
import torch
from pyarrow import parquet

import prototokens as pt
from prototokens.corpus.reader import PADDING
from prototokens.corpus.shards import shards_in, write_shard
from prototokens.errors import FileError, UsageError
from small_corpora import rows_of, source_of

STORED = {"float32": np.float32, "float16": np.float16, "int8": np.int8}


@pytest.mark.parametrize("values", STORED)
def test_vectors_are_those_that_were_scored(exact_corpus, tiny_llama, values):
    folder, summary = exact_corpus(values)
    opened = pt.Corpus.open(folder)
    rows = rows_of(folder)
    assert len(opened) == len(rows) == summary.totals.rows
    assert summary.totals.exact > len(rows) // 2
    decoded = opened.decode(tiny_llama, slice(None))
    assert decoded.forward_passes == 1
    assert decoded.right == [row["exact"] for row in rows]
    for ours, row in zip(opened[:], rows, strict=True):
        stored = np.array(row["vectors"], np.float32).reshape(4, 32)
        if values == "int8":
            stored = (2 * stored + 1) * np.array(row["scales"], np.float32)[:, None]
        assert np.array_equal(ours.vectors.numpy(), stored)
        assert (ours.id, ours.text, list(ours.ids)) == (row["id"], row["text"], row["ids"])
        assert row["exact"] == (row["correct"] == len(row["ids"]))
        if row["exact"]:
            score = pt.score(tiny_llama, row["ids"], ours.vectors, opened.layout)
            assert row["margin"] == pytest.approx(score.margin, rel=1e-3, abs=1e-4)


def columns(values):
    scales = ["scales"] * (values == "int8")
    return [
        *("row", "id", "source", "document", "part", "parts", "verbatim", "text", "ids"),
        *("vectors", *scales, "correct", "margin", "steps", "row_steps", "exact", "certificate"),
    ]


@pytest.mark.parametrize("values", STORED)
def test_pyarrow_reads_it(exact_corpus, values):
    dataset = pytest.importorskip("pyarrow.dataset")
    folder, summary = exact_corpus(values)
    table = dataset.dataset(folder / "data").to_table()
    assert table.column_names == columns(values)
    assert table.num_rows == summary.totals.rows
    assert table.schema.field("vectors").type.list_size == 4 * 32
    assert table.schema.field("vectors").type.value_type.to_pandas_dtype() == STORED[values]


@pytest.mark.parametrize("values", STORED)
def test_polars_reads_it(exact_corpus, values):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    folder, summary = exact_corpus(values)
    frame = polars.read_parquet(folder / "data" / "*.parquet")
    assert (frame.columns, frame.height) == (columns(values), summary.totals.rows)
    assert frame.schema["vectors"].shape == (4 * 32,)
    ours = pt.Corpus.open(folder)
    if values == "float32":
        assert np.array_equal(frame["vectors"][3].to_numpy(), ours[3].vectors.flatten().numpy())


@pytest.mark.parametrize("values", STORED)
def test_datasets_loads_the_folder(exact_corpus, values, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="needs the extra [data]")
    folder, summary = exact_corpus(values)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.column_names == columns(values)
    assert loaded.num_rows == summary.totals.rows
    assert loaded.features["vectors"].length == 4 * 32
    assert [row["row"] for row in loaded] == list(range(summary.totals.rows))


def test_batches_hold_every_row_once(exact_corpus):
    folder, summary = exact_corpus()
    opened = pt.Corpus.open(folder)
    in_order = list(opened.loader(5))
    numbers = [number for batch in in_order for number in batch.rows.tolist()]
    assert numbers == list(range(summary.totals.rows))
    shuffled = [n for batch in opened.loader(5, shuffle=True) for n in batch.rows.tolist()]
    assert sorted(shuffled) == numbers != shuffled
    assert shuffled == [n for batch in opened.loader(5, shuffle=True) for n in batch.rows.tolist()]
    assert len(opened.loader(5)) == len(in_order)
    for batch in in_order:
        assert batch.vectors.shape[1:] == (4, 32)
        for ids, length, row in zip(batch.ids, batch.lengths, batch.rows, strict=True):
            assert ids[:length].tolist() == list(opened[int(row)].ids)
            assert (ids[length:] == PADDING).all()


def test_rows_by_position(exact_corpus):
    opened = pt.Corpus.open(exact_corpus()[0])
    assert opened[-1].row == len(opened) - 1
    assert [row.row for row in opened[2:7:2]] == [2, 4, 6]
    with pytest.raises(IndexError):
        opened[len(opened)]
    assert repr(opened).endswith("layout 'keyed:4')")


def test_a_folder_that_is_not_complete_can_be_read(exact_corpus):
    folder, _ = exact_corpus()
    shards_in(folder)[1].path.unlink()
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "complete": None}))
    opened = pt.Corpus.open(folder)
    assert "not complete yet" in repr(opened)
    assert [row.row for row in opened[2:6]] == [2, 3, 8, 9]
    assert opened.verify().passed


def test_another_model_is_refused(exact_corpus, tiny_qwen2):
    opened = pt.Corpus.open(exact_corpus()[0])
    with pytest.raises(UsageError, match="was made for the model 'tiny-llama'"):
        opened.decode(tiny_qwen2, slice(2))


def test_verify_decodes_a_sample_or_all(exact_corpus, tiny_llama):
    folder, summary = exact_corpus()
    opened = pt.Corpus.open(folder)
    assert opened.verify().decoded == 0
    assert opened.verify(tiny_llama, sample=3).decoded == 3
    found = opened.verify(tiny_llama)
    assert (found.decoded, found.shards) == (summary.totals.rows, summary.shards)
    assert found.passed


def test_a_byte_that_changes_anywhere_in_a_file_is_found(exact_corpus, tiny_llama):
    folder, _ = exact_corpus()
    shard = shards_in(folder)[1]
    whole = shard.path.read_bytes()
    chance = random.Random(0)
    for place in [0, len(whole) - 1, *chance.sample(range(len(whole)), 60)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << chance.randrange(8)
        shard.path.write_bytes(changed)
        try:
            found = pt.Corpus.open(folder).verify(tiny_llama)
        except FileError as error:
            pytest.fail(f"byte {place}: {error}")
        assert len(found.damaged) == 1, place
        assert shard.path.name in found.damaged[0]
        assert not found.passed
    shard.path.write_bytes(whole)
    assert pt.Corpus.open(folder).verify(tiny_llama).passed


def test_a_damaged_file_is_named_by_whatever_reads_it(corpus, tiny_llama):
    folder, _ = corpus()
    shard = shards_in(folder)[0]
    shard.path.write_bytes(shard.path.read_bytes()[:-100])
    with pytest.raises(FileError, match=f"{shard.path.name} is damaged"):
        pt.Corpus.open(folder)[0]
    with pytest.raises(FileError, match=f"{shard.path.name} is damaged"):
        corpus()
    shard.path.unlink()
    found = pt.Corpus.open(folder).verify()
    assert found.damaged == [
        "shard 0 of 4 is missing: the command that made the folder makes it again"
    ]
    corpus()
    assert pt.Corpus.open(folder).verify(tiny_llama).passed


def test_vectors_that_do_not_decode_any_more_are_named(exact_corpus, tiny_llama):
    """Rows of a file that was written again with other vectors, and its new hash."""
    folder, _ = exact_corpus()
    shard = shards_in(folder)[0]
    table = parquet.read_table(shard.path)
    zeros = table.column("vectors").combine_chunks()
    zeros = type(zeros).from_arrays(
        np.zeros(len(zeros.flatten()), np.float32), zeros.type.list_size
    )
    table = table.set_column(table.column_names.index("vectors"), "vectors", zeros)
    shard.path.unlink()
    parquet.write_table(table, folder / "again")
    write_shard(folder, 0, (folder / "again").read_bytes())
    found = pt.Corpus.open(folder).verify(tiny_llama)
    assert found.wrong
    assert set(found.wrong) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "has form 2 of a corpus, and this version of prototokens reads form 1"),
        ({"settings": {}}, "lacks 'settings.model'"),
        ({"versions": 3}, "has 3 as 'versions'"),
    ],
)
def test_meta_that_cannot_be_used_is_refused(corpus, change, words):
    folder, _ = corpus()
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **change}))
    with pytest.raises((FileError, UsageError), match=words):
        pt.Corpus.open(folder)
    with pytest.raises((FileError, UsageError), match=words):
        corpus()


def test_a_certificate_is_a_rows_own(corpus, tmp_path):
    source = source_of(tmp_path / "two.jsonl", ["It was dark.", "no"])
    folder, summary = corpus(source, certify="standard", length=6, steps=300)
    rows = rows_of(folder)
    assert {row["certificate"] for row in rows} <= {"none", "standard"}
    assert summary.totals.certified == sum(row["certificate"] == "standard" for row in rows) > 0
    assert all(row["exact"] for row in rows if row["certificate"] == "standard")


def test_a_prefix_is_kept(corpus, tiny_llama):
    folder, _ = corpus(prefix="bos", steps=100)
    opened = pt.Corpus.open(folder)
    assert opened.layout.prefix == (256,)
    assert opened.verify(tiny_llama).passed


def test_vectors_are_float32_tensors(corpus):
    opened = pt.Corpus.open(corpus(values="float16")[0])
    assert opened[0].vectors.dtype == torch.float32
