"""What rows say of where a passage comes from: no folder of a machine."""

import pytest

from prototokens.lab.passages import labels_of, sources_of, without_folders


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("sample", "sample"),
        ("file:/home/me/books.txt", "file:books.txt"),
        ("file:books.parquet:text", "file:books.parquet:text"),
        ("file:../texts/", "file:texts"),
        ("generated:file:/a/b/books.txt", "generated:file:books.txt"),
        ("generated", "generated"),
        ("random-words:/usr/share/words", "random-words:words"),
        ("random-words", "random-words"),
        ("hub:emozilla/pg19@main:text", "hub:emozilla/pg19@main:text"),
    ],
)
def test_folders_stay_here(source, name):
    assert without_folders(source) == name
    assert without_folders(name) == name


def test_sources_are_listed_by_kind_whatever_the_order_of_the_rows():
    wanted = [
        "sample",
        "file:a.txt",
        "file:b.txt",
        "generated:file:a.txt",
        "random-words:w.txt",
        "random-tokens",
        "counting",
    ]
    rows = [{"source": source} for source in wanted]
    assert sources_of(rows) == sources_of(reversed(rows)) == sources_of([*rows, *rows]) == wanted


def test_pictures_call_sources_by_kind_and_two_of_a_kind_by_name():
    assert labels_of(["sample", "file:a.txt", "generated:file:a.txt"]) == {
        "sample": "sample",
        "file:a.txt": "file",
        "generated:file:a.txt": "generated",
    }
    long = "file:an-anthology-of-letters.txt"
    assert labels_of(["file:b.txt", long]) == {
        "file:b.txt": "file:b.txt",
        long: "file:an-an...etters.txt",
    }
