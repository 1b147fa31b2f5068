"""The address of a state: what it may hold, and what is refused."""

import asyncio
import json
import re

import pytest

from prototokens.errors import UsageError
from prototokens.explorer import address

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'prototokens[explorer]'")


def read(**asked):
    return address.read(asked, ("builtin", "other"), 100)


def test_what_an_address_says_is_set():
    state = read(
        tab="inside", text="Ein Gruß", model="other", layout="tiled:3", start="encoder",
        recipe="paper", seed="7", steps="300", a="A", b="B", rows="x.csv", utm_source="?",
    )  # fmt: off
    assert state == address.State(
        "inside", "Ein Gruß", "other", "tiled:3", "encoder", "paper", 7, 300, "A", "B", "x.csv"
    )
    assert read() == address.State()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"text": "x" * 101}, "text in the address has 101 characters"),
        ({"a": "x" * 101}, "a in the address has 101"),
        ({"layout": "twisted"}, "there is no layout 'twisted'"),
        ({"layout": "keyed:9999"}, "there is no layout"),
        ({"layout": "k" * 201}, "layout in the address has 201"),
        ({"model": "/etc"}, "'/etc' in the address is none of builtin, other"),
        ({"tab": "<script>"}, "none of encode, decode"),
        ({"start": "zero"}, "none of random, encoder"),
        ({"recipe": "slow"}, "none of fast, paper"),
        ({"seed": "-1"}, "no whole number from 0"),
        ({"seed": "9" * 40}, "no whole number from 0"),
        ({"steps": "1e9"}, "no whole number from 100 to 5,000"),
        ({"steps": "99999"}, "no whole number from 100 to 5,000"),
        ({"rows": "../" * 100}, "rows in the address has 300"),
    ],
)
def test_what_no_visitor_could_have_set_is_refused(asked, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        read(**asked)


def test_no_address_holds_more_than_its_limit_whatever_a_page_takes():
    with pytest.raises(UsageError, match="2,001 characters"):
        address.read({"text": "x" * 2001}, ("builtin",), 10**6)


def test_the_script_knows_the_defaults_and_ends_no_script():
    script = address.script({"text": "</script><b>", "seed": 0})
    assert "</script>" not in script
    defaults = re.search("const defaults = (.*), here", script)[1]
    assert json.loads(defaults) == {"text": "</script><b>", "seed": 0}


@pytest.fixture
def opening(monkeypatch, tmp_path):
    """The tabs of a page with a folder of results, and what its address sets."""
    import gradio as gr

    from prototokens.explorer.opening import Opening
    from prototokens.explorer.work import Desk, Settings

    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rows.csv").write_text("a,b\n1,2\n")
    loops, new = [], asyncio.new_event_loop
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loops.append(new()) or loops[-1])
    with gr.Blocks(analytics_enabled=False):
        desk = Desk(Settings(results=(tmp_path / "results",)))
        opening = Opening(desk, gr.State([]), gr.Button(), gr.HTML())

    def opened(query):
        return opening.read(gr.Request(query_params=query))

    yield opening, opened
    asyncio.set_event_loop(None)
    for loop in loops:
        loop.close()


def test_an_address_sets_fields_and_opens_its_tab(opening):
    opening, opened = opening
    found = opened({"text": "Sea.", "seed": "3", "tab": "space"})
    assert found[opening.fields["text"]] == "Sea."
    assert found[opening.fields["seed"]] == 3
    assert found[opening.tabs].selected == "space"
    assert found[opening.asked].text
    assert opening.fields["a"] not in found
    # Inside needs the text first, and is opened once there is one.
    found = opened({"text": "Sea.", "tab": "inside"})
    assert opening.tabs not in found
    assert found[opening.asked] == (True, "inside")
    assert opening.turn(found[opening.asked]).selected == "inside"
    assert opened({"rows": "results/rows.csv"})[opening.fields["rows"]] == "results/rows.csv"
    with pytest.raises(UsageError, match="not among the tables of this page"):
        opened({"rows": "/etc/passwd"})


def test_an_address_without_parameters_asks_for_nothing(opening):
    opening, opened = opening
    assert opened({}) == {opening.asked: (False, "")}


def test_every_field_of_an_address_has_its_default(opening):
    opening, _ = opening
    assert list(opening.defaults()) == list(opening.fields)
    assert {*opening.fields, "tab"} == {*address.State._fields}
