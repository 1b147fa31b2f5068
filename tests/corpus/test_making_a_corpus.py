"""Texts become rows: each text whole or in parts, in order, once; and what goes wrong is said."""

import errno
import json
import os
import sys

import pytest

from prototokens.corpus import worker
from prototokens.corpus.shards import only_writer, shards_in
from prototokens.corpus.tasks import cut
from prototokens.errors import FileError, MissingExtraError, TextError, UsageError
from prototokens.lab.texts import Texts
from small_corpora import TEXTS, files_of, rows_of, source_of


def test_every_text_is_there_in_parts_and_in_order(corpus, tiny_llama):
    folder, summary = corpus()
    rows = rows_of(folder)
    assert [row["row"] for row in rows] == list(range(len(rows)))
    assert summary.totals.rows == len(rows)
    texts = {}
    for row in rows:
        assert 0 < len(row["ids"]) <= 8
        assert row["text"] == tiny_llama.detokenize(row["ids"])
        parts = texts.setdefault(row["document"], [])
        assert row["part"] == len(parts)
        assert row["id"] == f"{row['document']}/{row['part']}"
        parts.append(row)
    assert all(len(parts) == parts[0]["parts"] for parts in texts.values())
    back = ["".join(part["text"] for part in parts) for parts in texts.values()]
    assert back == [text for text in TEXTS if text]
    assert all(row["verbatim"] for row in rows)
    assert summary.totals.empty == 1


def test_no_letter_is_split_where_rows_have_room(tiny_llama):
    ids = tiny_llama.tokenize("\u4e2d\u6587" * 5)
    parts = cut(tiny_llama, ids, 7)
    assert [token for part in parts for token in part] == ids
    assert all("\ufffd" not in tiny_llama.detokenize(part) for part in parts)
    assert [len(part) for part in cut(tiny_llama, ids, 1)] == [1] * len(ids)
    # A text that ends in the sign for what is no letter is no endless search.
    marks = tiny_llama.tokenize("\ufffd" * 4)
    assert sum(map(len, cut(tiny_llama, marks, 6))) == len(marks)


def test_a_text_that_the_tokenizer_cannot_give_back_is_said_to_be_changed(corpus, tmp_path):
    source = source_of(tmp_path / "half.jsonl", ["a \ud800 b", "c"])
    folder, _ = corpus(source)
    assert [(row["text"], row["verbatim"]) for row in rows_of(folder)] == [
        ("a ? b", False),
        ("c", True),
    ]


def test_equal_rows_are_rows_of_their_own_and_fitted_once(corpus, tmp_path, monkeypatch):
    fitted = []
    fit = worker.fit
    monkeypatch.setattr(worker, "fit", lambda lm, ids, **o: fitted.append(ids) or fit(lm, ids, **o))
    folder, summary = corpus(source_of(tmp_path / "same.jsonl", ["one", "two", "one", "one"]))
    assert len(fitted[0]) == 2
    assert summary.totals.duplicates == 2
    rows = rows_of(folder)
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert len({row["id"] for row in rows}) == 4
    assert rows[0]["vectors"] == rows[2]["vectors"] == rows[3]["vectors"] != rows[1]["vectors"]


def test_a_second_run_makes_nothing(corpus, monkeypatch):
    folder, first = corpus()
    before = files_of(folder)
    monkeypatch.setattr(worker, "fit", None)
    _, second = corpus()
    assert second.made == 0
    assert second.totals == first.totals
    assert files_of(folder) == before


@pytest.mark.parametrize("gone", [0, 1, -1])
def test_what_is_missing_is_made_again_as_it_was(corpus, gone):
    folder, first = corpus()
    before = rows_of(folder)
    shards_in(folder)[gone].path.unlink()
    _, second = corpus()
    assert second.made == 1
    assert rows_of(folder) == before
    assert second.totals.rows == first.totals.rows
    assert [shard.number for shard in shards_in(folder)] == list(range(first.shards))


@pytest.mark.parametrize("source", ["random-tokens", "generated:sample", "sample"])
def test_sources_that_draw_or_have_no_end(corpus, tiny_llama, source, monkeypatch):
    folder, summary = corpus(source, limit=10)
    before = rows_of(folder)
    assert (summary.totals.rows, summary.shards) == (10, 3)
    if source != "sample":
        passages = Texts(tiny_llama, [source]).passages(10, 8)
        assert [tuple(row["ids"]) for row in before] == [one.ids for one in passages]
        assert [row["document"] for row in before] == [one.id for one in passages]
    shards_in(folder)[1].path.unlink()
    corpus(source, limit=10)
    assert rows_of(folder) == before


def test_a_source_that_has_fewer_rows_than_the_limit(corpus):
    folder, summary = corpus(limit=1000)
    assert summary.ended_early
    assert summary.totals.rows == len(rows_of(folder)) < 1000
    assert not corpus(name="other", limit=3)[1].ended_early
    assert corpus(limit=1000)[1].made == 0


def test_a_source_that_breaks_off_leaves_what_was_made(corpus, tmp_path):
    path = tmp_path / "texts.jsonl"
    source_of(path, TEXTS)
    whole = path.read_text()
    path.write_text(whole + "{broken")
    with pytest.raises(TextError, match="line 8, is no JSON"):
        corpus(shard_rows=5)
    kept = files_of(tmp_path / "out")
    assert len(kept) == 3
    path.write_text(whole)
    folder, summary = corpus(shard_rows=5)
    assert kept == [name for name in files_of(folder) if name in kept]
    assert summary.made == 1
    assert [row["row"] for row in rows_of(folder)] == list(range(summary.totals.rows))


def test_a_source_that_has_changed_is_refused(corpus, tmp_path):
    folder, _ = corpus()
    shards_in(folder)[-1].path.unlink()
    source_of(tmp_path / "texts.jsonl", ["Another beginning.", *TEXTS[1:]])
    with pytest.raises(FileError, match="shard 0 of the folder holds rows of another text"):
        corpus()
    source_of(tmp_path / "texts.jsonl", TEXTS[:1])
    with pytest.raises(FileError, match="the source has changed since"):
        corpus()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"length": 7}, "its length is 8, and 7 is asked for"),
        ({"layout": "keyed:3"}, "its layout is 'keyed:4'"),
        ({"values": "int8"}, "its values is 'float32'"),
        ({"steps": 20}, "its recipe steps is 3"),
    ],
)
def test_a_folder_of_another_run_is_refused(corpus, changed, words):
    folder, _ = corpus()
    before = files_of(folder)
    with pytest.raises(FileError, match=words):
        corpus(**changed)
    assert files_of(folder) == before


def test_a_folder_of_other_files_or_another_model_is_refused(corpus, tiny_qwen2, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(FileError, match=r"holds other files and no meta\.json"):
        corpus(name="full")
    with pytest.raises(FileError, match="is no folder"):
        corpus(name="texts.jsonl")
    corpus()
    with pytest.raises(FileError, match="its model name is 'tiny-llama'"):
        corpus(lm=tiny_qwen2)


def test_a_second_writer_is_refused_and_litter_is_removed(corpus, tmp_path):
    folder = tmp_path / "out"
    with only_writer(folder), pytest.raises(FileError, match="another process writes"):
        corpus()
    corpus()
    (folder / "data" / ".00000000-ffffffffffffffff.parquet.1234abcd").write_bytes(b"half")
    corpus()
    assert all(not name.startswith(".") for name in files_of(folder))


def test_two_files_of_one_number_are_refused(corpus):
    folder, _ = corpus()
    path = shards_in(folder)[1].path
    path.with_name("00000001-0123456789abcdef.parquet").write_bytes(path.read_bytes())
    with pytest.raises(FileError, match="has shard 1 twice"):
        corpus()


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_a_full_disk_loses_nothing_that_was_written(corpus, tmp_path, monkeypatch, call):
    done, calls = getattr(os, call), []

    def full(path, *rest, **options):
        # Of the files that are written, the third shard's does not fit.
        if call != "fsync" and "parquet" not in str(path):
            return done(path, *rest, **options)
        calls.append(path)
        if len(calls) > (4 if call == "fsync" else 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return done(path, *rest, **options)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(FileError, match="No space left on device"):
        corpus()
    monkeypatch.undo()
    folder = tmp_path / "out"
    kept = files_of(folder)
    assert len(kept) == 2
    _, summary = corpus()
    assert set(kept) <= set(files_of(folder))
    assert summary.made == summary.shards - 2
    rows = rows_of(folder)
    assert [row["row"] for row in rows] == list(range(summary.totals.rows))


def test_what_the_model_has_no_room_for_is_refused(corpus):
    with pytest.raises(UsageError, match="rows of 500 tokens asked for, and tiny-llama holds"):
        corpus(length=500)
    with pytest.raises(UsageError, match="values must be one of"):
        corpus(values="int4")
    with pytest.raises(UsageError, match="there is no layout"):
        corpus(layout="none:3")


def test_without_pyarrow_the_extra_is_named(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"prototokens\[data\]"):
        corpus()


def test_progress_and_log_say_rates_and_what_is_left(corpus):
    seen = []
    folder, summary = corpus(limit=9, on_progress=seen.append)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["done"] for line in lines] == [4, 8, 9]
    assert lines[-1]["seconds_left"] == 0
    assert lines[0]["seconds_left"] > 0
    for line in lines:
        assert line["tokens_per_second"] > line["rows_per_second"] > 0
        assert line["position_steps_per_second"] > 0
        assert 0 <= line["share_exact"] <= 1
    assert seen[-1].done == seen[-1].total == 9
    assert any(one.fits for one in seen)
    assert seen[-1].exact == summary.totals.exact / 9
