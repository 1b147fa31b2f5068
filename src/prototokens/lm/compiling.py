"""`torch.compile` where its compiler is too old or lacks a header.

A sentence in place of pages of a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prototokens.errors import ModelError
from prototokens.lm.checks import one_line

COMPLAINT = re.compile(
    r"^.*\berror: .*$", re.MULTILINE
)  # as C and C++ compilers, and nvcc, write one
MAX_REASON = 200  # characters


class CompileError(ModelError):
    """A body that cannot be compiled on this machine.

    The message gives the compiler's first complaint.
    """


@contextmanager
def in_words() -> Iterator[None]:
    """Run a compiled body, which is compiled when it first meets a shape.

    Raises:
        CompileError: it cannot be compiled here.
    """
    try:
        yield
    except Exception as error:
        # Not imported above: it takes a second, and whoever gets here has it loaded.
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise
        complaint = COMPLAINT.search(str(error))
        reason = complaint[0].strip() if complaint else one_line(error)
        raise CompileError(f"torch.compile cannot be used here ({reason[:MAX_REASON]})") from error
