"""Encoded texts and results on a hub.

Against a stand-in of its API, and in folders of the same form.
"""

import dataclasses
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_stand_in import TOKEN, stand_in
from huggingface_hub import HfApi as hub_api
from huggingface_hub import hf_hub_download as download
from huggingface_hub import snapshot_download as snapshot

import prototokens as pt
from prototokens.errors import FileError
from prototokens.lab import hub as results_hub
from prototokens.ptok import hub

TEXT = "Call me Ishmael."


@pytest.fixture
def encoded(tiny_llama):
    return pt.encode(tiny_llama, TEXT, chunk_length=8)


@pytest.fixture
def there(monkeypatch, tmp_path):
    """A hub, and an empty cache."""
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with stand_in() as (endpoint, holds):
        yield endpoint, holds


def test_into_a_folder_and_back(encoded, tiny_llama, tmp_path):
    path = encoded.save_pretrained(tmp_path / "deep" / "folder")
    assert sorted(each.name for each in path.parent.iterdir()) == ["README.md", "text.ptok"]
    assert pt.decode(tiny_llama, pt.EncodedText.from_pretrained(path.parent)) == TEXT
    with pytest.raises(FileError, match="has no revision 'main'"):
        pt.EncodedText.from_pretrained(path.parent, revision="main")
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        encoded.save_pretrained(tmp_path / "taken")


def test_to_the_hub_and_back(encoded, tiny_llama, there):
    endpoint, holds = there
    address = encoded.push_to_hub("me/ishmael", private=True, token=TOKEN, endpoint=endpoint)
    assert address.startswith(f"{endpoint}/me/ishmael/commit/")
    assert holds.created[0][:2] == ("model", "me/ishmael")
    assert True in holds.created[0][2:] or "private" in holds.created[0][2:]
    assert any("prototokens/" in agent for _, agent in holds.seen)
    back = pt.EncodedText.from_pretrained("me/ishmael", endpoint=endpoint)
    assert pt.decode(tiny_llama, back) == TEXT
    first = address.rpartition("/")[2]
    other = pt.encode(tiny_llama, "Some years ago", chunk_length=7)
    other.push_to_hub("me/ishmael", token=TOKEN, endpoint=endpoint)  # again, into what is there
    assert (
        pt.decode(tiny_llama, pt.EncodedText.from_pretrained("me/ishmael", endpoint=endpoint))
        == "Some years ago"
    )
    assert (
        pt.decode(
            tiny_llama,
            pt.EncodedText.from_pretrained("me/ishmael", revision=first, endpoint=endpoint),
        )
        == TEXT
    )


def test_an_encoded_text_goes_there_by_itself(encoded, tiny_llama, there, monkeypatch, tmp_path):
    endpoint, _ = there
    assert encoded.save_pretrained(tmp_path / "folder").name == "text.ptok"
    assert pt.decode(tiny_llama, pt.EncodedText.from_pretrained(tmp_path / "folder")) == TEXT
    monkeypatch.setattr(
        hub,
        "HfApi",
        lambda endpoint_=endpoint, **options: hub_api(**{**options, "endpoint": endpoint_}),
    )
    commit = encoded.push_to_hub("me/itself", token=TOKEN).rpartition("/")[2]
    monkeypatch.setattr(
        hub,
        "hf_hub_download",
        lambda *names, **options: download(*names, **{**options, "endpoint": endpoint}),
    )
    assert (
        pt.decode(tiny_llama, pt.EncodedText.from_pretrained("me/itself", revision=commit)) == TEXT
    )


def test_what_the_page_shows_of_the_hub_does_what_it_says(encoded, there, monkeypatch, tmp_path):
    """The lines of docs/how-to/hub.md that need an account."""
    endpoint, holds = there
    at = {"endpoint": endpoint}
    for module in (hub, results_hub):
        monkeypatch.setattr(
            module, "HfApi", lambda **options: hub_api(**{**options, **at, "token": TOKEN})
        )
    monkeypatch.setattr(
        hub, "hf_hub_download", lambda *names, **options: download(*names, **{**options, **at})
    )
    monkeypatch.setattr(
        results_hub,
        "snapshot_download",
        lambda *names, **options: snapshot(*names, **{**options, **at}),
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reproduced" / "builtin").mkdir(parents=True)
    (tmp_path / "reproduced" / "builtin" / "rows.jsonl").write_text(
        '{"experiment": "table1", "model": "a/b"}\n'
    )
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "hub.md").read_text(encoding="utf-8")
    lines = [
        block
        for block in re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        if "hub" in block
    ]
    names = {"encoded": encoded, "pt": pt, "hub": results_hub}
    for block in lines:
        exec(block, names)
    assert len(lines) == 2
    assert {("model", "me/calm"), ("dataset", "me/rows")} <= {
        created[:2] for created in holds.created
    }
    assert (names["folder"] / "rows.jsonl").is_file()


def test_results_to_the_hub_and_back(there, tmp_path):
    endpoint, holds = there
    folder = tmp_path / "results"
    (folder / "table1").mkdir(parents=True)
    rows = [
        {"experiment": "table1", "model": {"name": "builtin"}, "accuracy": 1.0},
        {"experiment": "table1", "model": "a/b"},
    ]
    (folder / "table1" / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + "half a li"
    )
    (folder / "table1" / "figure.png").write_bytes(b"\x89PNG")
    (folder / "solution.safetensors").write_bytes(b"large")
    (folder / ".hidden.json").write_text("{}")
    (tmp_path / "secret.json").write_text("{}")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    results_hub.push_results(folder, "me/rows", token=TOKEN, endpoint=endpoint)
    assert holds.created[0][:2] == ("dataset", "me/rows")
    back = results_hub.pull_results("me/rows", endpoint=endpoint)
    found = sorted(path.relative_to(back).as_posix() for path in back.rglob("*") if path.is_file())
    assert found == ["README.md", "table1/figure.png", "table1/rows.jsonl"]
    assert (back / "table1" / "rows.jsonl").read_bytes() == (
        folder / "table1" / "rows.jsonl"
    ).read_bytes()
    card = (back / "README.md").read_text()
    assert "| `table1/rows.jsonl` | 2 |" in card
    assert "Models: a/b, builtin. Experiments: table1." in card
    with pytest.raises(FileError, match="holds no rows"):
        results_hub.push_results(tmp_path / "nothing", "me/rows", token=TOKEN, endpoint=endpoint)


def test_a_card_names_the_model_and_is_honest(encoded, tiny_llama, monkeypatch, tmp_path, capsys):
    model = dataclasses.replace(encoded.header.model, name="owner/lm")
    header = dataclasses.replace(encoded.header, model=model)
    other = dataclasses.replace(encoded, header=header)
    card = hub.card(other, "me/ishmael")
    assert 'base_model: "owner/lm"' in card
    assert "no compressor" in card
    assert f"SHA-256 `{encoded.header.text.sha256}`" in card
    assert "base_model" not in hub.card(encoded)
    # The card's own code, with the tiny model in the built-in's place.
    encoded.save_pretrained(tmp_path)
    code = hub.card(encoded, str(tmp_path)).split("```python\n")[1].split("```")[0]
    monkeypatch.setattr(pt.FrozenLM, "from_pretrained", lambda name: tiny_llama)
    exec(code, {})
    assert capsys.readouterr().out == TEXT + "\n"


def test_a_header_cannot_write_the_card(encoded):
    nasty = 'x"\n---\n# <script>`'
    model = dataclasses.replace(encoded.header.model, name=nasty, revision=nasty, fingerprint=nasty)
    header = dataclasses.replace(encoded.header, model=model)
    card = hub.card(dataclasses.replace(encoded, header=header))
    assert "<script>" not in card
    assert card.count("\n---\n") == 1
    assert card.count("```") == 2


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("me/nothing", {}, "the hub shows no repository of that name"),
        ("me/there", {"revision": "no-such"}, "has no such revision"),
        ("me/there", {"filename": "other.ptok"}, "holds no such file"),
        ("no//id", {}, "neither a folder here nor the id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_missing_texts_on_the_hub_are_reported(encoded, there, name, options, sentence):
    endpoint, _ = there
    encoded.push_to_hub("me/there", token=TOKEN, endpoint=endpoint)
    with pytest.raises(FileError, match=sentence) as caught:
        pt.EncodedText.from_pretrained(name, endpoint=endpoint, **options)
    assert "\n" not in str(caught.value)


def test_a_hub_that_refuses_or_is_not_there(encoded, there, monkeypatch):
    endpoint, _ = there
    # Between its tries huggingface_hub waits for seconds.
    monkeypatch.setattr(
        "huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None, time=time.time)
    )
    with pytest.raises(FileError) as refused:
        encoded.push_to_hub("me/ishmael", token="hf_wrong", endpoint=endpoint)
    assert "\n" not in str(refused.value)
    with pytest.raises(FileError, match="could not be reached"):
        pt.EncodedText.from_pretrained("me/ishmael", endpoint="http://127.0.0.1:9")


def test_a_file_of_another_program(there, encoded):
    endpoint, holds = there
    encoded.push_to_hub("me/ishmael", token=TOKEN, endpoint=endpoint)
    commit = list(holds.commits[("model", "me/ishmael")])[-1]
    holds.commits[("model", "me/ishmael")][commit]["text.ptok"] = b"something else"
    with pytest.raises(FileError, match=r"is not a whole \.ptok file"):
        pt.EncodedText.from_pretrained("me/ishmael", endpoint=endpoint)
