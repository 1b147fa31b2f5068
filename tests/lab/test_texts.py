"""Sources of passages: every kind, what it refuses, and that passages are reproducible."""

import json
import os
import subprocess
import sys

import data_hub
import pytest

from prototokens import samples
from prototokens.errors import MissingExtraError, TextError, UsageError
from prototokens.lab import documents
from prototokens.lab.passages import without_folders
from prototokens.lab.texts import Texts

STORY = (
    "The ferry left at nine. Nobody had slept. Far out, a light went round and round; it was the"
    " only one. "
    'She counted the turns. There were eleven of them before the rain came. "Again?" he asked.'
    " Nobody said a word.\n\n"
    "By noon they could see the coast. It lay lower than the map had promised. All the houses were"
    " white."
)


def words_of(lm, passages):
    return [lm.detokenize(list(passage.ids)) for passage in passages]


@pytest.fixture
def story(tmp_path):
    (tmp_path / "story.txt").write_text(STORY, encoding="utf-8")
    return tmp_path / "story.txt"


def test_a_file_gives_passages_that_begin_at_a_sentence(tiny_llama, story):
    passages = Texts(tiny_llama, [f"file:{story}"]).passages(6, 12)
    starts = []
    for passage in passages:
        name, _, offset = passage.id.partition("@")
        start = int(offset)
        assert (name, len(passage.ids)) == ("story.txt", 12)
        assert STORY[start : start + 12] == tiny_llama.detokenize(list(passage.ids))
        assert start == 0 or STORY[:start].rstrip().rstrip('"')[-1] in ".!?"
        assert STORY[start].isupper() or STORY[start] == '"'
        starts.append(start)
    assert all(abs(one - other) >= 12 for one in starts for other in starts if one != other)
    assert len(set(starts)) == 6


def test_the_context_is_what_stands_before(tiny_llama, story):
    for passage in Texts(tiny_llama, [f"file:{story}"]).passages(4, 10, 20):
        start = int(passage.id.partition("@")[2])
        assert tiny_llama.detokenize(list(passage.context)) == STORY[start - 20 : start]


@pytest.mark.parametrize(
    "source", ["sample", "random-tokens", "file", "random-words", "generated:sample"]
)
def test_the_same_seed_gives_the_same_passages_and_fewer_are_the_first_of_more(
    tiny_llama, story, tmp_path, source
):
    (tmp_path / "words.txt").write_text("oak\nelm\nash\n")
    source = {
        "file": f"file:{story}",
        "random-words": f"random-words:{tmp_path / 'words.txt'}",
    }.get(source, source)
    some = Texts(tiny_llama, [source]).passages(4, 9)
    assert Texts(tiny_llama, [source]).passages(4, 9) == some
    assert Texts(tiny_llama, [source]).passages(2, 9) == some[:2]
    assert [one.ids for one in Texts(tiny_llama, [source], seed=1).passages(4, 9)] != [
        one.ids for one in some
    ]
    assert len({one.id for one in some}) == 4
    assert {one.source for one in some} == {without_folders(source)}
    assert [one.ids_hash for one in some] == [
        one.ids_hash for one in Texts(tiny_llama, [source]).passages(4, 9)
    ]


def test_a_table_a_list_of_lines_and_a_folder_of_files(tiny_llama, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [data]")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [data]")
    texts = ["Alpha came first of all.", None, "Beta came second to it."]
    parquet.write_table(pyarrow.table({"body": texts, "number": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"body": text}) + "\n" for text in texts) + "\n"
    )
    for name in ("a.parquet", "b.jsonl"):
        passages = Texts(tiny_llama, [f"file:{tmp_path / name}:body"]).passages(2, 5)
        assert words_of(tiny_llama, passages) == ["Alpha", "Beta "]
        assert [one.id for one in passages] == [f"{name}#0@0", f"{name}#2@0"]
    (tmp_path / "left out.png").write_bytes(b"\x89PNG")
    passages = Texts(tiny_llama, [f"file:{tmp_path}:body"]).passages(4, 5)
    assert [one.id.partition("#")[0] for one in passages] == [
        "a.parquet",
        "a.parquet",
        "b.jsonl",
        "b.jsonl",
    ]


def test_a_column_that_is_not_there_or_holds_no_text(tiny_llama, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [data]")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [data]")
    parquet.write_table(pyarrow.table({"body": ["A."], "number": [1]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"body": "A.", "number": 1}\n')
    for name in ("a.parquet", "b.jsonl"):
        with pytest.raises(TextError, match="body, number; name"):
            Texts(tiny_llama, [f"file:{tmp_path / name}"]).passages(1, 1)
        with pytest.raises(TextError, match="int, not text"):
            Texts(tiny_llama, [f"file:{tmp_path / name}:number"]).passages(1, 1)
    (tmp_path / "plain.txt").write_text("A.")
    with pytest.raises(UsageError, match="has no column 'body'"):
        Texts(tiny_llama, [f"file:{tmp_path / 'plain.txt'}:body"]).passages(1, 1)


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", '{"text": "One.\\u2028Two."}\n'), ("a.txt", "One.\u2028Two.")]
)
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, name, content):
    """As editors on Windows leave it (huggingface/datasets, issue 8241)."""
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert [document.text for document in documents._file(tmp_path / name, None)] == [
        "One.\u2028Two."
    ]


def test_files_that_cannot_be_read(tiny_llama, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "bad.jsonl").write_text('{"text": "A."}\n{"text": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1, or not")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bare").mkdir()
    for name, sentence in (
        ("bad.txt", "cannot be read as text"),
        ("bad.jsonl", "line 2, is no JSON"),
        ("list.jsonl", "is no object"),
        ("bad.parquet", "no readable Parquet|takes pyarrow"),
        ("empty.txt", "holds 0 passages"),
        ("bare", "the folder holds no"),
        ("nowhere.txt", "does not exist"),
    ):
        with pytest.raises((TextError, MissingExtraError), match=sentence):
            Texts(tiny_llama, [f"file:{tmp_path / name}"]).passages(2, 1)


def test_too_little_text_says_how_much_there_is(tiny_llama, story):
    with pytest.raises(
        TextError,
        match=r"holds 1 passages of 300 tokens, and 2 are needed: name a larger source with"
        r" --texts",
    ):
        Texts(tiny_llama, [f"file:{story}"]).passages(2, 300)
    with pytest.raises(TextError, match=r"holds 0 passages of 1 tokens with 9000 before them"):
        Texts(tiny_llama, [f"file:{story}"]).passages(1, 1, 9000)
    assert Texts(tiny_llama, [f"file:{story}"]).passages(0, 300) == []


def test_random_words_are_those_of_the_list(tiny_llama, tmp_path):
    (tmp_path / "words.txt").write_text("oak\nelm\n\nash\n")
    texts = Texts(tiny_llama, [f"random-words:{tmp_path / 'words.txt'}"])
    seen = set()
    for passage in texts.passages(8, 39, 4):
        whole = tiny_llama.detokenize(list(passage.context + passage.ids))
        assert set(whole.split()[:-1]) <= {"oak", "elm", "ash"}
        seen |= set(whole.split()[:-1])
    assert seen == {"oak", "elm", "ash"}


def test_a_missing_word_list_names_where_to_get_one(tiny_llama, tmp_path):
    (tmp_path / "none.txt").write_text("\n\n")
    with pytest.raises(UsageError, match=r"nlp\.stanford\.edu/projects/glove"):
        Texts(tiny_llama, ["random-words"])
    for name, sentence in (("nowhere.txt", "cannot be read"), ("none.txt", "is empty")):
        with pytest.raises(TextError, match=rf"{sentence}.*GloVe"):
            Texts(tiny_llama, [f"random-words:{tmp_path / name}"])


def test_random_tokens_leave_special_tokens_out_and_nothing_else(tiny_llama):
    (passage,) = Texts(tiny_llama, ["random-tokens"]).passages(1, 20_000)
    assert set(passage.ids) == set(
        range(256)
    )  # 256 and 257 begin and end a text, 258 and 259 are of no tokenizer


def test_generated_texts_go_on_from_contexts_of_their_own_length(tiny_llama):
    passages = Texts(tiny_llama, ["generated"]).passages(3, 7)
    heads = Texts(tiny_llama, ["sample"]).passages(3, 7)
    assert [one.context for one in passages] == [head.ids for head in heads]
    assert [one.id for one in passages] == [f"{head.id}~" for head in heads]
    assert all(len(one.ids) == 7 and max(one.ids) < 256 for one in passages)


def test_each_context_has_continuations_of_its_own(tiny_llama):
    for source in ("sample", "generated:sample"):
        groups = Texts(tiny_llama, [source]).continuations(2, 3, 6, context=10)
        assert [len(group) for group in groups] == [3, 3]
        assert all(
            len({one.context for one in group}) == 1 and len(group[0].context) == 10
            for group in groups
        )
        assert groups[0][0].context != groups[1][0].context
        assert len({one.ids for group in groups for one in group}) == 6
    # A continuation does not depend on how many others there are.
    few, many = (
        Texts(tiny_llama, ["sample"]).continuations(*counts, 6, context=10)
        for counts in ((1, 2), (2, 3))
    )
    assert few[0] == many[0][:2]


def test_the_package_has_passages_of_its_own(tiny_llama):
    stories = samples.stories()
    passages = Texts(tiny_llama).passages(len(stories) + 1, 16)
    assert {one.id.partition("@")[0] for one in passages[:-1]} == {
        f"sample:{name}" for name in stories
    }


def test_several_sources_are_taken_one_by_one(tiny_llama):
    each = Texts(tiny_llama, ["sample", "random-tokens"]).each()
    assert [one.passages(1, 4)[0].source for one in each] == ["sample", "random-tokens"]


@pytest.mark.parametrize("source", ["", "books", "Sample", "random_tokens"])
def test_unknown_sources_are_reported(tiny_llama, source):
    with pytest.raises(UsageError, match="are none of sample, file:PATH"):
        Texts(tiny_llama, [source])


def test_no_sources_at_all(tiny_llama):
    with pytest.raises(UsageError, match="no texts given"):
        Texts(tiny_llama, [])


@pytest.mark.parametrize("source", ["hub:emozilla/pg19", "hub:", "hub::text", "hub:a:b:c:d"])
def test_a_data_set_needs_a_column(tiny_llama, source):
    with pytest.raises(UsageError, match="hub:emozilla/pg19:text for example"):
        Texts(tiny_llama, [source]).passages(1, 1)


def test_a_data_set_is_read_row_by_row(tiny_llama, monkeypatch):
    asked = {}

    class Library:
        @staticmethod
        def load_dataset(name, revision, split, streaming):
            asked.update(name=name, revision=revision, split=split, streaming=streaming)
            return iter(
                [{"text": "One was here."}, {"text": "Two came after."}, {"title": "no text"}]
            )

    monkeypatch.setitem(sys.modules, "datasets", Library)
    passages = Texts(tiny_llama, ["hub:some/books@abc:text:validation"]).passages(2, 3)
    assert words_of(tiny_llama, passages) == ["One", "Two"]
    assert asked == {
        "name": "some/books",
        "revision": "abc",
        "split": "validation",
        "streaming": True,
    }
    with pytest.raises(TextError, match="there is no column 'text', there are title"):
        Texts(tiny_llama, ["hub:some/books:text"]).passages(3, 3)


READ = """
import json, sys
from prototokens.errors import PrototokensError
from prototokens.lab.documents import documents
for source in sys.argv[1:]:
    try:
        print(json.dumps(list(documents(source))))
    except PrototokensError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def test_a_data_set_of_a_hub_is_streamed(tmp_path):
    """By the library itself, from a hub on loopback, in a process of its own.

    Its import is when it reads the address.
    """
    pytest.importorskip("datasets", reason="needs the extra [data]")
    sources = [
        "some/books:body",
        "some/books@main:body",
        "some/books:text",
        "some/books@v2:body",
        "no/books:body",
    ]
    with data_hub.serving() as address:
        env = {
            **os.environ,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", READ, *(f"hub:{source}" for source in sources)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=env,
        )
    assert done.returncode == 0, done.stderr
    plain, named, column, revision, missing = (
        json.loads(line) for line in done.stdout.splitlines()
    )
    assert plain == [[f"some/books:train#{row['number']}", row["body"]] for row in data_hub.ROWS]
    assert named == [
        [f"some/books@main:train#{row['number']}", row["body"]] for row in data_hub.ROWS
    ]
    assert (
        column
        == "TextError: texts 'hub:some/books:text': there is no column 'text', there are body,"
        " number"
    )
    for message, source in ((revision, "some/books@v2:body"), (missing, "no/books:body")):
        assert message.startswith(
            f"TextError: texts 'hub:{source}': the data set could not be opened"
        )
