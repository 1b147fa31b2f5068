"""Keys follow the rule of the file-format page, written here once more in plain integers."""

import torch

from prototokens import keys
from prototokens.layout import Layout


def sign(position, coordinate):
    h = (position * 0x9E3779B1 + coordinate * 0x85EBCA77 + 1) % 2**32
    for shift, multiplier in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        h = (h ^ (h >> shift)) * multiplier % 2**32
    return -1 if (h ^ (h >> 15)) >> 31 else 1


def test_the_signs_are_those_of_the_rule():
    table = keys.signs(40, 70).tolist()
    assert table == [[sign(i, j) for j in range(70)] for i in range(40)]


def test_the_published_test_vectors():
    first = ["".join("-+"[int(value > 0)] for value in row) for row in keys.signs(3, 16).tolist()]
    assert first == ["-++--+--+-++--+-", "--+----++++---+-", "---+++-+++++-+--"]


def test_keys_are_balanced_and_unlike_each_other():
    table = keys.signs(512, 1024)
    assert table.abs().eq(1).all()
    assert abs(table.mean().item()) < 0.01
    products = table @ table.T / 1024
    products.fill_diagonal_(0)
    # Of independent signs: a standard deviation of 1 / sqrt(1024), and about 4.5 of them at most
    # among 130,816 pairs.
    assert products.abs().max() < 6 / 1024**0.5
    columns = table.T @ table / 512
    columns.fill_diagonal_(0)
    assert columns.abs().max() < 6.5 / 512**0.5


def test_the_keys_of_fewer_positions_are_a_prefix_of_those_of_more():
    assert torch.equal(keys.signs(600, 8)[:5], keys.signs(5, 8))


def test_a_keyed_layout_has_keys_and_others_have_none():
    layout = Layout.named("keyed:3")
    assert (layout.vectors, layout.key_version) == (3, keys.VERSION)
    assert layout.index(5).tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(layout.keys(5, 8), keys.signs(5, 8))
    assert all(
        Layout.named(name).keys(5, 8) is None
        for name in ("paper", "tiled:2", "mixed:2", "one", "free")
    )
