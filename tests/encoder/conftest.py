"""A text file of made-up words, and the smallest training that does something."""

import random

import pytest

from prototokens.encoder.config import Shape
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.network import make_network
from prototokens.training.config import Running, Training

SHAPE = Shape(layout="tiled:2", max_length=6, width=16, layers=1, heads=2, feed_forward=24)


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """The path of a file of made-up words."""
    path, choose = tmp_path_factory.mktemp("words") / "words.txt", random.Random(0)
    known = ["".join(choose.choices("abcdefgh", k=4)) for _ in range(40)]
    path.write_text(" ".join(choose.choices(known, k=400)), encoding="utf-8")
    return path


@pytest.fixture
def training(words):
    return Training(texts=f"file:{words}", steps=12, rows=4, warmup=2, decay=0.25)


@pytest.fixture
def running(tmp_path):
    return Running(work=tmp_path / "work", save_every=0, measure_every=4, measured=6, proved=0)


@pytest.fixture
def untrained(tiny_llama):
    """An encoder as it is before its first step."""
    return Encoder.of(tiny_llama, make_network(tiny_llama, SHAPE, 0))
