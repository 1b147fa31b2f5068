"""Help, the page made from it, and the commands that show rather than encode."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from prototokens import __version__
from prototokens._util.words import counted
from prototokens.cli import cli
from prototokens.cli.encode import GROUPS
from prototokens.cli.keys import KEYS
from prototokens.cli.models import _from_config

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "docs" / "command_line_page.py"


def test_help_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys\nfrom prototokens.cli import main\n"
        "try: main(['--help'])\nfinally: print(sorted(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, not the clock: the machine may be busy with other tests.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert "Turn text into a few input vectors" in ran.stdout
    modules = ran.stdout.splitlines()[-1]
    for heavy in ("torch", "transformers", "numpy", "rich.console", "safetensors"):
        assert f"'{heavy}'" not in modules


def test_the_package_runs_as_a_module():
    ran = subprocess.run(
        [sys.executable, "-m", "prototokens", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == f"prototokens, version {__version__}\n"


def test_no_short_help_is_cut(run):
    for name, command in cli.commands.items():
        assert command.get_short_help_str(limit=60) in run("--help").out.decode()
        assert not command.get_short_help_str(limit=60).endswith("..."), name


def test_without_a_command_help_is_shown(run):
    ran = run()
    assert ran.status == 2
    assert "Commands:" in ran.err


@pytest.mark.parametrize("name", cli.commands)
def test_every_command_has_json_quiet_and_debug_and_says_what_its_options_do(name):
    options = [
        parameter for parameter in cli.commands[name].params if isinstance(parameter, click.Option)
    ]
    assert {"--json", "--quiet", "--debug"} <= {word for option in options for word in option.opts}
    assert all(option.help for option in options)
    assert name in KEYS


def test_the_help_of_encode_is_in_groups(run):
    text = run("encode", "--help").out.decode()
    places = [text.index(f"\n{heading}:\n") for heading in GROUPS]
    assert places == sorted(places)
    known = {option.name for option in cli.commands["encode"].params if option.name != "source"}
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(known)
    for option in cli.commands["encode"].params:
        if isinstance(option, click.Option):
            assert text.count(f"  {option.opts[-1]} ") + text.count(f", {option.opts[-1]} ") >= 1


def test_a_number_has_its_noun():
    assert [counted(count, "chunk") for count in (0, 1, 2000)] == [
        "0 chunks",
        "1 chunk",
        "2,000 chunks",
    ]
    assert counted(2, "pass", "passes") == "2 passes"


def test_the_page_is_what_the_commands_say():
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_page_out_of_date_is_found(tmp_path):
    """A copy of the script, whose page is not there and then a line short."""
    (tmp_path / "scripts" / "docs").mkdir(parents=True)
    copy = tmp_path / "scripts" / "docs" / SCRIPT.name
    copy.write_text(SCRIPT.read_text())
    checked = subprocess.run(
        [sys.executable, copy, "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1
    assert "out of date" in checked.stderr
    assert not (tmp_path / "docs").exists()
    subprocess.run([sys.executable, copy], check=True)
    page = tmp_path / "docs" / "command-line.md"
    assert page.read_text() == (SCRIPT.parents[2] / "docs" / "command-line.md").read_text()


def test_models_at_hand(run, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    listed = run("models", "--json")
    assert listed.status == 0
    assert listed.json.keys() == {"models"}
    built_in = listed.json["models"][0]
    assert (built_in["name"], built_in["where"]) == ("builtin", "in the package")
    shape = ("d_model", "layers", "heads", "vocabulary", "context")
    assert all(built_in[key] >= 1 for key in shape)
    assert built_in["parameters"] > built_in["vocabulary"] * built_in["d_model"]
    assert run("models").out.decode().startswith("builtin\n")


def test_a_model_described(run, folder):
    described = run("models", folder, "--json")
    assert described.status == 0
    assert set(described.json) == set(KEYS["models"]) - {"models"}
    expected = {
        "name": str(folder),
        "layers": 2,
        "heads": 4,
        "d_model": 32,
        "vocabulary": 260,
        "context": 128,
        "dtype": "float32",
        "revision": None,
    }
    assert {key: described.json[key] for key in expected} == expected
    assert described.json["parameters"] > 32 * 260
    assert f"  fingerprint: {described.json['fingerprint']}" in run("models", folder).out.decode()


def test_the_demonstration(run, folder, monkeypatch):
    monkeypatch.setattr("prototokens.samples.short", lambda: "Hi.")
    monkeypatch.setattr("prototokens.samples.lighthouse", lambda: "One evening.\n\nA boat.")
    shown = run("demo", "--model", folder)
    assert shown.status == 0
    text = shown.out.decode()
    assert "3 tokens into two vectors" in text
    assert "2 paragraphs" in text
    assert "unchanged" in text
    assert " ms in one pass, " in text
    assert "\nnext\n" in text
    assert "1 forward pass," in text
    frames = [line.split(maxsplit=3)[3] for line in text.splitlines() if line[:7] == "   step"]
    assert 1 <= len(frames) == len(set(frames))
    silent = run("demo", "--model", folder, "--json", "--quiet")
    assert silent.status == 0
    assert set(silent.json) == set(KEYS["demo"])
    assert json.loads(silent.out)["sentence_exact"] is True
    assert silent.json["one_step_single"] > 0
    assert silent.json["encoder_accuracy"] is None  # none ships for this model


def test_a_cached_model_is_described_by_its_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 12, "n_head": 3}')
    assert _from_config(tmp_path / "config.json") == {"kind": "gpt2", "layers": 12, "heads": 3}
    assert _from_config(tmp_path / "nowhere.json") == {}


def test_bench_fits_the_same_passages_five_ways(run, folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh" * 3)
    result = run(
        "bench", text, "--model", folder, "--length", 3, "--passages", 2, "--steps", 300, "--json"
    ).json
    assert set(result) == set(KEYS["bench"]) - {"shapes", "heads", "head_memory"}
    ways = {way["name"]: way for way in result["ways"]}
    assert sorted(ways) == [
        "engine, fast, keyed:2",
        "engine, fast, keyed:5",
        "engine, paper",
        "serial, fast",
        "serial, paper",
    ]
    assert all(
        way["tried"] == 2 and 2 <= way["row_steps"] <= 602 and way["seconds"] > 0
        for way in ways.values()
    )
    assert ways["engine, fast, keyed:2"]["solved"] == ways["serial, fast"]["solved"] == 2
    assert result["decoding"]["one_step_single"] > 0
    assert result["decoding"]["autoregressive_single"] > 0
    assert ways["serial, paper"]["row_steps_times_serial_paper"] == 1.0
    assert ways["engine, fast, keyed:2"]["memory"] > 0


def test_bench_measures_steps_by_shape_and_three_heads(run, folder, monkeypatch):
    from prototokens.bench import shapes

    monkeypatch.setattr(shapes, "LENGTHS", (4, 8, 4000))
    monkeypatch.setattr(shapes, "ROWS", (1, 3))
    rows = run("bench", "--what", "shapes", "--model", folder, "--json").json["shapes"]
    # At full batch both lengths that the context holds, and one length by rows.
    assert [(row["length"], row["rows"]) for row in rows] == [(4, 256), (8, 128), (32, 1), (32, 3)]
    assert all(row["milliseconds"] > 0 and 0 < row["share_of_peak"] < 1 for row in rows)
    heads = run("bench", "--what", "heads", "--model", folder, "--dtype", "float32", "--json").json[
        "heads"
    ]
    assert [row["way"] for row in heads] == ["chunked", "plain", "fused"]
    assert all(row["gradient_error"] < 1e-4 for row in heads)


def test_bench_measures_the_memory_of_the_head(run, monkeypatch):
    from prototokens.bench import head_memory

    monkeypatch.setattr(head_memory, "LARGE", head_memory.Work(5000, 64, 4, 64))
    rows = run("bench", "--what", "head-memory", "--json").json["head_memory"]
    assert [row["way"] for row in rows] == ["chunked", "fused"]
    assert all(row["logits_bytes"] == 4 * 256 * 5000 for row in rows)
    assert all(row["peak_bytes"] is None or 0 < row["peak_bytes"] < 1e9 for row in rows)
    # Measured in processes of its own, which takes seconds: not once more for the words.
    monkeypatch.setattr(head_memory, "head_memory", lambda *_: rows)
    assert (
        run("bench", "--what", "head-memory")
        .out.decode()
        .startswith("chunked  4 rows of 64 tokens, 5,000 logits each")
    )


def test_bench_takes_a_named_source(run, folder):
    result = run(
        "bench",
        "--texts",
        "random-tokens",
        "--model",
        folder,
        "--length",
        2,
        "--passages",
        1,
        "--json",
    ).json
    assert result["passages"] == 1
    both = run("bench", "-", "--texts", "sample", "--model", folder)
    assert both.status == 2
    assert "either a file or --texts" in both.err


def test_bench_needs_enough_text(run, folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("too short")
    ran = run("bench", text, "--model", folder, "--length", 8, "--passages", 2)
    assert ran.status == 2
    assert "too few for 2 passages of 8" in ran.err
