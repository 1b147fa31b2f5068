"""Corpora of a tiny model, made in a second."""

import shutil

import pytest

from prototokens.corpus.options import CorpusOptions
from prototokens.corpus.run import make
from prototokens.corpus.runners import Local
from small_corpora import QUICK, TEXTS, source_of


@pytest.fixture
def texts(tmp_path):
    """A source of a few texts: one is empty, two are alike, one has letters of several bytes."""
    return source_of(tmp_path / "texts.jsonl", TEXTS)


@pytest.fixture
def corpus(tiny_llama, texts, tmp_path):
    """Make one: `corpus(values="int8")`; gives the folder and the summary.

    Its fits have few steps: hardly a row is exact.
    """

    def made(source=texts, name="out", lm=tiny_llama, on_progress=None, **options):
        folder = tmp_path / name
        chosen = CorpusOptions(**{**QUICK, **options})
        return folder, make(lm, source, folder, chosen, Local(lm), on_progress)

    return made


@pytest.fixture(scope="session")
def made_once(tiny_llama, tmp_path_factory):
    """Folders whose fits have all the steps that they need, by the type of the values."""
    root = tmp_path_factory.mktemp("corpora")
    source = source_of(root / "texts.jsonl", TEXTS)

    def made(values):
        folder = root / values
        chosen = CorpusOptions(**{**QUICK, "steps": 150, "values": values})
        return folder, make(tiny_llama, source, folder, chosen, Local(tiny_llama))

    return made


@pytest.fixture
def exact_corpus(made_once, tmp_path):
    """A copy of one of them; gives the folder and the summary."""

    def copied(values="float32"):
        folder, summary = made_once(values)
        return shutil.copytree(folder, tmp_path / "out"), summary

    return copied
