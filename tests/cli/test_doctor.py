"""doctor: what it says is so."""

import importlib.metadata
import sys

import torch

from prototokens import __version__
from prototokens._util import extras
from prototokens.cli.keys import KEYS
from prototokens.errors import ModelError
from prototokens.lm.frozen_lm import FrozenLM


def test_doctor_reports_versions_and_devices(run, tiny_llama, monkeypatch):
    monkeypatch.setattr(FrozenLM, "from_pretrained", lambda name: tiny_llama)
    monkeypatch.setattr(sys.modules["prototokens.cli.doctor"], "SIDE", 32)
    found = run("doctor", "--json")
    assert (found.status, found.err) == (0, "")
    assert set(found.json) == set(KEYS["doctor"])
    assert found.json["versions"]["prototokens"] == __version__
    assert found.json["versions"]["torch"] == torch.__version__
    cpu = found.json["devices"][0]
    assert (cpu["name"], sorted(cpu["gflops"])) == ("cpu", ["bfloat16", "float16", "float32"])
    assert max(cpu["gflops"], key=cpu["gflops"].get) in cpu["fast"]
    assert found.json["builtin"] == {
        "usable": True,
        "device": "cpu",
        "dtype": "float32",
        "fingerprint": tiny_llama.fingerprint,
    }
    printed = run("doctor").out.decode()
    assert __version__ in printed
    assert "usable, takes float32 on cpu" in printed


def test_a_built_in_model_that_cannot_be_used(run, monkeypatch):
    def broken(name):
        raise ModelError("its weights are gone")

    monkeypatch.setattr(FrozenLM, "from_pretrained", broken)
    monkeypatch.setattr(sys.modules["prototokens.cli.doctor"], "SIDE", 32)
    found = run("doctor")
    assert found.status == 1
    assert "NOT usable: its weights are gone" in found.out.decode()


def test_which_packages_of_an_extra_are_missing(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda name: [
            "click>=8",
            "no-such-package>=1; extra == 'some'",
            'torch>=2; extra == "some"',
            "torch ; extra == 'full'",
        ],
    )
    found = extras.missing()
    assert found["some"] == ["no-such-package"]
    assert found["full"] == []
