"""Train the built-in model: a small Llama from scratch, by ordinary next-token prediction.

    python scripts/builtin/train.py --data books_train-*.parquet --validate books_val-*.parquet
    --tokens 60M

A run is a pure function of its arguments: killed at any moment and started again with the same
ones, it goes on from its last checkpoint and ends with the same weights. The learning rate is
constant after a short warm-up, with short windows, and falls to zero over the last part, with long
ones; the checkpoint at the start of that fall is kept, so that a later run with more `--tokens`
goes on from there. With `--init MODEL --init-tokens N` it goes on from the weights of a finished
model that has seen N.

The work folder holds the tokenizer, the ids, checkpoints, snapshots at 0, 0.25M, 0.5M, 1M, 2M ...
tokens, and `log.jsonl`.
"""

from __future__ import annotations

import argparse
import glob
import json
import math
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import causal_blocks
import data as builtin_data
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prototokens.lm.devices import bfloat16_pays
from prototokens.training.checkpoint import cut_log
from prototokens.training.muon import Muon
from prototokens.training.schedule import trapezoid

LN2 = math.log(2)


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


def chosen_dtype(work: Path) -> str:
    """What was measured once stays: a run that is taken up again computes as it began."""
    for path in sorted(work.glob("checkpoint*.safetensors")):
        return read_meta(path)[0].dtype
    return (
        "bfloat16"
        if bfloat16_pays(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        else "float32"
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


def optimisers(
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
    """The furthest checkpoint that lies on this run's way.

    Same settings, and not into another run's fall of the rate.
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
    end = builtin_data.END_OF_TEXT
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=end,
        eos_token=end,
        model_max_length=config.max_context,
    ).save_pretrained(folder)


@torch.no_grad()
def nats_per_token(model, ids_path: Path, context: int, windows: int | None) -> float:
    """Mean next-token cross-entropy over the first windows of a file of ids (all of it: windows=None)."""
    data = builtin_data.Windows(ids_path, context, seed=0)
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
    """Windows `[rows, n * context + 1]` as `[rows * n, context + 1]`, each beginning with the last id of the one before."""
    return batch.unfold(1, context + 1, context).flatten(0, 1)


def snapshot_marks(tokens: int) -> list[int]:
    """0, 0.25M, 0.5M, 1M, 2M, 4M ... up to `tokens`."""
    marks, mark = [0], 250_000
    while mark <= tokens:
        marks.append(mark)
        mark *= 2
    return marks


def train(config: Config, args: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sources = sorted(path for pattern in args.data for path in (glob.glob(pattern) or [pattern]))
    held_out = sorted(
        path for pattern in args.validate for path in (glob.glob(pattern) or [pattern])
    )
    tokenizer, ids_path = builtin_data.prepare(args.work, sources, args.column, config.vocab_size)
    held_out_ids = args.work / "held-out.bin"
    if held_out and not held_out_ids.exists():
        builtin_data.tokenise(tokenizer, held_out, args.column, held_out_ids)

    dtype = getattr(torch, config.dtype)
    end_of_text = tokenizer.token_to_id(builtin_data.END_OF_TEXT)
    assert end_of_text is not None
    model = build_model(config, end_of_text)
    torch.nn.Module.to(model, device)
    if device == "cpu":
        causal_blocks.use(model)
    if args.init:
        model.load_state_dict(
            LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32).state_dict()
        )
    optims = optimisers(model, config, dtype)
    step, seconds_before = config.first_step, 0.0
    if start := find_start(args.work, config, args.afresh):
        _, step, seconds_before = read_meta(start)
        load_checkpoint(start, model, optims)
    log = cut_log(args.work, step)
    windows = builtin_data.Windows(ids_path, config.context, config.seed)
    # A mark that fell within the step before the checkpoint may have been cut off while it was
    # written: it is written again.
    marks = [
        mark for mark in snapshot_marks(config.tokens) if mark > (step - 1) * config.tokens_per_step
    ]

    loss_of = torch.compile(token_loss, dynamic=False) if args.compile else token_loss
    began = saved = time.monotonic()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar, log.open("a", buffering=1) as out:
        task = bar.add_task("training", total=config.steps, completed=step)
        while True:
            tokens = step * config.tokens_per_step
            seconds = seconds_before + time.monotonic() - began
            while marks and tokens >= marks[0]:
                export(
                    model, tokenizer, args.work / "snapshots" / f"{marks.pop(0) / 1e6:g}M", config
                )
            if step == config.decay_start:
                save_checkpoint(
                    args.work / f"checkpoint-before-decay-{step}.safetensors",
                    model,
                    optims,
                    config,
                    step,
                    seconds,
                )
            if step == config.steps:
                break
            for optim, lr in zip(optims, (config.muon_lr, config.adam_lr), strict=True):
                for group in optim.param_groups:
                    group["lr"] = lr * config.rate(step)
            batch = cut(
                torch.from_numpy(windows.batch(step * config.rows, config.rows)),
                config.context_at(step),
            ).to(device)
            loss = 0.0
            for part in batch.split(args.micro_rows * config.context // config.context_at(step)):
                with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
                    part_loss = loss_of(model, part) * (len(part) / len(batch))
                part_loss.backward()
                loss += part_loss.item()
            for optim in optims:
                optim.step()
                optim.zero_grad(set_to_none=True)
            step += 1
            row = {
                "step": step,
                "tokens": step * config.tokens_per_step,
                "nats": round(loss, 4),
                "rate": config.rate(step - 1),
            }
            if held_out and (step % args.validate_every == 0 or step == config.steps):
                row["held_out_nats"] = round(
                    nats_per_token(model, held_out_ids, config.context, windows=32), 4
                )
            row["seconds"] = round(seconds_before + time.monotonic() - began, 1)
            out.write(json.dumps(row) + "\n")
            bar.update(
                task,
                completed=step,
                description=f"{row['tokens'] / 1e6:.2f}M tokens, {loss:.3f} nats",
            )
            if time.monotonic() - saved > args.save_every or step == config.steps:
                save_checkpoint(
                    args.work / "checkpoint.safetensors",
                    model,
                    optims,
                    config,
                    step,
                    row["seconds"],
                )
                saved = time.monotonic()
    export(model, tokenizer, args.out, config)


def count(text: str) -> int:
    """A number of tokens as people write it: 250k, 60M, 1000000."""
    scale = {"k": 1e3, "M": 1e6, "B": 1e9}.get(text[-1], 1)
    return int(float(text[:-1] if scale != 1 else text) * scale)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        help="parquet or text files, folders, or hub:ID[@REVISION]",
    )
    parser.add_argument(
        "--validate", nargs="*", default=[], help="held-out texts, in the same forms"
    )
    parser.add_argument(
        "--column", default="text", help="column that holds the text (default: text)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/builtin"),
        help="where everything but the model goes",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/builtin/model"),
        help="where the finished model goes",
    )
    parser.add_argument(
        "--init",
        type=Path,
        help="start from the weights of this model folder instead of random ones",
    )
    parser.add_argument(
        "--afresh",
        action="store_true",
        help="write over a checkpoint in --work that this run cannot use",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the forward and backward pass (a minute at the start)",
    )
    parser.add_argument(
        "--micro-rows",
        type=int,
        default=8,
        help="rows of a forward pass (memory; the step is the same)",
    )
    parser.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")
    parser.add_argument(
        "--validate-every", type=int, default=50, help="steps between looks at the held-out texts"
    )
    for field in fields(Config):
        if field.name == "dtype":
            continue
        kind = count if field.name.endswith("tokens") else type(field.default)
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=kind,
            default=field.default,
            help="default: %(default)s",
        )
    parser.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="of the matrix products; auto: a checkpoint's"
        " in --work, else bfloat16 where it is clearly faster here",
    )
    args = parser.parse_args()
    if args.dtype == "auto":
        args.dtype = chosen_dtype(args.work)
    train(Config(**{field.name: getattr(args, field.name) for field in fields(Config)}), args)


if __name__ == "__main__":
    main()
