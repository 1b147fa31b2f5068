"""The models that jobs name: loaded, described, and once more with random weights."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from prototokens.lab.job import ModelFacts
from prototokens.lm.frozen_lm import FrozenLM

RANDOM = "random:"


def load(
    name: str, revision: str | None = None, dtype: str = "auto", device: str | None = None
) -> FrozenLM:
    """The model of that name, or with `random:` before it, the same shape with random weights.

    Args:
        name: "builtin", a folder or a hub id; `NAME@REVISION` where `revision` is None.

    Raises:
        ModelError, UsageError: as `FrozenLM.from_pretrained`.
    """
    plain = name.removeprefix(RANDOM)
    if revision is None and "@" in plain:
        plain, _, revision = plain.rpartition("@")
    lm = FrozenLM.from_pretrained(plain, revision=revision, dtype=dtype, device=device)
    return _random(lm, name) if name.startswith(RANDOM) else lm


def facts(lm: FrozenLM, prefix: tuple[int, ...] = ()) -> ModelFacts:
    """What jobs and rows say of a model, and of the prefix that its fits stand behind."""
    return ModelFacts(
        name=lm.name,
        revision=lm.revision,
        fingerprint=lm.fingerprint,
        tokenizer=lm.tokenizer_hash,
        dtype=str(lm.dtype).removeprefix("torch."),
        d_model=lm.d_model,
        vocab_size=lm.vocab_size,
        max_context=lm.max_context,
        flops=lm.flops_per_position(),
        prefix=prefix,
    )


def _random(lm: FrozenLM, name: str) -> FrozenLM:
    """A model of the same configuration as it is before any training, with seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = type(lm.model)(lm.model.config)
    # Hashed as it was drawn, on the CPU and in float32: the fingerprint depends on neither device
    # nor dtype.
    reborn = FrozenLM(fresh.float(), lm.tokenizer, name=name, revision=lm.revision)
    fingerprint = reborn.fingerprint
    for parameter in reborn.model.parameters():
        parameter.data = parameter.data.to(lm.dtype)
    cast(nn.Module, reborn.model).to(lm.device)
    return FrozenLM(
        reborn.model, lm.tokenizer, name=name, revision=lm.revision, fingerprint=fingerprint
    )
