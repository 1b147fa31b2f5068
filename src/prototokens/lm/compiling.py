"""Errors of `torch.compile` as one sentence: its compiler may be missing, too old or incomplete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prototokens.errors import ModelError
from prototokens.lm.checks import one_line

# A line in which a C or C++ compiler, or nvcc, reports an error.
COMPILER_ERROR = re.compile(r"^.*\berror: .*$", re.MULTILINE)
MAX_REASON = 200  # characters


class CompileError(ModelError):
    """A model's body cannot be compiled on this machine; the message has the compiler's error."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Run a compiled body inside this `with` block; it is compiled at its first call for a shape.

    Raises:
        CompileError: the body cannot be compiled on this machine.
    """
    try:
        yield
    except Exception as error:
        # Imported here because it takes a second; a compiled body has imported it already.
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise
        found = COMPILER_ERROR.search(str(error))
        reason = found[0].strip() if found else one_line(error)
        raise CompileError(f"torch.compile cannot be used here ({reason[:MAX_REASON]})") from error
