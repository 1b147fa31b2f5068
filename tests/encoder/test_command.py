"""`train-encoder` as a user types it.

What it writes, what it refuses, and that a SIGKILL costs nothing but time.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from prototokens.cli import main
from prototokens.encoder.encoder import Encoder

SMALL = [
    "--vectors=3",
    "--max-length=6",
    "--width=16",
    "--layers=1",
    "--heads=2",
    "--rows=4",
    "--warmup=2",
    "--measured=6",
    "--measure-every=5",
    "--proved=0",
    "--dtype=float32",
]


def run(capfd, *arguments):
    capfd.readouterr()  # what was printed while the model was made
    with pytest.raises(SystemExit) as end:
        main(["train-encoder", *map(str, arguments)])
    out, err = capfd.readouterr()
    return end.value.code, out, err


@pytest.fixture
def given(tiny_folder, words, tmp_path):
    return ["--model", tiny_folder, "--texts", f"file:{words}", *SMALL, "-o", tmp_path / "encoder"]


def test_the_command_trains_measures_and_writes_an_encoder(capfd, given, tmp_path):
    status, out, err = run(capfd, *given, "--steps=10", "--json", "--proved=2")
    assert status == 0, err
    result = json.loads(out)
    assert result["shape"]["layout"] == "keyed:3"
    assert result["shape"]["bound"]
    assert result["trained"]["step"] == 10
    assert [row["length"] for row in result["held_out"]["rows"]] == [1, 2, 4, 6]
    assert [row["length"] for row in result["proof"]] == [4, 6]
    assert "step 5 of 10" in err
    assert " left" in err
    assert Encoder.load(tmp_path / "encoder").shape.max_length == 6
    assert {path.name for path in (tmp_path / "encoder").iterdir()} == {
        "config.json",
        "encoder.safetensors",
        "README.md",
        "held-out.svg",
    }
    status, _, err = run(capfd, *given, "--steps=10")
    assert status == 2
    assert "--force" in err


def test_quiet_is_quiet(capfd, given):
    assert run(capfd, *given, "--steps=3", "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--layout=paper"], "either --layout or --vectors"),
        (["--depths=a,b"], "0,3,6"),
        (["--depths=0,9"], "depths 0 to 2"),
        (["--max-length=500"], "--max-length"),
        (["--texts=file:nowhere.txt"], "does not exist"),
        (["--texts=poems"], "none of"),
        (["--temperature=-1"], "temperature"),
        (["--distil=1"], "solutions"),
        (["--distil=1", "--solutions=nowhere"], "nowhere"),
        (["--model=nowhere/at-all"], "nowhere/at-all"),
        (["-o", "no/folder/here"], "make it first"),
        (["--work", __file__], "--work"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_status_2(capfd, given, extra, expected, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, out, err = run(capfd, *given, *extra)
    assert status == 2
    assert out == ""
    assert expected in err
    assert len(err.strip().splitlines()) == 1


def test_a_sigkill_costs_nothing_but_time(capfd, given, tmp_path):
    """Killed at work and started again, it ends with the weights of a run that was left alone."""
    more = ["--steps=60", "--save-every=0", "--quiet"]
    status, _, err = run(capfd, *given[:-1], tmp_path / "undisturbed", *more)
    assert status == 0, err
    command = [sys.executable, "-m", "prototokens", "train-encoder", *map(str, given), *more]
    process = subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    )
    log = tmp_path / "encoder.work" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 7):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it had ended before it was killed"
    status, _, err = run(capfd, *given, *more)
    assert status == 0, err
    ours, theirs = (
        load_file(tmp_path / name / "encoder.safetensors") for name in ("encoder", "undisturbed")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 61))


def test_ctrl_c_ends_it_after_the_step_in_work(given, tmp_path):
    command = [
        sys.executable,
        "-m",
        "prototokens",
        "train-encoder",
        *map(str, given),
        "--steps=100000",
        "--quiet",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "encoder.work" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert (tmp_path / "encoder.work" / "checkpoint.safetensors").exists()
