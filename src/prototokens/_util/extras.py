"""Optional parts of the package, and a sentence where one is missing."""

from __future__ import annotations

import re
from importlib import import_module, metadata
from types import ModuleType

from prototokens.errors import MissingExtraError


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module that only an extra installs.

    Args:
        module: as it is imported.
        extra: the name in brackets.
        purpose: what it is needed for, to open the sentence.

    Raises:
        MissingExtraError: it is not installed.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed: pip install 'prototokens[{extra}]'"
        ) from error


def missing() -> dict[str, list[str]]:
    """For each extra of this package, what it asks for and is not installed.

    Nothing is imported to find out.
    """
    found: dict[str, list[str]] = {
        extra: [] for extra in metadata.metadata("prototokens").get_all("Provides-Extra") or []
    }
    for requirement in metadata.requires("prototokens") or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w.-]+)['\"]", requirement)
        if name and extra:
            found.setdefault(extra[1], []).extend([] if _installed(name[0]) else [name[0]])
    return found


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
