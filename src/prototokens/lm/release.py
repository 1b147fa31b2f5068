"""Freezing a model that is in memory, and giving it back as it was."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from torch import nn

from prototokens.errors import UsageError
from prototokens.lm import attention

Self = TypeVar("Self", bound="Releasable")


class Before(NamedTuple):
    """What freezing changes, as it was before.

    Attributes:
        requires_grad: of each parameter; `training`: of each module.
        attention: the name of the attention implementation.
    """

    requires_grad: list[tuple[nn.Parameter, bool]]
    training: list[tuple[nn.Module, bool]]
    attention: Any


def freeze(model: Any) -> Before:
    """Freeze all parameters and switch to evaluation mode; weights stay as they are."""
    before = Before(
        [(parameter, parameter.requires_grad) for parameter in model.parameters()],
        [(module, module.training) for module in model.modules()],
        getattr(model.config, "_attn_implementation", None),
    )
    model.eval().requires_grad_(False)
    return before


class Releasable:
    """The part of `FrozenLM` that gives its model back.

    `with FrozenLM(model, tokenizer) as lm:` releases the model at the end of the block.
    """

    name: str
    model: Any
    _before: Before | None

    def release(self) -> None:
        """Give the model back as it was before it was frozen.

        Each parameter gets its `requires_grad` back, each module its training mode, and the model
        its attention implementation. Afterwards this object cannot be used; solutions stay valid as
        long as the weights do not change. A second call does nothing.
        """
        before, self._before = self._before, None
        if before is None:
            return
        for parameter, flag in before.requires_grad:
            parameter.requires_grad_(flag)
        for module, flag in before.training:
            module.training = flag
        changed = self.model.config._attn_implementation != before.attention
        if changed and self.model.config._attn_implementation == attention.PLAIN:
            self.model.set_attn_implementation(before.attention)

    def __enter__(self: Self) -> Self:
        check_usable(self, "with")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def check_usable(lm: Any, function: str) -> None:
    """Refuse what is not a `FrozenLM`, or one whose model was released.

    Args:
        function: that asks, for the message.

    Raises:
        TypeError: it is not a `FrozenLM`.
        UsageError: it was released.
    """
    if not isinstance(lm, Releasable):
        raise TypeError(
            f"{function}() takes a FrozenLM as lm, not {type(lm).__name__}:"
            " FrozenLM.from_pretrained(name) loads a model, and FrozenLM(model, tokenizer) wraps"
            " one"
        )
    if lm._before is None:
        raise UsageError(
            f"{lm.name!r} was released, and its weights may change: wrap the model in a FrozenLM"
            " again"
        )
