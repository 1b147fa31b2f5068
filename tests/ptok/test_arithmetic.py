"""The reference coder: what it writes comes back, and it takes what information theory says."""

import math
import random

import pytest
import torch

from prototokens.ptok.arithmetic import PRECISION, coded_bytes, frequencies, read, write


def code(table, symbols):
    """Write and read with one row of frequencies for each symbol."""
    sums = table.cumsum(1) - table
    coded = write([(int(sums[n, s]), int(table[n, s])) for n, s in enumerate(symbols)])
    rows = iter(range(len(symbols)))

    def symbol_at(point):
        row = next(rows)
        symbol = int((sums[row] <= point).sum()) - 1
        return symbol, int(sums[row, symbol]), int(table[row, symbol])

    return coded, read(coded, len(symbols), symbol_at)


@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0, 100.0])
def test_coded_symbols_are_decoded(spread):
    generator, chance = torch.Generator().manual_seed(0), random.Random(0)
    logits = spread * torch.randn(400, 50, generator=generator)
    table = frequencies(logits)
    drawn = torch.multinomial(table.double(), 1, generator=generator)[:, 0].tolist()
    for symbols in (drawn, [chance.randrange(50) for _ in range(400)], [49] * 400, [0] * 400, []):
        coded, back = code(table[: len(symbols)], symbols)
        assert back == symbols
        ideal = -sum(math.log2(int(table[n, s]) / 2**PRECISION) for n, s in enumerate(symbols))
        assert ideal <= 8 * len(coded) <= ideal + 16


def test_frequencies_add_up_and_leave_nothing_out():
    table = frequencies(torch.tensor([[0.0, 1000.0, -1000.0], [1.0, 1.0, 1.0]]))
    assert table.sum(1).tolist() == [2**PRECISION] * 2
    assert int(table.min()) >= 1
    assert table[0, 1] == 2**PRECISION - 2


def test_a_text_takes_its_surprisal(tiny_llama):
    ids = tiny_llama.tokenize(
        "Call me Ishmael. Some years ago, never mind how long, I went to sea. " * 5
    )
    bits = float(tiny_llama.surprisal(ids).double().sum()) / math.log(2)
    assert bits <= 8 * coded_bytes(tiny_llama, ids) <= bits * 1.001 + 16
