"""Decoding with other instruction sets: the same margins, one child process for each setting."""

import stat
import subprocess
import sys

import pytest
import torch

import prototokens as pt
from prototokens.engine import certify, instruction_sets, matrix
from prototokens.engine.instruction_sets import SETTINGS, Decoded, why_not
from prototokens.engine.matrix import Cell
from prototokens.lm.frozen_lm import FrozenLM

DEFAULT = "ATEN_CPU_CAPABILITY=default"
RECIPE = pt.Recipe(margin=0.2)


@pytest.fixture(scope="module")
def solutions(tiny_llama):
    return pt.fit(tiny_llama, ["Call me", "Ishmael."], layout="tiled:4", recipe=RECIPE)


@pytest.fixture
def on_avx2(monkeypatch):
    """A processor with AVX2 and without AVX-512, computing with all that it has."""
    monkeypatch.setattr(instruction_sets, "_processor", lambda: 1)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for setting in SETTINGS:
        monkeypatch.delenv(setting.partition("=")[0], raising=False)


@pytest.mark.skipif(bool(why_not(DEFAULT)), reason=why_not(DEFAULT))
def test_a_child_decodes_all_rows_in_all_dtypes_as_this_process_does(tiny_folder):
    """Rows with keys, with a prefix, and with an arrangement that has no name."""
    lm = FrozenLM.from_pretrained(tiny_folder, dtype="float32")
    keyed = pt.Layout.named("keyed:2")
    turned = pt.Layout("mine", 2, lambda length: ([1, 0, *[1] * (length - 2)], list(range(length))))
    rows = [
        pt.fit(lm, "Call me", layout=layout, recipe=RECIPE)
        for layout in (keyed, keyed.with_prefix((256, 7)), turned)
    ]
    cells = [Cell(16, 0, dtype, setting=DEFAULT) for dtype in ("float32", "bfloat16")]
    for tried in matrix.run_cells(lm, rows, cells):
        alike = matrix.cell_margins(lm, rows, Cell(16, 0, tried.cell.dtype))
        assert tried.margins is not None, tried.reason
        for there, here in zip(tried.margins, alike, strict=True):
            torch.testing.assert_close(there, here, rtol=0, atol=1e-3)


def test_missing_and_native_instruction_sets_have_reasons(on_avx2):
    reasons = {setting: why_not(setting) for setting in SETTINGS}
    own = {
        name
        for name, reason in reasons.items()
        if reason.endswith("is what this process computes with")
    }
    lacking = {
        name for name, reason in reasons.items() if "this processor has no AVX-512" in reason
    }
    assert own == {"ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2"}
    assert lacking == {"ATEN_CPU_CAPABILITY=avx512", "ONEDNN_MAX_CPU_ISA=AVX512_CORE"}
    assert {name for name, reason in reasons.items() if not reason} == set(SETTINGS) - own - lacking


def test_with_more_instructions_more_settings_are_tried(on_avx2, monkeypatch):
    monkeypatch.setattr(instruction_sets, "_processor", lambda: 2)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert {name for name in SETTINGS if why_not(name)} == {
        "ATEN_CPU_CAPABILITY=avx512",
        "ONEDNN_MAX_CPU_ISA=AVX512_CORE",
    }
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    assert {name for name in SETTINGS if why_not(name)} == {"ATEN_CPU_CAPABILITY=avx512"}


def test_elsewhere_than_on_x86_nothing_is_tried(on_avx2, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert {why_not(name) for name in SETTINGS} == {
        "instruction sets are varied on x86 processors only"
    }


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo Traceback >&2; echo 'ModelError: no such model' >&2; exit 1",
            "(ModelError: no such model)",
        ),
        ("exit 3", "(exit status 3)"),
        ("kill -ILL $$", "(the child process ended by SIGILL)"),
        ("exit 0", "answer.json"),
    ],
)
def test_a_child_that_fails_is_a_row_with_the_reason(
    tiny_llama, solutions, on_avx2, monkeypatch, tmp_path, script, words
):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(sys, "executable", str(python))
    cells = [Cell(16, 0, dtype, setting=DEFAULT) for dtype in ("float32", "bfloat16")]
    for tried in matrix.run_cells(tiny_llama, solutions, cells):
        assert tried.margins is None
        assert tried.reason.startswith(f"unavailable: decoding under {DEFAULT} failed (")
        assert words in tried.reason
        assert "\n" not in tried.reason


def test_a_python_that_is_not_there_is_a_reason_too(tiny_llama, solutions, on_avx2, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    (tried,) = matrix.run_cells(tiny_llama, solutions, [Cell(16, 0, "float32", setting=DEFAULT)])
    assert tried.margins is None
    assert "No such file" in tried.reason


def test_one_child_serves_all_cells_of_a_setting(tiny_llama, solutions, on_avx2, monkeypatch):
    asked = []

    def decode_under(setting, lm, rows, cells):
        asked.append((setting, len(rows), len(cells)))
        return [Decoded([torch.ones(len(row.ids)) for row in rows])] * len(cells)

    monkeypatch.setattr(matrix, "decode_under", decode_under)
    cells = [cell for cell in matrix.all_cells(tiny_llama) if cell.setting]
    assert len(cells) == 2 * len(SETTINGS)
    tried = list(matrix.run_cells(tiny_llama, solutions, cells))
    assert [one.cell for one in tried] == cells
    assert asked == [(setting, 2, 2) for setting in SETTINGS]


def test_the_certificate_holds_them_and_the_measurement_at_random_does_not(
    tiny_llama, solutions, on_avx2, monkeypatch
):
    """A token that is wrong under a setting alone is found."""

    def all_cells(lm):
        return [*matrix.few_cells(lm), *(Cell(16, 0, "float32", setting=one) for one in SETTINGS)]

    def decode_under(setting, lm, rows, cells):
        reason = why_not(setting)
        wrong = [torch.tensor([-1.0, *[1.0] * (len(row.ids) - 1)]) for row in rows]
        return [Decoded(None, reason) if reason else Decoded(wrong)] * len(cells)

    monkeypatch.setattr(certify, "all_cells", all_cells)
    monkeypatch.setattr(certify, "_MEASURED", {})
    monkeypatch.setattr(matrix, "decode_under", lambda *_: pytest.fail("a child was started"))
    certify.threshold(tiny_llama, "strict", solutions[0].layout)
    monkeypatch.setattr(matrix, "decode_under", decode_under)
    certificate, weak = certify.certify(tiny_llama, solutions, "strict")
    assert not certificate.passed
    assert weak == [{0}, {0}]
    settings = [one["setting"] for one in certificate.tried if one["setting"]]
    assert settings == [DEFAULT, "ONEDNN_MAX_CPU_ISA=SSE41", "MKL_CBWR=COMPATIBLE"]
    assert len(certificate.absent) == 4


def test_a_model_that_cannot_be_loaded_by_name_is_a_reason(tiny_llama, solutions):
    if why_not(DEFAULT):
        pytest.skip(why_not(DEFAULT))
    (tried,) = matrix.run_cells(tiny_llama, solutions, [Cell(16, 0, "float32", setting=DEFAULT)])
    assert tried.margins is None
    assert tried.reason.startswith("unavailable")
    assert "ModelError" in tried.reason


def test_nothing_of_a_child_reaches_the_terminal(tiny_llama, solutions, on_avx2, monkeypatch):
    seen = {}

    def run(arguments, **options):
        seen.update(options)
        return subprocess.CompletedProcess(arguments, 1, b"", b"")

    monkeypatch.setattr(subprocess, "run", run)
    list(matrix.run_cells(tiny_llama, solutions, [Cell(16, 0, "float32", setting=DEFAULT)]))
    assert seen["stdin"] == seen["stdout"] == subprocess.DEVNULL
    assert seen["env"]["ATEN_CPU_CAPABILITY"] == "default"
    assert seen["env"]["HF_HUB_OFFLINE"] == "1"
