"""Pretraining of a small Llama: its settings, its optimizers, its checkpoints and its loss.

`scripts/builtin/train.py` trains the built-in model with it.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prototokens.training import corpus
from prototokens.training.muon import Muon
from prototokens.training.schedule import trapezoid


@dataclass(frozen=True)
class Config:
    """Everything that determines the weights at a step, but for the data itself."""

    vocab_size: int = 4096
    d_model: int = 256
    layers: int = 6
    heads: int = 4
    feed_forward: int = 640
    max_context: int = 1024
    context: int = 512
    short_context: int = 256
    rows: int = 16
    tokens: int = 60_000_000
    decay: float = 0.25
    warmup_steps: int = 40
    muon_lr: float = 0.02
    adam_lr: float = 0.005
    seed: int = 0
    init_tokens: int = 0
    dtype: str = "float32"

    @property
    def first_step(self) -> int:
        return self.init_tokens // self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        return self.rows * self.context

    @property
    def steps(self) -> int:
        return math.ceil(self.tokens / self.tokens_per_step)

    @property
    def decay_start(self) -> int:
        return self.steps - round((self.steps - self.first_step) * self.decay)

    def context_at(self, step: int) -> int:
        """Windows are cut short until the rate falls.

        Attention costs less, and what is lost comes back in the fall.
        """
        return self.short_context if step < self.decay_start else self.context

    def rate(self, step: int) -> float:
        """The factor on both learning rates at a step: warm-up, constant, linear fall to zero."""
        return trapezoid(
            step,
            warmup=self.warmup_steps,
            fall=self.decay_start,
            end=self.steps,
            first=self.first_step,
        )


def build_model(config: Config, end_of_text: int) -> LlamaForCausalLM:
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.max_context,
            tie_word_embeddings=True,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
            pad_token_id=None,
            use_cache=False,
        )
    )


def optimizers(
    model: LlamaForCausalLM, config: Config, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named.items() if p.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=config.muon_lr, dtype=dtype),
        torch.optim.AdamW(others, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save_checkpoint(path: Path, model, optims, config: Config, step: int, seconds: float) -> None:
    """One safetensors file, written beside and renamed.

    A kill leaves the old one or the new one.
    """
    names = {p: name for name, p in model.named_parameters()}
    tensors = {f"model.{name}": p.detach() for p, name in names.items()}
    for number, optim in enumerate(optims):
        for param, state in optim.state.items():
            for key, value in state.items():
                tensors[f"optim{number}.{names[param]}.{key}"] = (
                    torch.as_tensor(value).detach().clone()
                )
    meta = {"config": json.dumps(asdict(config)), "step": str(step), "seconds": str(seconds)}
    beside = path.with_suffix(".partial")
    save_file(tensors, beside, metadata=meta)
    with beside.open("rb") as handle:
        os.fsync(handle.fileno())
    beside.rename(path)


def read_meta(path: Path) -> tuple[Config, int, float]:
    with safe_open(path, "pt") as handle:
        meta = handle.metadata()
    known = {field.name for field in fields(Config)}
    stored = {key: value for key, value in json.loads(meta["config"]).items() if key in known}
    return Config(**stored), int(meta["step"]), float(meta["seconds"])


def load_checkpoint(path: Path, model, optims) -> None:
    params = dict(model.named_parameters())
    with safe_open(path, "pt") as handle, torch.no_grad():
        for key in handle.keys():
            part, _, rest = key.partition(".")
            if part == "model":
                params[rest].copy_(handle.get_tensor(key))
            else:
                name, _, field = rest.rpartition(".")
                optims[int(part.removeprefix("optim"))].state[params[name]][field] = (
                    handle.get_tensor(key)
                )


def find_start(work: Path, config: Config, afresh: bool) -> Path | None:
    """The furthest checkpoint that this run can go on from.

    It has the same settings, and does not lie in another run's fall of the learning rate.
    """
    best, best_step = None, -1
    furthest = max(
        (read_meta(path)[1] for path in work.glob("checkpoint*.safetensors")), default=-1
    )
    for path in work.glob("checkpoint*.safetensors"):
        stored, step, _ = read_meta(path)
        same = {**asdict(stored), "tokens": 0, "decay": 0.0} == {
            **asdict(config),
            "tokens": 0,
            "decay": 0.0,
        }
        shared_way = stored == config or step <= min(stored.decay_start, config.decay_start)
        if same and shared_way and step > best_step:
            best, best_step = path, step
    if best is None and furthest >= 0 and not afresh:
        raise SystemExit(
            f"{work} holds a checkpoint of step {furthest} that is not on this run's way, and it"
            " would be written over:"
            " name another --work, give the settings it was made with, or pass --afresh"
        )
    return best


def export(model: LlamaForCausalLM, tokenizer, folder: Path, config: Config) -> None:
    """A Hugging Face folder in bfloat16.

    Config.json, model.safetensors, tokenizer.json, tokenizer_config.json.
    """
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    torch.nn.Module.to(copy, torch.bfloat16)
    copy.save_pretrained(folder)
    os.chmod(folder / "model.safetensors", 0o644)
    end = corpus.END_OF_TEXT
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        model_max_length=config.max_context,
    ).save_pretrained(folder)


@torch.no_grad()
def nats_per_token(model, ids_path: Path, context: int, windows: int | None) -> float:
    """Mean next-token cross-entropy over `windows` windows of a file of ids; None: all of them."""
    data = corpus.Windows(ids_path, context, seed=0)
    total, device = 0.0, next(model.parameters()).device
    count = data.count if windows is None else min(windows, data.count)
    # Spread over the whole file: the first windows alone would be one book.
    starts = [round(i * data.count / count) * context for i in range(count)]
    for first in range(0, count, 8):
        batch = torch.stack(
            [
                torch.from_numpy(data.ids[s : s + context + 1].astype("int64"))
                for s in starts[first : first + 8]
            ]
        )
        total += token_loss(model, batch.to(device)).item() * batch.shape[0]
    return total / count


def token_loss(model, batch: torch.Tensor) -> torch.Tensor:
    logits = model.lm_head(
        model.model(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
    ).float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def cut(batch: torch.Tensor, context: int) -> torch.Tensor:
    """Cut windows `[rows, n * context + 1]` into `[rows * n, context + 1]`.

    Each begins with the last id of the one before.
    """
    return batch.unfold(1, context + 1, context).flatten(0, 1)


def snapshot_marks(tokens: int) -> list[int]:
    """0, 0.25M, 0.5M, 1M, 2M, 4M ... up to `tokens`."""
    marks, mark = [0], 250_000
    while mark <= tokens:
        marks.append(mark)
        mark *= 2
    return marks
