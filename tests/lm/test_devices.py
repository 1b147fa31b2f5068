"""Measuring how fast a device is."""

import torch

from prototokens.lm import devices


def test_the_rate_of_matrix_products_is_plausible():
    rate = devices.matrix_product_rate(torch.device("cpu"), torch.float32, size=64, tries=2)
    assert 1e6 < rate < 1e14


def test_bfloat16_pays_from_the_minimum_speedup_on(monkeypatch):
    for speedup, pays in ((10.0, True), (1.2, False), (0.02, False)):
        devices.bfloat16_pays.cache_clear()
        monkeypatch.setattr(
            devices,
            "matrix_product_rate",
            lambda device, dtype, *_, speedup=speedup, **__: (
                speedup if dtype == torch.bfloat16 else 1.0
            ),
        )
        assert devices.bfloat16_pays(torch.device("cpu")) is pays
    devices.bfloat16_pays.cache_clear()
