"""Muon: momentum, orthogonalised, for the weight matrices of a model trained from scratch.

`torch.optim.Muon` always works in bfloat16, which is 60 times slower than float32 on a processor
without bfloat16 instructions; this one works in the dtype it is given and takes all matrices of one
shape in one batched product.
Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

import torch

# The quintic whose iteration sends singular values towards 1, as published with the method.
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices: torch.Tensor, steps: int, dtype: torch.dtype) -> torch.Tensor:
    """The nearest semi-orthogonal matrices, roughly (singular values within about 0.7 ... 1.2).

    Args:
        matrices: `[count, rows, columns]`.
        steps: Newton-Schulz iterations.
        dtype: of the matrix products.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalised.

    The step has the scale of the published method.

    Args:
        params: matrices only, `[rows, columns]`.
        lr: change of a singular value per step, before the factor sqrt(max(1, rows / columns)).
        dtype: of the matrix products inside.
    """

    def __init__(
        self,
        params,
        lr: float,
        momentum: float = 0.95,
        steps: int = 5,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "steps": steps, "dtype": dtype})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for param in group["params"]:
                if param.grad is not None:  # AdamW leaves parameters without one as they are, too
                    by_shape.setdefault(param.shape, []).append((param, param.grad))
            for shape, pairs in by_shape.items():
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                updates = []
                for param, gradient in pairs:
                    state = self.state[param]
                    if not state:
                        state["momentum"] = torch.zeros_like(param)
                    state["momentum"].lerp_(gradient, 1 - group["momentum"])
                    updates.append(gradient.lerp(state["momentum"], group["momentum"]))
                for (param, _), update in zip(
                    pairs,
                    orthogonalise(torch.stack(updates), group["steps"], group["dtype"]),
                    strict=True,
                ):
                    param.sub_(update, alpha=group["lr"] * scale)
