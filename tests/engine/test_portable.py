"""The certificate `portable`: weights rounded to the precisions of GGUF files."""

import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.gguf_files import tiny_model

import prototokens as pt
from prototokens.cli import main
from prototokens.decoding import verify_text
from prototokens.engine import certify, matrix
from prototokens.engine.matrix import Cell
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.lm.ggml_rounding import FORMATS, rounded_as_file, rounded_input, rounding_inputs


@pytest.fixture(scope="module")
def lm():
    return FrozenLM.from_pretrained("builtin", dtype="float32")


@pytest.fixture(scope="module")
def model():
    return FrozenLM(tiny_model(), name="tiny")


@pytest.fixture(scope="module")
def ids(model):
    return [[7, 30, 99, 4, 18], [5, 5, 61]]


def test_every_precision_is_tried_besides_the_standard_ways(model):
    cells = certify.cells_of(model, "portable")
    assert cells[: len(matrix.few_cells(model))] == matrix.few_cells(model)
    assert [cell.weights for cell in cells if cell.weights] == list(FORMATS)
    assert "weights rounded to Q4_K" in cells[-1].describe()


def test_margins_are_those_of_the_rounded_model(model, ids):
    rows = pt.fit(model, ids, layout="tiled:2", recipe=pt.Recipe(margin=0.2, steps=400))
    rounded = rounded_as_file(model.model, "Q4_K")
    found = matrix.cell_margins(model, rows, Cell(7, 0, "float32", weights="Q4_K"))
    for margin, row in zip(found, rows, strict=True):
        inputs = row.protos[row.layout.index(row.length)][None]
        with rounding_inputs(rounded, "Q4_K"):
            hidden = rounded.model(inputs_embeds=inputs).last_hidden_state
        logits = rounded.lm_head(rounded_input(hidden, "Q8_0"))[0]
        right = logits[range(row.length), list(row.ids)].clone()
        logits[range(row.length), list(row.ids)] = -torch.inf
        torch.testing.assert_close(margin, right - logits.amax(1), rtol=0, atol=1e-4)
    own = torch.cat(matrix.margins(model, rows))
    assert 0.01 < float((torch.cat(found) - own).abs().max()) < 3.0


def test_a_copy_is_kept_where_it_is_small(model, monkeypatch):
    assert matrix._with_rounded_weights(model, "Q8_0") is matrix._with_rounded_weights(
        model, "Q8_0"
    )
    monkeypatch.setattr(matrix, "MAX_KEPT", 0)
    monkeypatch.setattr(matrix, "_ROUNDED", weakref.WeakKeyDictionary())
    assert matrix._with_rounded_weights(model, "Q8_0") is not matrix._with_rounded_weights(
        model, "Q8_0"
    )


def test_the_margin_is_a_quantile_of_the_movement_at_random(model, monkeypatch):
    monkeypatch.setattr(certify, "_MEASURED", {})
    layout = pt.Layout.named("keyed:2")
    asked = certify.threshold(model, "portable", layout)
    probes = certify.probes(model, layout)
    moved = certify.measure_shift(model, probes, matrix.rounded_cells(), 0.99)
    assert asked.margin == pytest.approx(moved)
    assert asked.margin > certify.threshold(model, "standard", layout).margin
    assert moved < certify.measure_shift(model, probes, matrix.rounded_cells())


def test_a_row_that_a_precision_breaks_is_not_certified(model, ids):
    rows = pt.fit(model, ids, layout="keyed:2", recipe=pt.Recipe(margin=0.2, steps=400))
    wrong = replace(rows[0], ids=(*rows[0].ids[:-1], 200))
    certificate, weak = certify.certify(model, [wrong], "portable")
    tried = [one for one in certificate.tried if one["weights"]]
    assert [one["weights"] for one in tried] == list(FORMATS)
    assert all(one["wrong"] == 1 for one in tried)
    assert weak == [{4}]


def test_weights_that_no_block_divides_are_absent(ids):
    model = FrozenLM(tiny_model(hidden_size=48, head_dim=12), name="odd")
    (tried,) = matrix.run_cells(model, [], [Cell(1, 0, "float32", weights="Q8_0")])
    assert tried.margins is None
    assert "rows of 48 numbers" in tried.reason


def test_a_portable_file_says_so_and_verify_tries_it_again(lm, tmp_path):
    encoded = pt.encode(lm, "The sea was calm.", certify="portable")
    asked = certify.threshold(lm, "portable", encoded.layout).margin
    assert encoded.exact
    assert encoded.certified
    assert encoded.header.certificate.level == "portable"
    assert encoded.header.min_margin >= min(asked, encoded.header.certificate.threshold)
    encoded.save(tmp_path / "sea.ptok")
    loaded = pt.EncodedText.load(tmp_path / "sea.ptok")
    verified = verify_text(lm, loaded, "standard")
    assert verified.passed
    assert [one["weights"] for one in verified.certificate.tried if one["weights"]] == list(FORMATS)
    plain = pt.encode(lm, "The sea was calm.")
    assert not any(one["weights"] for one in verify_text(lm, plain, "standard").certificate.tried)
    also = verify_text(lm, plain, "standard", portable=True)
    assert len(also.certificate.tried) == len(verified.certificate.tried)


def test_what_a_precision_breaks_is_patched(lm, monkeypatch):
    """A margin of nothing: some tokens fail with rounded weights, and the file is exact in all."""
    nothing = certify.Threshold(0.0, 0.0)
    monkeypatch.setattr(certify, "threshold", lambda *_: nothing)
    monkeypatch.setattr("prototokens.ptok.repair.threshold", lambda *_: nothing)
    monkeypatch.setattr("prototokens.encoding.threshold", lambda *_: nothing)
    text = "He had never seen the sea before that day, and it was a grey and quiet morning."
    recipe = pt.Recipe.named("fast", margin=0.0)
    encoded = pt.encode(lm, text, layout="keyed:2", certify="portable", recipe=recipe)
    assert encoded.exact
    assert encoded.certified
    assert encoded.header.patched > 0


def test_the_command_verifies_any_file_with_rounded_weights(capsys):
    path = Path(__file__).parents[1] / "format" / "files" / "tiled-3-bits-16.ptok"
    with pytest.raises(SystemExit) as leaving:
        main(["verify", str(path), "--quick", "--portable", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == "standard"
    assert [one["weights"] for one in found["tried"] if one["weights"]] == list(FORMATS)
    assert leaving.value.code == int(not found["passed"])
