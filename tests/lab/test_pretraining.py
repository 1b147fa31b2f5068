"""Capacity over checkpoints.

Random weights, folders, what a name says of training, and texts that must be the same ids.
"""

import copy

import pytest
from experiment_runs import carried_out, cells, settings

from prototokens.errors import UsageError
from prototokens.lab import models
from prototokens.lab.experiments import pretraining


@pytest.fixture
def facts_of():
    return lambda name: models.facts(models.load(name, dtype="float32"))


def test_random_weights_and_the_model_itself(tiny_llama, tiny_folder, facts_of, tmp_path):
    # Not the weights that a configuration gives with seed 0: they are what `random:` stands for,
    # and the tiny model has them.
    moved = copy.deepcopy(tiny_llama.model)
    moved.model.norm.weight.data *= 1.25
    moved.save_pretrained(tiny_folder)
    lm = models.load(str(tiny_folder), dtype="float32")
    config = settings(lm, most_texts=2, grid=(1, 2), facts_of=facts_of)
    jobs, rows, report = carried_out("pretraining", lm, config, tmp_path / "rows")
    assert [job.model.name for job in jobs] == [f"random:{tiny_folder}"] * 2 + [
        str(tiny_folder)
    ] * 2
    assert len({job.model.fingerprint for job in jobs}) == 2
    table = cells(report, "pretraining")
    assert [line["checkpoint"] for line in table] == [f"random:{tiny_folder}", str(tiny_folder)]
    own = {(row["checkpoint"], row["text"]): row for row in rows}
    for row in rows:
        final = lm.surprisal(
            list(next(job.text.ids for job in jobs if job.text.id == row["text"]))
        ).double()
        assert row["nats_of_final"] == pytest.approx(float(final[: row["held"]].sum()), abs=1e-3)
    assert all(
        row["nats"] == pytest.approx(row["nats_of_final"], abs=1e-3)
        for (name, _), row in own.items()
        if "random" not in name
    )


def test_a_list_of_checkpoints_with_their_tokens(tiny_folder, facts_of, tmp_path):
    lm = models.load(str(tiny_folder), dtype="float32")
    names = (f"random:{tiny_folder}", f"{tiny_folder}=8M")
    config = settings(lm, most_texts=1, grid=(1,), facts_of=facts_of, checkpoints=names)
    jobs, _, report = carried_out("pretraining", lm, config, tmp_path / "rows")
    assert len(jobs) == 2  # the model at hand is in the list already
    assert [line["training tokens"] for line in cells(report, "pretraining")] == [0, 8_000_000]


def test_a_folder_of_snapshots_in_the_order_of_their_tokens(tiny_folder, facts_of, tmp_path):
    """Snapshots as a training leaves them.

    Capacity is drawn against the tokens that their folders' names tell.
    """
    lm = models.load(str(tiny_folder), dtype="float32")
    for number, name in enumerate(("16M", "0.25M", "2M")):
        moved = copy.deepcopy(lm.model)
        moved.model.norm.weight.data *= 1 + number / 8
        moved.save_pretrained(tmp_path / "snapshots" / name)
        lm.tokenizer.save_pretrained(tmp_path / "snapshots" / name)
    (tmp_path / "snapshots" / "log.jsonl").write_text("")
    names = (f"random:{tiny_folder}", str(tmp_path / "snapshots"))
    config = settings(lm, most_texts=2, grid=(1, 2), facts_of=facts_of, checkpoints=names)
    _, rows, report = carried_out("pretraining", lm, config, tmp_path / "rows")
    table = cells(report, "pretraining")
    # The model at hand is the snapshot that was not moved: it is not named once more.
    assert [line["training tokens"] for line in table] == [0, 250_000, 2_000_000, 16_000_000]
    for line in table:
        mine = [row for row in rows if row["tokens_seen"] == line["training tokens"]]
        assert (line["count"], line["C_tokens"]) == (2, max(row["correct"] for row in mine))
    tokens, nats = report.figures["pretraining"].axes
    assert [list(axes.lines[0].get_xdata()) for axes in (tokens, nats)] == [
        [0, 250_000, 2_000_000, 16_000_000]
    ] * 2
    assert {axes.get_xlabel() for axes in (tokens, nats)} == {"training tokens"}


def test_a_folder_without_models_is_reported(tiny_folder, facts_of, tmp_path):
    lm = models.load(str(tiny_folder), dtype="float32")
    config = settings(
        lm, most_texts=1, grid=(1,), facts_of=facts_of, checkpoints=(str(tmp_path / "bare"),)
    )
    (tmp_path / "bare").mkdir()
    with pytest.raises(
        UsageError, match="bare: the folder holds no model, nor folders that hold one"
    ):
        pretraining.jobs(config)


def test_another_tokenizer_is_refused(tiny_folder, facts_of):
    lm = models.load(str(tiny_folder), dtype="float32")
    config = settings(lm, most_texts=1, grid=(1,), facts_of=facts_of, checkpoints=("builtin",))
    with pytest.raises(UsageError, match="another tokenizer"):
        pretraining.jobs(config)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("EleutherAI/pythia-160m@step143000", 143000 * 2097152),
        ("EleutherAI/pythia-70m-deduped@step0", 0),
        ("random:builtin", 0),
        ("builtin=60M", 60_000_000),
        ("build/snapshots/250000", 250_000),
        ("build/snapshots/0.5M/", 500_000),
        ("allenai/OLMo-2@1.5B", 1_500_000_000),
        ("builtin", None),
        ("EleutherAI/pythia-160m", None),
        ("some/model@step1000", None),
    ],
)
def test_tokens_of_training_are_read_from_a_checkpoints_name(name, tokens):
    assert pretraining.tokens_seen(name) == tokens
