"""The scripts that pages name take the options given there.

The tables that they wrote are those of the committed rows.
"""

import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.docs.test_pages import PAGES, ROOT, blocks

from prototokens.cli import main

SCRIPTS = ("scripts/", "tests/faults/mutate_files.py")
PIPED = re.compile(r"\| (prototokens|od)\b")


class Line(NamedTuple):
    """A line of a shell block, in words."""

    words: list[str]

    @property
    def script(self):
        return next((word for word in self.words if word.startswith(SCRIPTS)), None)

    @property
    def options(self):
        return self.words[self.words.index(self.script) + 1 :]


def lines():
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("sh", "console"):
                for line in block.content.replace("\\\n", " ").splitlines():
                    yield Line(shlex.split(line.removeprefix("$ "), comments=True))


OF_SCRIPTS = list(
    {
        tuple(line.words): line for line in lines() if line.script and line.script.endswith(".py")
    }.values()
)
OF_PYTEST = [line for line in lines() if "pytest" in line.words]


def shown(line):
    return " ".join(line.words[line.words.index(line.script) :])


def run(script, options, monkeypatch):
    """As `python SCRIPT OPTIONS`, in this process."""
    monkeypatch.setattr(sys, "argv", [str(script), *options])
    monkeypatch.syspath_prepend(str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("line", OF_SCRIPTS, ids=shown)
def test_a_script_takes_the_options_of_the_page(line, monkeypatch):
    class TakenError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def only_parse(*given, **options):
        parse(*given, **options)
        raise TakenError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    with pytest.raises(TakenError):
        run(ROOT / line.script, line.options, monkeypatch)


def studies():
    """The study and the folder of every report that a page says how to make."""
    for line in lines():
        if line.words[:2] == ["prototokens", "reproduce"] and "--from-rows" in line.words:
            _, _, study, _, _, folder = line.words
            yield study, folder


STUDIES = sorted(set(studies()))


def test_committed_rows_of_a_study_have_a_page_that_reports_them():
    kept = set()
    for path in (ROOT / "results").glob("*/rows.jsonl"):
        experiments = {
            json.loads(line)["experiment"] for line in path.read_text(encoding="utf-8").splitlines()
        }
        kept |= {(f"studies/{name}.py", f"results/{path.parent.name}") for name in experiments}
    assert kept == set(STUDIES)


@pytest.mark.parametrize(
    ("study", "folder"), STUDIES, ids=[f"{study} {folder}" for study, folder in STUDIES]
)
def test_a_reports_tables_are_those_of_the_committed_rows(study, folder, tmp_path, capsys):
    copied = tmp_path / folder
    shutil.copytree(ROOT / folder, copied)
    tables = {path.name: path.read_bytes() for path in copied.glob("*.csv")}
    with pytest.raises(SystemExit) as end:
        main(["reproduce", str(ROOT / study), "--from-rows", "--out", str(copied), "--quiet"])
    assert end.value.code == 0, capsys.readouterr().err
    assert (copied / "README.md").read_text(encoding="utf-8") == (
        ROOT / folder / "README.md"
    ).read_text(encoding="utf-8")
    assert {path.name: path.read_bytes() for path in copied.glob("*.csv")} == tables
    assert not (copied / "report.md").exists()


def test_the_table_of_the_forecast_is_that_of_the_package(tmp_path):
    page = tmp_path / "README.md"
    shutil.copy(ROOT / "results" / "front" / "README.md", page)
    script = ROOT / "scripts" / "artefacts" / "fit_forecast.py"
    subprocess.run([sys.executable, script, "--report", "--page", page], check=True)
    assert page.read_text(encoding="utf-8") == (ROOT / "results" / "front" / "README.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("line", OF_PYTEST, ids=lambda line: " ".join(line.words))
def test_the_tests_that_a_page_names_exist(line):
    (name,) = (word for word in line.words if word.startswith("tests/"))
    text = (ROOT / name).read_text(encoding="utf-8")
    assert all(
        word.partition("=")[0] in text for word in line.words if word.startswith("PROTOTOKENS_")
    )
    if "-k" in line.words:
        assert line.words[line.words.index("-k") + 1] in text


def test_commands_in_a_pipe_do_what_they_say(tmp_path):
    """`printf ... | prototokens encode -`, and what reads it back, in a real shell."""
    page = ROOT / "docs" / "how-to" / "long-texts.md"
    (block,) = (block.content for block in blocks(page) if PIPED.search(block.content))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-ec", block],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[1:6] == ["c", "a", "f", "351", "n"]
