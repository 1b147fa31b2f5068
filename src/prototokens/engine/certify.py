"""How far logits move from one way of decoding to another, and the margin that withstands it.

Greedy decoding compares logits; another batch shape, kernel or dtype rounds them otherwise. So the
movement is measured, for each model and layout, over the ways of `matrix`, on vectors at random; a
margin of `reserve()` times the furthest movement is asked of every position; and the finished rows
are decoded in those ways again, with `strict` also as processors with other instruction sets would.
What is not right in all of them is not called certified.

The level `portable` also decodes with the weights rounded to the precisions of GGUF files. That
moves margins much further, and unevenly: its margin is a high quantile of the movement at random,
which was enough for every chunk that was tried (results/precisions). It is no bound: each row is
decoded under every precision, in PyTorch, and what fails is patched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prototokens.engine.decode import decode_ids
from prototokens.engine.matrix import (
    Cell,
    Row,
    Tried,
    all_cells,
    few_cells,
    margins,
    rounded_cells,
    run_cells,
    short_name,
)
from prototokens.engine.worst_direction import worst_direction_radius
from prototokens.errors import UsageError
from prototokens.layout import Layout, tiled
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.solution import Chunk

LEVELS = ("none", "standard", "strict", "portable")
# vectors at random on which the movement is measured, half of them twice as large as embeddings
PROBES = 8
PROBE_LENGTH = 24
PROBE_LAYOUT = tiled(4)  # where no other is given
NOISE_OCTAVES = (
    12  # the noise radius is one of 2^0, 2^-1 ... 2^-12 of the vectors' root mean square
)
NOISE_DRAWS = 2
# Of the movement of margins at random under rounded weights, the quantile that a margin has to be.
ROUNDED_QUANTILE = 0.99


class Threshold(NamedTuple):
    """The margin that withstands the decode matrix.

    Attributes:
        margin: that every position has to exceed, in logits.
        shift: furthest movement of a margin that was measured, in logits; the margin is `reserve()`
            times this. With rounded weights a quantile of the movement, and the margin itself.
    """

    margin: float
    shift: float


@dataclass(frozen=True)
class Certificate:
    """What was tried with finished rows, and what came out.

    Attributes:
        level: `none`, `standard`, `strict` or `portable`.
        threshold: margin asked for, in logits; `shift`: furthest movement measured on vectors at
            random.
        least_margin: over all positions that are not patched, as the model itself decodes them.
        noise_radius: standard deviation of normal noise on every number of the vectors, as a share
            of their root mean square, under which all rows still decode right: the largest power of
            two down to 2^-12 that does; 0 where none did.
        worst_radius: the shortest step that takes a token away, to first order, as a share of the
            norm of a row's vectors (`engine.worst_direction`); None but for `strict`.
        tried: the cells that exist here, with the number of positions that were `wrong` and the
            `least_margin` in each.
        absent: the ways that do not exist here, and why.
    """

    level: str
    threshold: float | None
    shift: float | None
    least_margin: float | None
    noise_radius: float | None
    tried: tuple[dict[str, Any], ...]
    absent: tuple[str, ...]
    worst_radius: float | None = None

    @property
    def passed(self) -> bool:
        """Whether everything that was tried came out right."""
        return all(one["wrong"] == 0 for one in self.tried)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "tried": list(self.tried), "absent": list(self.absent)}


UNCERTIFIED = Certificate("none", None, None, None, None, (), ())


# By model, dtype, device, level, and the layout's name and prefix.
_MEASURED: dict[tuple[str, str, str, str, str, tuple[int, ...]], Threshold] = {}


def check_level(level: str) -> str:
    """The level itself.

    Raises:
        UsageError: there is none of that name.
    """
    if level not in LEVELS:
        raise UsageError(f"there is no certificate {level!r}: choose one of {', '.join(LEVELS)}")
    return level


def cells_of(lm: FrozenLM, level: str) -> list[Cell]:
    """The ways of decoding that a level tries."""
    return {
        "none": list,
        "standard": lambda: few_cells(lm),
        "strict": lambda: all_cells(lm),
        "portable": lambda: few_cells(lm) + rounded_cells(),
    }[check_level(level)]()


@cache
def reserve() -> float:
    """How many times the movement at random a margin has to be.

    Margins of fitted vectors fall further than those of vectors at random move. The file has a
    high quantile of how far they fell, with its interval, made from committed rows by
    scripts/artefacts/fit_reserve.py. A few texts fall further; the certificate tries every text, so
    it finds them.
    """
    path = files("prototokens.engine").joinpath("reserve.json")
    return json.loads(path.read_text(encoding="utf-8"))["reserve"]


def threshold(lm: FrozenLM, level: str = "standard", layout: Layout | None = None) -> Threshold:
    """The margin to ask for: measured once for a model, dtype, device and layout in this process.

    The instruction sets of other processors take no part in the measurement: each needs a process
    of its own, and they move margins by less than what is measured here (results/reserve).

    Args:
        level: which cells the movement is measured over.
        layout: of the vectors that are to be certified, with the prefix that stands before them.
    """
    layout = layout or PROBE_LAYOUT
    model = (lm.fingerprint, short_name(lm.dtype), lm.device.type)
    key = (*model, check_level(level), layout.name, layout.prefix)
    if key not in _MEASURED:
        cells = [cell for cell in cells_of(lm, level) if not cell.setting and not cell.weights]
        rows = probes(lm, layout)
        shift = measure_shift(lm, rows, cells) if cells else 0.0
        rounded = 0.0
        if level == "portable":
            rounded = measure_shift(lm, rows, rounded_cells(), ROUNDED_QUANTILE)
        _MEASURED[key] = Threshold(max(reserve() * shift, rounded), max(shift, rounded))
    return _MEASURED[key]


def measure_shift(
    lm: FrozenLM, rows: Sequence[Row], cells: Sequence[Cell], quantile: float = 1.0
) -> float:
    """How far margins move between the model's own way and any cell, in logits.

    Args:
        quantile: over all positions, of the furthest movement of each; 1: the furthest of all.
    """
    own = torch.cat(margins(lm, rows))
    found = [
        torch.cat(tried.margins)
        for tried in run_cells(lm, rows, cells)
        if tried.margins is not None
    ]
    if not found:
        return 0.0
    moved = torch.stack(found).sub(own).abs().amax(0)
    furthest = float(moved.quantile(quantile)) if bool(moved.isfinite().all()) else math.inf
    if not math.isfinite(furthest):
        raise UsageError(
            f"the logits of {lm.name} are not finite in every dtype: no margin can be certified"
            " (certify='none')"
        )
    return furthest


def certify(
    lm: FrozenLM,
    rows: Sequence[Row],
    level: str,
    patched: Sequence[Sequence[int]] | None = None,
    progress: Callable[[Tried], None] | None = None,
    further: Sequence[Cell] = (),
) -> tuple[Certificate, list[set[int]]]:
    """Decode rows in every way of a level.

    Args:
        rows: with the ids that they should give.
        patched: for each row, positions that a patch sets right, whatever the vectors give.
        progress: called with each cell's outcome.
        further: cells to try besides those of the level.

    Returns:
        The certificate, and for each row the positions that came out wrong somewhere and are not
        patched.
    """
    weak: list[set[int]] = [set() for _ in rows]
    if check_level(level) == "none" or not rows:
        return UNCERTIFIED, weak
    free = _unpatched(rows, patched)
    needed = max(threshold(lm, level, layout) for layout in _layouts(rows))
    own = margins(lm, rows)
    tried, absent = [], []
    for one in run_cells(lm, rows, [*cells_of(lm, level), *further], progress):
        if one.margins is None:
            if one.reason not in absent:
                absent.append(one.reason)
            continue
        wrong = [(margin <= 0) & mask for margin, mask in zip(one.margins, free, strict=True)]
        for positions, flags in zip(weak, wrong, strict=True):
            positions.update(flags.nonzero()[:, 0].tolist())
        count = sum(int(flags.sum()) for flags in wrong)
        tried.append(
            {**one.cell.as_dict(), "wrong": count, "least_margin": _least(one.margins, free)}
        )
    certificate = Certificate(
        level=level,
        threshold=round(needed.margin, 6),
        shift=round(needed.shift, 6),
        least_margin=_least(own, free),
        noise_radius=noise_radius(lm, rows, free),
        worst_radius=_rounded(worst_direction_radius(lm, rows, free))
        if level == "strict"
        else None,
        tried=tuple(tried),
        absent=tuple(absent),
    )
    return certificate, weak


def _layouts(rows: Sequence[Row]) -> list[Layout]:
    """The layouts of rows, each once."""
    return list({(row.layout.name, row.layout.prefix): row.layout for row in rows}.values())


def _rounded(value: float | None) -> float | None:
    """To four digits, for files."""
    return None if value is None else float(f"{value:.4g}")


@torch.no_grad()
def noise_radius(lm: FrozenLM, rows: Sequence[Row], free: Sequence[Tensor]) -> float:
    """The largest share of the vectors' size that noise may have with every row still right.

    It is a power of two.

    Args:
        free: for each row, which positions count.
    """
    generator = torch.Generator().manual_seed(0)
    noises = [
        [torch.randn(row.protos.shape, generator=generator) for row in rows]
        for _ in range(NOISE_DRAWS)
    ]
    low, high = -1, NOISE_OCTAVES + 1  # 2^-low is taken to be too much, 2^-high to be nothing
    while high - low > 1:
        middle = (low + high) // 2
        right = all(_withstands(lm, rows, free, noise, 2.0**-middle) for noise in noises)
        low, high = (low, middle) if right else (middle, high)
    return 2.0**-high if high <= NOISE_OCTAVES else 0.0


def _withstands(
    lm: FrozenLM, rows: Sequence[Row], free: Sequence[Tensor], noise: list[Tensor], share: float
) -> bool:
    moved = [
        Chunk.of(row.protos + share * row.protos.square().mean().sqrt() * one, row.layout, row.ids)
        for row, one in zip(rows, noise, strict=True)
    ]
    found = margins(lm, moved)
    return all(bool((margin[mask] > 0).all()) for margin, mask in zip(found, free, strict=True))


def probes(lm: FrozenLM, layout: Layout) -> list[Chunk]:
    """Vectors at random on the scale of the embeddings, with the ids that they happen to give."""
    generator = torch.Generator().manual_seed(0)
    mean, std, _ = lm.embedding_scale
    length = min(PROBE_LENGTH, lm.longest_target(layout))
    scales = [1.0 + number % 2 for number in range(PROBES)]
    drawn = [
        mean + scale * std * torch.randn(layout.vectors, lm.d_model, generator=generator)
        for scale in scales
    ]
    ids = decode_ids(lm, [Chunk(protos, layout, length) for protos in drawn]).ids
    return [Chunk.of(protos, layout, row) for protos, row in zip(drawn, ids, strict=True)]


def _unpatched(rows: Sequence[Row], patched: Sequence[Sequence[int]] | None) -> list[Tensor]:
    """For each row, a flag for each position: whether the vectors alone have to get it right."""
    free = [torch.ones(len(row.ids), dtype=torch.bool) for row in rows]
    for mask, positions in zip(free, patched or [()] * len(rows), strict=True):
        mask[list(positions)] = False
    return free


def _least(found: Sequence[Tensor], free: Sequence[Tensor]) -> float | None:
    """The least margin of the positions that count.

    None where there are none, or it is no finite number.
    """
    least = [
        float(margin[mask].min())
        for margin, mask in zip(found, free, strict=True)
        if bool(mask.any())
    ]
    return round(min(least), 6) if least and math.isfinite(min(least)) else None
