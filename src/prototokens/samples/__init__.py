"""Passages written for this package, for the demonstration and for trying things out."""

from importlib.resources import files


def lighthouse() -> str:
    """Three paragraphs of a story."""
    return files("prototokens.samples").joinpath("lighthouse.txt").read_text(encoding="utf-8").strip("\n")


def short() -> str:
    """The first sentence of the story: a length that two vectors hold."""
    return lighthouse().split(". ")[0] + "."
