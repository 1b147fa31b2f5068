"""Training: it learns, the decoder never changes, and a killed run ends as an undisturbed one."""

import json
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import prototokens as pt
from prototokens.encoder.config import Shape
from prototokens.encoder.encoder import Encoder
from prototokens.encoder.starts import raw
from prototokens.errors import FileError, Interrupted, TextError, UsageError
from prototokens.training.config import Running, Training
from prototokens.training.data import Pool
from prototokens.training.distil import save_solutions
from prototokens.training.train import Trainer, train

SHAPE = Shape(layout="tiled:2", max_length=6, width=16, layers=1, heads=2, feed_forward=24)


def logged(work):
    rows = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def same(one, other):
    ours, theirs = (load_file(folder / "encoder.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_four_texts_are_learned_by_heart(tiny_llama, tmp_path):
    """And come back exactly from the encoder's raw vectors, after a way through the folder."""
    choose, before = random.Random(1), tiny_llama.weights_hash()
    texts = [tuple(choose.choices(range(256), k=4)) for _ in range(4)]
    shape = Shape(layout="tiled:3", max_length=4, width=64, layers=2, heads=2, feed_forward=128)
    trainer = Trainer(
        tiny_llama,
        shape,
        Training(
            texts="random-tokens",
            steps=250,
            rows=4,
            pool=1000,
            warmup=10,
            rate=0.01,
            temperature=0.5,
        ),
        Running(work=tmp_path / "work", measured=4),
    )
    trainer.pool.batch = lambda training, step: texts
    rows = [trainer.step(step) for step in range(250)]
    assert rows[-1]["nats"] < 0.1 * rows[0]["nats"]
    Encoder.of(tiny_llama, trainer.network).save(tmp_path / "encoder")
    found = raw(tiny_llama, Encoder.load(tmp_path / "encoder"), texts)
    assert all(solution.exact and solution.margin > 0 for solution in found)
    assert pt.decode_ids(tiny_llama, found).ids == [list(ids) for ids in texts]
    assert tiny_llama.weights_hash() == before


@pytest.mark.parametrize("moment", [1, 6, 10])
@pytest.mark.parametrize(
    ("changes", "refinements"),
    [({}, 0), ({"noise": 0.3, "curriculum": 8, "temperature": 0.7}, 0), ({"noise": 0.3}, 2)],
    ids=["plain", "all options", "refined"],
)
def test_a_killed_run_ends_where_an_undisturbed_one_does(
    moment, changes, refinements, tiny_llama, training, running, tmp_path, monkeypatch
):
    training, shape = replace(training, **changes), replace(SHAPE, refinements=refinements)
    train(
        tiny_llama,
        shape,
        training,
        tmp_path / "undisturbed",
        replace(running, work=tmp_path / "other"),
    )
    batch, seen = Pool.batch, []

    def killed(self, training, step):
        seen.append(step)
        if len(seen) == moment + 1:
            raise KeyboardInterrupt
        return batch(self, training, step)

    monkeypatch.setattr(Pool, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_llama, shape, training, tmp_path / "killed", running)
    monkeypatch.setattr(Pool, "batch", batch)
    train(tiny_llama, shape, training, tmp_path / "killed", running)
    same(tmp_path / "undisturbed", tmp_path / "killed")
    assert logged(running.work) == logged(tmp_path / "other")


def test_a_run_between_two_checkpoints_is_taken_up_from_the_first(
    tiny_llama, training, running, tmp_path
):
    """What was logged past it is dropped, and logged again."""
    other = replace(running, work=tmp_path / "other", save_every=1e9)
    train(
        tiny_llama,
        SHAPE,
        training,
        tmp_path / "undisturbed",
        replace(running, work=tmp_path / "third"),
    )
    # Checkpoints are due at the fall of the rate (step 9) and at the end alone.
    stop_at = replace(other, on_progress=lambda row: 1 / (11 - row["step"]))
    with pytest.raises(ZeroDivisionError):
        train(tiny_llama, SHAPE, training, tmp_path / "killed", stop_at)
    assert len(logged(other.work)) == 11
    train(tiny_llama, SHAPE, training, tmp_path / "killed", other)
    same(tmp_path / "undisturbed", tmp_path / "killed")
    assert [row["step"] for row in logged(other.work)] == list(range(1, 13))


def test_a_run_that_is_stopped_keeps_its_progress(tiny_llama, training, running, tmp_path):
    stops = iter([False, False, True])
    with pytest.raises(Interrupted, match="step 3 of 12"):
        train(
            tiny_llama,
            SHAPE,
            training,
            tmp_path / "out",
            replace(running, save_every=1e9, stop=lambda: next(stops)),
        )
    assert not (tmp_path / "out").exists()
    steps = []
    train(
        tiny_llama,
        SHAPE,
        training,
        tmp_path / "out",
        replace(running, on_progress=lambda row: steps.append(row["step"])),
    )
    assert steps == list(range(4, 13))


def test_more_steps_go_on_from_before_the_fall_of_the_rate(tiny_llama, training, running, tmp_path):
    train(
        tiny_llama,
        SHAPE,
        replace(training, steps=20),
        tmp_path / "whole",
        replace(running, work=tmp_path / "other"),
    )
    train(tiny_llama, SHAPE, training, tmp_path / "short", running)
    train(tiny_llama, SHAPE, replace(training, steps=20), tmp_path / "longer", running)
    same(tmp_path / "whole", tmp_path / "longer")


@pytest.mark.parametrize("changes", [{"seed": 1}, {"rows": 5}, {"temperature": 0.5}])
def test_the_checkpoint_of_another_run_is_not_written_over(
    changes, tiny_llama, training, running, tmp_path
):
    train(tiny_llama, SHAPE, training, tmp_path / "out", running)
    with pytest.raises(UsageError, match="other settings"):
        train(tiny_llama, SHAPE, replace(training, **changes), tmp_path / "out", running)
    train(
        tiny_llama,
        SHAPE,
        replace(training, **changes),
        tmp_path / "out",
        replace(running, afresh=True),
    )


def test_a_damaged_checkpoint_has_a_clear_message(tiny_llama, training, running, tmp_path):
    train(tiny_llama, SHAPE, training, tmp_path / "out", running)
    for path in running.work.glob("checkpoint*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileError, match="no whole checkpoint"):
        train(tiny_llama, SHAPE, training, tmp_path / "out", running)


def test_the_log_and_the_weights_of_a_training(tiny_llama, training, running, tmp_path):
    proving = replace(running, proved=2, prove_at=(4, 99))
    encoder = train(tiny_llama, SHAPE, training, tmp_path / "out", proving)
    rows = logged(running.work)
    assert [row["step"] for row in rows if "held_out" in row] == [4, 8, 12]
    assert [row["length"] for row in rows[-1]["held_out"]] == [1, 2, 4, 6]
    assert all(0 <= row["exact"] <= row["accuracy"] <= 1 for row in rows[-1]["held_out"])
    assert encoder.config["trained"]["tokens"] == rows[-1]["tokens"]
    assert [row["length"] for row in encoder.config["proof"]] == [4, 6]
    assert all(row["encoder"]["row_steps"] > 0 for row in encoder.config["proof"])
    assert [row["length"] for row in encoder.config["rates"]] == [4, 6]
    card = (tmp_path / "out" / "README.md").read_text()
    assert encoder.config["model"]["fingerprint"] in card
    assert (tmp_path / "out" / "held-out.svg").stat().st_size > 1000
    assert "file:words.txt" in card, "no path of the machine it was trained on"


@pytest.mark.parametrize("texts", ["random-tokens", "sample"])
def test_any_source_will_do(texts, tiny_llama, training, running, tmp_path):
    encoder = train(
        tiny_llama, SHAPE, replace(training, texts=texts, pool=2000), tmp_path / "out", running
    )
    assert encoder.config["held_out"]["source"] == texts


def test_a_source_of_its_own_can_be_held_out(tiny_llama, training, running, tmp_path):
    training = replace(training, texts="random-tokens", held_out="sample", pool=1000)
    assert (
        train(tiny_llama, SHAPE, training, tmp_path / "out", running).config["held_out"]["source"]
        == "sample"
    )


@pytest.mark.parametrize("texts", ["random-tokens", "sample"])
def test_held_out_texts_are_never_trained_on(texts, tiny_llama, training, running):
    pool = Trainer(tiny_llama, SHAPE, replace(training, texts=texts, pool=3000), running).pool
    unseen = {
        index * pool.stride + offset
        for index in pool.held_out_indices(50)
        for offset in range(pool.most)
    }
    trained = {
        index * pool.stride + offset for index in range(pool.count) for offset in range(pool.most)
    }
    assert unseen
    assert not unseen & trained
    assert max(unseen) < len(pool.ids)


def test_too_little_text_has_a_clear_message(tiny_llama, training, running, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(TextError, match="too few to train on"):
        train(
            tiny_llama,
            SHAPE,
            replace(training, texts=f"file:{tmp_path / 'short.txt'}"),
            tmp_path / "out",
            running,
        )


def test_fitted_solutions_can_teach(tiny_llama, training, running, tmp_path):
    choose = random.Random(2)
    texts = [choose.choices(range(256), k=3) for _ in range(3)]
    solutions = pt.fit(tiny_llama, texts, layout=SHAPE.layout)
    save_solutions(tmp_path / "solutions.safetensors", tiny_llama, solutions)
    taught = replace(
        training, distil=1.0, solutions=str(tmp_path / "solutions.safetensors"), steps=60
    )
    trainer = Trainer(tiny_llama, SHAPE, taught, running)
    protos = torch.stack([solution.protos for solution in solutions])

    def away():
        with torch.no_grad():
            return float((trainer.encode(texts).protos - protos).square().mean())

    before = away()
    for step in range(60):
        trainer.step(step)
    assert away() < 0.8 * before
    with pytest.raises(FileError, match="another model or layout"):
        Trainer(tiny_llama, replace(SHAPE, layout="paper"), taught, running)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"rows": 0}, "rows"),
        ({"temperature": 0.0}, "temperature"),
        ({"rate": float("nan")}, "rate"),
        ({"noise": -1.0}, "noise"),
        ({"decay": 2.0}, "decay"),
        ({"distil": 1.0}, "solutions"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_in_words(changes, words):
    with pytest.raises(UsageError, match=words):
        Training(**changes)


def test_lengths_follow_the_curriculum():
    training = Training(rows=40, curriculum=100, shortest=2, full=0.25)
    assert set(training.lengths(0, 30)) == {2}
    assert max(training.lengths(50, 30)) == training.longest(50, 30) == 16
    late = training.lengths(5000, 30)
    assert late == sorted(late, reverse=True)
    assert late.count(30) >= 10
    assert min(late) < 15


def test_a_trial_forecasts_the_time_and_changes_nothing(tiny_llama, training, running):
    said = []
    trainer = Trainer(tiny_llama, SHAPE, training, running)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    whole, half = trainer.forecast(0), trainer.forecast(training.steps // 2)
    assert 0 < half
    assert 0 < whole
    assert all(parameter.grad is None for parameter in trainer.network.parameters())
    assert all(
        torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items()
    )
    train(
        tiny_llama, SHAPE, training, running.work.parent / "out", replace(running, log=said.append)
    )
    tokens = sum(sum(training.lengths(step, SHAPE.max_length)) for step in range(training.steps))
    assert said[0].startswith("12 steps to go, about ")
    assert f"{tokens:,} training tokens in all" in said[0]
    assert "mixed:4 of builtin was trained on" in said[0]


def test_every_second_step_is_unrolled_and_a_run_begins_with_given_weights(
    tiny_llama, training, running, tmp_path
):
    drawn = [replace(training, unrolled=5).unrolled_at(step) for step in range(200)]
    assert set(drawn[::2]) == {0}
    assert set(drawn[1::2]) == {1, 2, 3, 4, 5}
    first = train(tiny_llama, SHAPE, training, tmp_path / "first", running)
    going_on = replace(training, init=str(tmp_path / "first"))
    trainer = Trainer(tiny_llama, SHAPE, going_on, replace(running, work=tmp_path / "work"))
    assert all(
        torch.equal(value, trainer.network.state_dict()[name])
        for name, value in first.network.state_dict().items()
    )
    with pytest.raises(UsageError, match="another shape"):
        Trainer(tiny_llama, replace(SHAPE, width=8), going_on, running)
    refining = replace(SHAPE, refinements=1, refine_layers=1)
    unrolled = replace(training, unrolled=2)
    encoder = train(
        tiny_llama, refining, unrolled, tmp_path / "late", replace(running, work=tmp_path / "l")
    )
    assert encoder.config["training"]["unrolled"] == 2
    assert encoder.config["trained"]["step"] == training.steps
