"""Errors that a user can act on: each one sentence, and none of them a bug of the package.

A message names what was given, what was expected and what to do. `exit_status` is what the command
line ends with.
"""

from __future__ import annotations


class PrototokensError(Exception):
    """Base of all errors meant for a user."""

    exit_status = 2


class UsageError(PrototokensError):
    """An argument that cannot be meant: unknown layout, length out of range, rates below zero."""


class ModelError(PrototokensError):
    """A model that cannot be found, loaded, or used this way."""


class TextError(PrototokensError):
    """A text that cannot be encoded by this model as it is."""


class FileError(PrototokensError):
    """A `.ptok` file that is missing, damaged, or belongs to another model.

    An output that cannot be written.
    """


class NotExactError(PrototokensError):
    """The vectors decode, but not to the text they were made from.

    Attributes:
        text: what they decode to.
    """

    exit_status = 1

    def __init__(self, message: str, text: str):
        super().__init__(message)
        self.text = text


class DeviceMemoryError(PrototokensError):
    """Memory that does not hold even one row."""


class MissingExtraError(PrototokensError):
    """An optional part of the package that is not installed."""


class Interrupted(PrototokensError):
    """The user stopped the work; the message says what was kept."""

    exit_status = 130
