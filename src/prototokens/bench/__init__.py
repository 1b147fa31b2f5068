"""The published way of fitting beside this engine.

Both run on the same machine, model and texts, in one run.
"""
