"""Passages written for this package, for the demonstration and for trying things out."""

from importlib.resources import files


def lighthouse() -> str:
    """Three paragraphs of a story."""
    return (
        files("prototokens.samples")
        .joinpath("lighthouse.txt")
        .read_text(encoding="utf-8")
        .strip("\n")
    )


def short() -> str:
    """The first sentence of the story: a length that two vectors hold."""
    return lighthouse().split(". ")[0] + "."


def stories() -> dict[str, str]:
    """All stories, by name: a text source that every installation has."""
    found = [one for one in files("prototokens.samples").iterdir() if one.name.endswith(".txt")]
    return {
        one.name.removesuffix(".txt"): one.read_text(encoding="utf-8").strip("\n")
        for one in sorted(found, key=lambda one: one.name)
    }
