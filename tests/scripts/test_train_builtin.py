"""The script that trains the built-in model.

Killed and started again, it ends where an undisturbed run ends.
"""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "builtin"))

import train as train_builtin

from prototokens.training import corpus

# 24 steps of 2 windows of 16; the rate falls over the last 6; checkpoints after every step.
SETTINGS = [
    "--vocab-size=300",
    "--d-model=16",
    "--layers=1",
    "--heads=2",
    "--feed-forward=32",
    "--context=16",
    "--short-context=8",
    "--rows=2",
    "--tokens=768",
    "--warmup-steps=2",
    "--micro-rows=1",
    "--save-every=0",
    "--validate-every=8",
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two small files of made-up words, one of them held out."""
    folder, choose = tmp_path_factory.mktemp("texts"), random.Random(0)
    words = ["".join(choose.choices("abcdefgh", k=4)) for _ in range(60)]
    for name in ("train.txt", "held-out.txt"):
        (folder / name).write_text(" ".join(choose.choices(words, k=800)))
    return folder


def train(monkeypatch, texts, work, *more):
    arguments = [
        "--data",
        texts / "train.txt",
        "--validate",
        texts / "held-out.txt",
        "--work",
        work,
        "--out",
        work / "model",
    ]
    monkeypatch.setattr(sys, "argv", ["train_builtin.py", *map(str, arguments), *SETTINGS, *more])
    train_builtin.main()


def weights(work):
    return load_file(work / "model" / "model.safetensors")


def logged(work):
    rows = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(texts, tmp_path_factory):
    work = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        train(monkeypatch, texts, work)
    return work


@pytest.mark.parametrize("moment", [1, 7, 18, 23])
def test_a_killed_run_ends_where_an_undisturbed_one_does(
    moment, monkeypatch, texts, undisturbed, tmp_path
):
    windows, seen = corpus.Windows.batch, []

    def killed(self, first, rows):
        seen.append(first)
        if len(seen) == moment + 1:
            raise KeyboardInterrupt
        return windows(self, first, rows)

    monkeypatch.setattr(corpus.Windows, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        train(monkeypatch, texts, tmp_path)
    monkeypatch.setattr(corpus.Windows, "batch", windows)
    train(monkeypatch, texts, tmp_path)
    ours, theirs = weights(tmp_path), weights(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(tmp_path) == logged(undisturbed)


def test_more_tokens_go_on_from_before_the_fall_of_the_rate(
    monkeypatch, texts, undisturbed, tmp_path
):
    long = tmp_path / "long"
    train(monkeypatch, texts, long, "--tokens=1536")
    extended = tmp_path / "extended"
    train(monkeypatch, texts, extended)
    train(monkeypatch, texts, extended, "--tokens=1536")
    assert all(torch.equal(weights(long)[name], weights(extended)[name]) for name in weights(long))
    assert [row["step"] for row in logged(extended)] == list(range(1, 49))


def test_a_checkpoint_of_another_run_is_not_written_over(monkeypatch, texts, tmp_path):
    train(monkeypatch, texts, tmp_path)
    (before_the_fall,) = tmp_path.glob("checkpoint-before-decay-*")
    before_the_fall.unlink()
    with pytest.raises(SystemExit, match="step 24 that is not on this run's way"):
        train(monkeypatch, texts, tmp_path, "--tokens=1536")
    train(monkeypatch, texts, tmp_path, "--tokens=1536", "--afresh")
    assert [row["step"] for row in logged(tmp_path)] == list(range(1, 49))


def test_a_finished_model_can_be_gone_on_from(monkeypatch, texts, undisturbed, tmp_path):
    """Its tokens count: no window is seen twice, and the fall is a share of what is left."""
    start = ["--init", str(undisturbed / "model"), "--init-tokens=768"]
    train(monkeypatch, texts, tmp_path, "--tokens=1536", *start)
    rows = logged(tmp_path)
    assert [row["step"] for row in rows] == list(range(25, 49))
    assert rows[0]["rate"] == 0.5
    assert sum(row["rate"] < 1 for row in rows) == 1 + 5


def test_the_model_learns_and_loads(undisturbed):
    rows = logged(undisturbed)
    assert rows[-1]["nats"] < rows[0]["nats"]
    assert rows[-1]["rate"] == pytest.approx(1 / 6)
    assert {row["step"] for row in rows if "held_out_nats" in row} == {8, 16, 24}
    assert (undisturbed / "snapshots" / "0M" / "model.safetensors").exists()
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights(undisturbed).values())


def test_too_little_text_has_a_clear_message(monkeypatch, tmp_path):
    (tmp_path / "train.txt").write_text("too short")
    (tmp_path / "held-out.txt").write_text("too short")
    with pytest.raises(SystemExit, match="fewer than one window of 16"):
        train(monkeypatch, tmp_path, tmp_path / "work")
