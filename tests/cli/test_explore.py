"""explore: what it is given, and what it says before it serves."""

import sys

import pytest

from prototokens.cli.keys import KEYS

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'prototokens[explorer]'")


@pytest.fixture
def served(monkeypatch):
    """What would be served, without serving it."""
    given = []
    monkeypatch.setattr(
        "prototokens.explorer.page.serve", lambda *arguments: given.append(arguments)
    )
    return given


def test_it_is_served_to_this_machine_alone(run, served, tmp_path):
    ran = run("explore", "--port", 0, "--results", tmp_path, "--json")
    assert ran.status == 0
    assert set(ran.json) == set(KEYS["explore"])
    settings, host, bound = served[0]
    assert (host, settings.models, settings.results, settings.max_upload) == (
        "127.0.0.1",
        ("builtin",),
        (tmp_path,),
        8 << 20,
    )
    assert ran.json["address"] == f"http://127.0.0.1:{bound.getsockname()[1]}"
    assert ran.json["address"] in ran.err
    assert "warning" not in ran.err
    bound.close()


def test_any_other_address_warns(run, served):
    ran = run("explore", "--host", "0.0.0.0", "--port", 0, "--quiet")
    assert ran.status == 0
    assert "warning: 0.0.0.0 can be reached from other machines" in ran.err
    served[0][2].close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--results", "nowhere"], "nowhere is no folder"),
        (["--revision", "main"], "--revision belongs to one model"),
        (["--port", "70000"], "70000"),
        (["--host", "no.such.host.invalid"], "cannot be listened at"),
        (["--share"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_served_are_refused(run, served, arguments, sentence):
    ran = run("explore", *arguments)
    assert ran.status == 2
    assert sentence in ran.err
    assert not served


def test_without_gradio_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    ran = run("explore")
    assert ran.status == 2
    assert "pip install 'prototokens[explorer]'" in ran.err
