import torch

from prototokens.lm import devices


def test_a_rate_is_a_rate():
    rate = devices.matrix_product_rate(torch.device("cpu"), torch.float32, size=64, tries=2)
    assert 1e6 < rate < 1e14


def test_bfloat16_is_chosen_by_what_was_measured(monkeypatch):
    for fast, chosen in ((10.0, True), (1.2, False), (0.02, False)):
        devices.bfloat16_pays.cache_clear()
        monkeypatch.setattr(
            devices,
            "matrix_product_rate",
            lambda device, dtype, *_, fast=fast, **__: fast if dtype == torch.bfloat16 else 1.0,
        )
        assert devices.bfloat16_pays(torch.device("cpu")) is chosen
    devices.bfloat16_pays.cache_clear()
