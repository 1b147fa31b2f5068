"""A training run on disk: its checkpoint, and its log as far as the checkpoint goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from prototokens._util.files import write_atomically
from prototokens._util.settings import as_json, from_json
from prototokens.encoder.config import Shape
from prototokens.encoder.network import Network
from prototokens.errors import FileError, UsageError
from prototokens.training.config import Training

NAME, BEFORE_DECAY, LOG = (
    "checkpoint.safetensors",
    "checkpoint-before-decay.safetensors",
    "log.jsonl",
)
ON_THE_WAY = {
    "steps": 0,
    "decay": 0.0,
}  # settings that a run may change and still go on from before its rate fell


class Reached(NamedTuple):
    """Where a run stands: steps, texts' tokens and seconds so far."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


class State(NamedTuple):
    """What moves in a run."""

    network: Network
    optimisers: list[torch.optim.Optimizer]


def save_checkpoint(
    path: Path, state: State, about: dict[str, str], training: Training, reached: Reached
) -> None:
    """Write all of it under another name and rename it.

    A kill leaves the old one or the new one.
    """
    names: dict[Tensor, str] = {
        parameter: name for name, parameter in state.network.named_parameters()
    }
    tensors = {f"network.{name}": parameter.detach().clone() for parameter, name in names.items()}
    for number, optimiser in enumerate(state.optimisers):
        for parameter, values in optimiser.state.items():
            for key, value in values.items():
                tensors[f"{number}.{names[parameter]}.{key}"] = (
                    torch.as_tensor(value).detach().clone()
                )
    whole = {**about, "training": json.dumps(as_json(training)), "reached": json.dumps(reached)}
    write_atomically(
        path,
        save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata=whole),
    )


def about_run(fingerprint: str, shape: Shape) -> dict[str, str]:
    """What a run cannot change."""
    return {"fingerprint": fingerprint, "shape": json.dumps(as_json(shape))}


def find_start(
    work: Path, about: dict[str, str], training: Training, afresh: bool
) -> tuple[Path, Reached] | None:
    """The furthest checkpoint that lies on this run's way; None: there is none, and the run begins.

    Raises:
        UsageError: there are checkpoints of another run alone, and they would be written over.
        FileError: one is damaged.
    """
    if afresh:
        return None
    found: list[tuple[int, Path, Reached]] = []
    others = 0
    for path in (work / NAME, work / BEFORE_DECAY):
        if not path.exists():
            continue
        stored, its_training, reached = _read(path)
        same = stored == about and _apart_from_length(its_training) == _apart_from_length(training)
        on_the_way = its_training == training or reached.step <= min(
            its_training.decay_start, training.decay_start
        )
        if same and on_the_way:
            found.append((reached.step, path, reached))
        else:
            others += 1
    if not found and others:
        raise UsageError(
            f"{work} holds a run with other settings, and it would be written over: name another"
            " --work, give the settings"
            " it was made with, or pass --afresh"
        )
    return max(found, key=lambda one: one[0])[1:] if found else None


def load_checkpoint(path: Path, state: State) -> None:
    """Put the network and the optimisers where they were."""
    parameters = dict(state.network.named_parameters())
    with safe_open(path, "pt") as handle, torch.no_grad():
        for name in handle.keys():
            part, _, rest = name.partition(".")
            tensor: Tensor = handle.get_tensor(name)
            if part == "network":
                parameters[rest].copy_(tensor)
            else:
                owner, _, key = rest.rpartition(".")
                # AdamW counts its steps on the CPU.
                moved = tensor if key == "step" else tensor.to(parameters[owner].device)
                state.optimisers[int(part)].state[parameters[owner]][key] = moved


def cut_log(work: Path, step: int) -> Path:
    """The log without what an interrupted run wrote past its checkpoint.

    It will be computed, and written, again.
    """
    log = work / LOG
    if log.exists():
        lines = [line for line in log.read_text(encoding="utf-8").split("\n") if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_atomically(log, "".join(line + "\n" for line in kept).encode())
    return log


def _read(path: Path) -> tuple[dict[str, str], Training, Reached]:
    try:
        with safe_open(path, "pt") as handle:
            meta = dict(handle.metadata() or {})
        training = from_json(Training, json.loads(meta.pop("training")))
        return (
            {key: meta[key] for key in ("fingerprint", "shape")},
            training,
            Reached(*json.loads(meta["reached"])),
        )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FileError(
            f"{path} is no whole checkpoint ({error}): delete it, or pass --afresh"
        ) from error


def _apart_from_length(training: Training) -> dict:
    return {**as_json(training), **ON_THE_WAY}
