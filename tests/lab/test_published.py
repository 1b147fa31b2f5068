"""Published figures are found for their own model and kind of texts, and for no others."""

import pytest

from prototokens.lab import published


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("hub:emozilla/pg19:text", "PG-19"),
        ("hub:emozilla/pg19@abc:text:test", "PG-19"),
        ("file:books/PG-19/test.parquet:text", "PG-19"),
        ("generated:hub:emozilla/pg19:text", "generated"),
        ("generated:file:pg19.parquet", "generated"),
        ("random-words:words.txt", "random"),
        ("file:fan-fiction", "fan fiction"),
        ("file:texts/fan_fiction.jsonl:story", "fan fiction"),
        ("hub:someone/fanfiction-2025:text", "fan fiction"),
        ("generated:file:fan-fiction", "generated:file:fan-fiction"),
        ("generated:sample", "generated:sample"),
        ("file:books.parquet", "file:books.parquet"),
        ("random-tokens", "random-tokens"),
        ("sample", "sample"),
    ],
)
def test_sources_have_the_papers_names(source, kind):
    assert published.kind_of(source) == kind


def test_capacity_of_a_model_and_a_source():
    assert published.capacity(published.LLAMA_1B, "hub:emozilla/pg19:text", shared=False) == (
        362,
        993.8,
        183.4,
    )
    assert published.capacity(published.PYTHIA_410M, "file:fan-fiction", shared=True) == (
        45,
        82.3,
        28.1,
    )
    assert published.capacity("builtin", "hub:emozilla/pg19:text", shared=False) is None
    assert published.capacity(published.LLAMA_1B, "sample", shared=False) is None


def test_seconds_where_a_solution_was_found():
    assert published.seconds(published.LLAMA_8B, 512) == 215
    assert published.seconds(published.PYTHIA_160M, 512) is None
    assert published.seconds("builtin", 32) is None
