"""The frozen language model: finding and loading it, checking it, and running its body.

`FrozenLM` in `frozen_lm.py` is the class that the rest of the package uses.
"""
