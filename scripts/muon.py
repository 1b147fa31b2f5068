"""Muon, for `train_builtin.py`: it lives in the package, where encoders are trained with it too."""

from prototokens.encoder.muon import Muon, orthogonalise

__all__ = ["Muon", "orthogonalise"]
