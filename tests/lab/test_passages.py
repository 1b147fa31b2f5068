"""What rows say of where a passage comes from: no folder of a machine."""

import pytest

from prototokens.lab.passages import without_folders


@pytest.mark.parametrize(
    ("source", "said"),
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
def test_folders_stay_here(source, said):
    assert without_folders(source) == said
    assert without_folders(said) == said
