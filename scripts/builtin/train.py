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
import time
from dataclasses import fields
from pathlib import Path

import causal_blocks
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import LlamaForCausalLM

from prototokens.lm.devices import bfloat16_pays
from prototokens.training import corpus
from prototokens.training.checkpoint import cut_log
from prototokens.training.pretraining import (
    Config,
    build_model,
    cut,
    export,
    find_start,
    load_checkpoint,
    nats_per_token,
    optimizers,
    read_meta,
    save_checkpoint,
    snapshot_marks,
    token_loss,
)


def chosen_dtype(work: Path) -> str:
    """The dtype of a run that is resumed, so that it computes as it began; else the faster one."""
    for path in sorted(work.glob("checkpoint*.safetensors")):
        return read_meta(path)[0].dtype
    return (
        "bfloat16"
        if bfloat16_pays(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        else "float32"
    )


class Run:
    """A training run: model, optimizers and batches, where the last checkpoint left them."""

    def __init__(self, config: Config, args: argparse.Namespace) -> None:
        self.config, self.args = config, args
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.dtype = getattr(torch, config.dtype)
        sources, held_out = _files(args.data), _files(args.validate)
        self.tokenizer, ids_path = corpus.prepare(
            args.work, sources, args.column, config.vocab_size
        )
        self.held_out_ids = args.work / "held-out.bin" if held_out else None
        if self.held_out_ids and not self.held_out_ids.exists():
            corpus.tokenise(self.tokenizer, held_out, args.column, self.held_out_ids)
        end_of_text = self.tokenizer.token_to_id(corpus.END_OF_TEXT)
        assert end_of_text is not None
        self.model = build_model(config, end_of_text)
        torch.nn.Module.to(self.model, self.device)
        if self.device == "cpu":
            causal_blocks.use(self.model)
        if args.init:
            start = LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
            self.model.load_state_dict(start.state_dict())
        self.optims = optimizers(self.model, config, self.dtype)
        self.step, self.seconds_before = config.first_step, 0.0
        if checkpoint := find_start(args.work, config, args.afresh):
            _, self.step, self.seconds_before = read_meta(checkpoint)
            load_checkpoint(checkpoint, self.model, self.optims)
        self.log = cut_log(args.work, self.step)
        self.windows = corpus.Windows(ids_path, config.context, config.seed)
        # A mark that fell within the step before the checkpoint may have been cut off while it was
        # written: it is written again.
        written = (self.step - 1) * config.tokens_per_step
        self.marks = [mark for mark in snapshot_marks(config.tokens) if mark > written]
        self.loss_of = torch.compile(token_loss, dynamic=False) if args.compile else token_loss
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent in all, that before the last checkpoint included."""
        return self.seconds_before + time.monotonic() - self.began

    def save(self, name: str) -> None:
        """Write a checkpoint into the work folder."""
        path = self.args.work / name
        save_checkpoint(path, self.model, self.optims, self.config, self.step, self.seconds)

    def save_marks(self) -> None:
        """Write the snapshots that are due, and the checkpoint before the learning rate falls."""
        while self.marks and self.step * self.config.tokens_per_step >= self.marks[0]:
            folder = self.args.work / "snapshots" / f"{self.marks.pop(0) / 1e6:g}M"
            export(self.model, self.tokenizer, folder, self.config)
        if self.step == self.config.decay_start:
            self.save(f"checkpoint-before-decay-{self.step}.safetensors")

    def advance(self) -> dict[str, float]:
        """Take a step; returns its row of the log."""
        config, device, dtype = self.config, self.device, self.dtype
        lr_scale, context = config.rate(self.step), config.context_at(self.step)
        for optim, lr in zip(self.optims, (config.muon_lr, config.adam_lr), strict=True):
            for group in optim.param_groups:
                group["lr"] = lr * lr_scale
        rows = torch.from_numpy(self.windows.batch(self.step * config.rows, config.rows))
        batch, loss = cut(rows, context).to(device), 0.0
        for part in batch.split(self.args.micro_rows * config.context // context):
            with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
                part_loss = self.loss_of(self.model, part) * (len(part) / len(batch))
            part_loss.backward()
            loss += part_loss.item()
        for optim in self.optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        self.step += 1
        tokens = self.step * config.tokens_per_step
        row = {"step": self.step, "tokens": tokens, "nats": round(loss, 4), "rate": lr_scale}
        due = self.step % self.args.validate_every == 0 or self.step == config.steps
        if self.held_out_ids and due:
            nats = nats_per_token(self.model, self.held_out_ids, config.context, windows=32)
            row["held_out_nats"] = round(nats, 4)
        return row | {"seconds": round(self.seconds, 1)}


def train(config: Config, args: argparse.Namespace) -> None:
    """Train to the end, and write the model."""
    run, saved = Run(config, args), time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=Console(stderr=True)) as bar,
        run.log.open("a", buffering=1) as out,
    ):
        task = bar.add_task("training", total=config.steps, completed=run.step)
        run.save_marks()
        while run.step < config.steps:
            row = run.advance()
            out.write(json.dumps(row) + "\n")
            words = f"{row['tokens'] / 1e6:.2f}M tokens, {row['nats']:.3f} nats"
            bar.update(task, completed=run.step, description=words)
            if time.monotonic() - saved > args.save_every or run.step == config.steps:
                run.save("checkpoint.safetensors")
                saved = time.monotonic()
            run.save_marks()
    export(run.model, run.tokenizer, args.out, config)


def _files(patterns: list[str]) -> list[str]:
    return sorted(path for pattern in patterns for path in (glob.glob(pattern) or [pattern]))


def count(text: str) -> int:
    """A number of tokens as people write it: 250k, 60M, 1000000."""
    scale = {"k": 1e3, "M": 1e6, "B": 1e9}.get(text[-1], 1)
    return int(float(text[:-1] if scale != 1 else text) * scale)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--data", nargs="+", required=True, help="Parquet or text files, folders, hub:ID[@REVISION]"
    )
    add("--validate", nargs="*", default=[], help="held-out texts, in the same forms")
    add("--column", default="text", help="that holds the text (default: text)")
    add("--work", type=Path, default=Path("build/builtin"), help="of everything but the model")
    add("--out", type=Path, default=Path("build/builtin/model"), help="of the finished model")
    add("--init", type=Path, help="go on from the weights of this model folder")
    add("--afresh", action="store_true", help="overwrite checkpoints that this run cannot use")
    add("--compile", action="store_true", help="compile the model (a minute at the start)")
    add("--micro-rows", type=int, default=8, help="rows of a forward pass; changes memory only")
    add("--save-every", type=float, default=120, help="seconds between checkpoints")
    add("--validate-every", type=int, default=50, help="steps between held-out measurements")
    for field in fields(Config):
        if field.name == "dtype":
            continue
        kind = count if field.name.endswith("tokens") else type(field.default)
        option = "--" + field.name.replace("_", "-")
        add(option, type=kind, default=field.default, help="default: %(default)s")
    dtypes, words = ["auto", "float32", "bfloat16"], "a checkpoint's, else what is faster here"
    add("--dtype", choices=dtypes, default="auto", help=f"of matrix products; auto: {words}")
    args = parser.parse_args()
    if args.dtype == "auto":
        args.dtype = chosen_dtype(args.work)
    train(Config(**{field.name: getattr(args, field.name) for field in fields(Config)}), args)


if __name__ == "__main__":
    main()
