"""The decode matrix, the margin that is asked for, and the certificate.

Against plain one-row decoding.
"""

from dataclasses import replace

import pytest
import torch

import prototokens as pt
from prototokens.engine import certify, matrix
from prototokens.engine.matrix import Cell
from prototokens.errors import ModelError, UsageError
from prototokens.lm.frozen_lm import FrozenLM

TEXTS = ["Call me", "Ishmael.", "Some years", "ago"]


@pytest.fixture(scope="module")
def solutions(tiny_llama):
    found = pt.fit(tiny_llama, TEXTS, layout="tiled:4", recipe=pt.Recipe(margin=0.2))
    assert all(solution.exact for solution in found)
    return found


def plain_margins(lm, solution):
    """One row, no padding, every logit: in float64 but for the model itself."""
    inputs = solution.protos[solution.layout.index(solution.length)]
    with torch.no_grad():
        logits = lm.logits(lm.hidden(inputs[None]))[0][
            solution.layout.scored(solution.length)
        ].double()
    right = logits[range(solution.length), list(solution.ids)].clone()
    logits[range(solution.length), list(solution.ids)] = -torch.inf
    return (right - logits.amax(1)).float()


@pytest.mark.parametrize("batch", matrix.BATCHES)
@pytest.mark.parametrize("padding", [0, 5, 200])
def test_margins_equal_those_of_plain_decoding_in_any_batch(tiny_llama, solutions, batch, padding):
    found = matrix.cell_margins(tiny_llama, solutions, Cell(batch, padding, "float32"))
    for margin, solution in zip(found, solutions, strict=True):
        torch.testing.assert_close(margin, plain_margins(tiny_llama, solution), rtol=0, atol=1e-4)


def test_rows_of_several_layouts_share_a_pass(tiny_llama):
    rows = [
        pt.fit(tiny_llama, "abc", layout=layout, recipe=pt.Recipe(steps=20))
        for layout in ("paper", "tiled:4", "free", "one")
    ]
    for margin, row in zip(matrix.margins(tiny_llama, rows), rows, strict=True):
        torch.testing.assert_close(margin, plain_margins(tiny_llama, row), rtol=0, atol=1e-4)


def test_a_cell_computes_in_its_dtype(tiny_llama, solutions):
    own, other = (
        matrix.cell_margins(tiny_llama, solutions, Cell(4, 0, name))
        for name in ("float32", "bfloat16")
    )
    moved = max(float((a - b).abs().max()) for a, b in zip(own, other, strict=True))
    assert 1e-3 < moved < 1.0
    assert tiny_llama.dtype == torch.float32  # the model itself is left alone


def test_unrounded_weights_are_read_again(tiny_llama, tiny_folder):
    rounded = FrozenLM.from_pretrained(tiny_folder, dtype="bfloat16")
    again = matrix.in_dtype(rounded, "float32")
    assert again is not None
    assert again.weights_hash() == tiny_llama.weights_hash()
    assert matrix.in_dtype(rounded, "float32") is again
    assert matrix.in_dtype(rounded, "bfloat16") is rounded
    lost = FrozenLM.from_pretrained(tiny_folder, dtype="bfloat16")
    lost.name = str(tiny_folder / "gone")
    assert matrix.in_dtype(lost, "float32") is None
    (tried,) = matrix.run_cells(lost, [], [Cell(1, 0, "float32")])
    assert tried.margins is None
    assert "cannot be had" in tried.reason


def test_a_missing_kernel_is_reported(tiny_llama, solutions):
    (tried,) = matrix.run_cells(tiny_llama, solutions, [Cell(1, 0, "float32", "efficient")])
    assert tried.margins is not None or "no efficient attention for float32" in tried.reason


def test_threads_are_given_back(tiny_llama, solutions):
    before = torch.get_num_threads()
    matrix.cell_margins(tiny_llama, solutions, Cell(2, 0, "float32", threads=2))
    assert torch.get_num_threads() == before


def test_the_whole_matrix_varies_everything(tiny_llama):
    cells = matrix.all_cells(tiny_llama)
    assert len(set(cells)) == len(cells)
    assert {cell.batch for cell in cells} >= set(matrix.BATCHES)
    assert {cell.dtype for cell in cells} == {"float32", "bfloat16"}
    assert {cell.kernel for cell in cells} == {"default", *matrix.KERNELS}
    assert {cell.threads for cell in cells} == {0, 1, 2}
    assert {cell.compiled for cell in cells} == {False, True}
    assert set(matrix.few_cells(tiny_llama)) - {Cell(7, 0, "float32", "math")} <= {
        replace(cell, batch=batch) for cell in cells for batch in (1, 7)
    }


class TestThreshold:
    def test_is_measured_once(self, tiny_llama, monkeypatch):
        first = certify.threshold(tiny_llama)
        assert first.shift > 0
        assert first.margin == certify.reserve() * first.shift
        monkeypatch.setattr(certify, "measure_shift", None)
        assert certify.threshold(tiny_llama) == first
        assert certify.threshold(tiny_llama, "none").margin >= 0

    def test_is_measured_in_the_layout_and_behind_the_prefix_that_are_certified(self, tiny_llama):
        keyed = pt.Layout.named("keyed:2")
        layouts = [pt.Layout.named("tiled:4"), keyed, keyed.with_prefix((256, 7))]
        found = [certify.threshold(tiny_llama, "standard", layout) for layout in layouts]
        assert len({one.shift for one in found}) == 3
        assert found[0] == certify.threshold(tiny_llama)
        row = pt.fit(tiny_llama, "abc", layout=layouts[2], recipe=pt.Recipe(margin=0.5))
        certificate, _ = certify.certify(tiny_llama, [row], "standard")
        assert certificate.threshold == pytest.approx(found[2].margin, abs=1e-6)
        mixed, _ = certify.certify(
            tiny_llama, [row, replace(row, layout=keyed), replace(row, layout=keyed)], "standard"
        )
        assert mixed.threshold == pytest.approx(max(found[1].margin, found[2].margin), abs=1e-6)

    def test_probes_fit_a_short_context_behind_a_prefix(self, tiny_llama, monkeypatch):
        monkeypatch.setattr(certify, "_MEASURED", {})
        layout = pt.Layout.named("free").with_prefix(range(120))
        rows = certify.probes(tiny_llama, layout)
        assert {len(row.ids) for row in rows} == {tiny_llama.longest_target(layout)}
        assert certify.threshold(tiny_llama, "standard", layout).shift > 0

    def test_is_the_furthest_that_a_margin_moves(self, tiny_llama, solutions):
        cells = [Cell(1, 0, "float32"), Cell(4, 0, "bfloat16")]
        shift = certify.measure_shift(tiny_llama, solutions, cells)
        own, other = (
            matrix.cell_margins(tiny_llama, solutions, Cell(1, 0, name))
            for name in ("float32", "bfloat16")
        )
        by_hand = max(
            abs(x - y)
            for a, b in zip(own, other, strict=True)
            for x, y in zip(a.tolist(), b.tolist(), strict=True)
        )
        assert shift == pytest.approx(by_hand, abs=1e-4)

    def test_no_such_level(self, tiny_llama):
        with pytest.raises(UsageError, match="no certificate 'full'"):
            certify.threshold(tiny_llama, "full")


class TestCertificate:
    def test_of_rows_with_a_margin_passes(self, tiny_llama):
        needed = certify.threshold(tiny_llama).margin
        rows = pt.fit(tiny_llama, TEXTS, layout="tiled:4", recipe=pt.Recipe(margin=needed))
        certificate, weak = certify.certify(tiny_llama, rows, "standard")
        assert certificate.passed
        assert weak == [set()] * len(TEXTS)
        assert certificate.least_margin == pytest.approx(min(row.margin for row in rows), abs=1e-3)
        assert certificate.least_margin > needed
        assert [one["wrong"] for one in certificate.tried] == [0] * len(certificate.tried)
        assert len(certificate.tried) + len(certificate.absent) == len(matrix.few_cells(tiny_llama))
        assert certificate.threshold == pytest.approx(needed, abs=1e-6)

    def test_names_the_positions_that_are_wrong(self, tiny_llama, solutions):
        spoilt = list(solutions)
        spoilt[1] = replace(spoilt[1], ids=(*spoilt[1].ids[:2], 7, *spoilt[1].ids[3:]))
        certificate, weak = certify.certify(tiny_llama, spoilt, "standard")
        assert not certificate.passed
        assert weak == [set(), {2}, set(), set()]
        assert certificate.least_margin < 0
        assert certificate.noise_radius == 0
        patched, weak = certify.certify(tiny_llama, spoilt, "standard", [(), (2,), (), ()])
        assert patched.passed
        assert weak == [set()] * 4
        assert patched.least_margin > 0

    def test_noise_of_the_radius_is_withstood_and_more_is_not_promised(self, tiny_llama, solutions):
        certificate, _ = certify.certify(tiny_llama, solutions, "standard")
        radius = certificate.noise_radius
        assert 2**-12 <= radius < 1
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(row.protos.shape, generator=generator) for row in solutions]
        for share, all_right in ((radius, True), (64 * radius, False)):
            moved = [
                replace(row, protos=row.protos + share * row.protos.square().mean().sqrt() * one)
                for row, one in zip(solutions, noise, strict=True)
            ]
            right = [bool((plain_margins(tiny_llama, row) > 0).all()) for row in moved]
            assert all(right) is all_right

    def test_none_tries_nothing(self, tiny_llama, solutions):
        certificate, weak = certify.certify(tiny_llama, solutions, "none")
        assert certificate == certify.UNCERTIFIED
        assert certificate.passed
        assert weak == [set()] * 4

    @pytest.mark.parametrize("family", ["neox", "gpt2", "gemma2", "mamba"])
    def test_of_other_families(self, family, request):
        lm = request.getfixturevalue(f"tiny_{family}")
        rows = pt.fit(
            lm, ["ab"], layout="tiled:2", recipe=pt.Recipe(margin=certify.threshold(lm).margin)
        )
        certificate, _ = certify.certify(lm, rows, "standard")
        assert certificate.passed
        assert len(certificate.tried) >= 3


# Importing the compiler, torch warns of itself.
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
def test_compiled_decoding_is_one_of_the_ways(tiny_llama, solutions):
    (tried,) = matrix.run_cells(tiny_llama, solutions, [Cell(4, 0, "float32", compiled=True)])
    if tried.margins is None:
        pytest.skip(tried.reason)
    for margin, solution in zip(tried.margins, solutions, strict=True):
        torch.testing.assert_close(margin, plain_margins(tiny_llama, solution), rtol=0, atol=1e-4)


COMPLAINT = """\
CppCompileError: C++ compile error

Command:
g++ /tmp/main.cpp -D TORCH_INDUCTOR_CPP_WRAPPER -O3 -fopenmp -o /tmp/main.so

Output:
/tmp/main.cpp:2:10: fatal error: omp.h: No such file or directory
    2 | #include <omp.h>
compilation terminated.
"""


class BadCompiler:
    """In the place of `torch.compile`.

    What it makes fails when it is run, as where a header is missing.
    """

    def __init__(self):
        self.asked = 0

    def __call__(self, body, **_):
        from torch._dynamo.exc import TorchDynamoException

        def compiled(**_):
            self.asked += 1
            raise TorchDynamoException(COMPLAINT)

        return compiled


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
def test_where_compiling_fails_the_way_is_absent_and_the_reason_is_a_line(
    tiny_llama, solutions, monkeypatch
):
    lm = FrozenLM(tiny_llama.model, tiny_llama.tokenizer)
    compiler = BadCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr("shutil.which", lambda name: name)
    cells = [Cell(rows, 0, "float32", compiled=True) for rows in (1, 4)]
    found = list(matrix.run_cells(lm, solutions, cells))
    assert [tried.margins for tried in found] == [None, None]
    assert {tried.reason for tried in found} == {
        "torch.compile cannot be used here (/tmp/main.cpp:2:10: fatal error: omp.h: No such file or"
        " directory)"
    }
    assert compiler.asked == 1
    lm.compile()
    with pytest.raises(
        ModelError, match=r"torch\.compile cannot be used here \(.*omp\.h"
    ) as refusal:
        pt.fit(lm, ["ab"], recipe=pt.Recipe(steps=1))
    assert "\n" not in str(refusal.value)
