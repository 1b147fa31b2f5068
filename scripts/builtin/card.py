"""Write the built-in model's card: its loss from the training log, held-out figures, samples.

    python scripts/builtin/card.py --model build/builtin/model --work build/builtin --held-out
    books_val.parquet \
        --data "664 public-domain English books" --machine "two cores"

Everything in the card is read from the log, measured here, or given on the command line.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from prototokens.training import corpus
from prototokens.training.pretraining import Config, nats_per_token, read_meta

PROMPTS = (
    "The captain looked at the sea and",
    '"My dear Anne," said',
    "It was the last evening of",
)

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The built-in model of prototokens

A small causal language model of Llama's architecture, trained from scratch by ordinary next-token \
prediction. It ships inside
the package so that everything works offline; nothing about proto-tokens is in its training.

| | |
|---|---|
| parameters | {parameters:,} ({dtype}, embeddings tied) |
| width, layers, heads, feed-forward | {d_model}, {layers}, {heads}, {feed_forward} |
| vocabulary | {vocabulary:,}, byte-level BPE without a normaliser: any text comes back \
byte for byte |
| context | {max_context} positions; trained on windows of {context} |
| tokens seen | {tokens:,} in {steps:,} steps of {tokens_per_step:,} |
| data | {data} |
| optimiser | Muon (matrices, rate {muon_lr}) and AdamW (the rest, rate {adam_lr}) |
| schedule | constant, windows of {short_context}; then a linear fall to zero over the last \
{decay:.0%}, windows of {context} |
{origin}| time and machine | {hours:.1f} hours; {machine} |
| held-out loss | {nats:.3f} nats a token, **{bits:.3f} bits a byte** |
| measured on | {windows} windows of {context} tokens, spread evenly over the held-out books |

![training loss](loss.png)

## Samples

Prompt in bold; multinomial sampling at temperature 0.8, seed 0.

{samples}

## Use and limits

Meant for trying, testing and demonstrating prototokens, and as a small reference model in \
experiments. It writes fluent-looking
fragments of old-fashioned English and knows nothing; it is no assistant. Its books were \
published until 1929 and hold the views
and words of their time.

Made with `scripts/builtin/train.py`, this page with `scripts/builtin/card.py`. Licence: \
Apache-2.0; the books are in the public
domain.
"""


def origin(config: Config) -> str:
    """A row of the card for a run that went on from a finished model."""
    if not config.init_tokens:
        return ""
    return (
        f"| begun from | weights that had seen {config.init_tokens:,} tokens, in a run of its own"
        " with its own fall |\n"
    )


def draw_loss(log: Path, decay_start: int, path: Path) -> None:
    """Training and held-out loss over tokens."""
    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    tokens, nats = [row["tokens"] / 1e6 for row in rows], [row["nats"] for row in rows]
    axes.plot(tokens, nats, color="#b8c4d6", linewidth=0.7, label="training, each step")
    measured = [
        (row["tokens"] / 1e6, row["held_out_nats"]) for row in rows if "held_out_nats" in row
    ]
    axes.plot(*zip(*measured, strict=True), color="#1f4e8c", linewidth=1.6, label="held-out books")
    falls = [row["tokens"] / 1e6 for row in rows if row["step"] > decay_start]
    if falls:
        axes.axvspan(
            falls[0],
            tokens[-1],
            color="#f2e6c9",
            alpha=0.6,
            linewidth=0,
            label="rate falls to zero",
        )
    axes.set(
        xlabel="tokens seen (millions)",
        ylabel="nats a token",
        ylim=(min(nats) - 0.2, min(7.0, max(nats))),
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


@torch.no_grad()
def sample(model: LlamaForCausalLM, tokenizer, prompt: str) -> str:
    """A continuation of 60 tokens."""
    torch.manual_seed(0)
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
    writer: Any = model
    out = writer.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=0.8,
        top_k=0,
        max_new_tokens=60,
        pad_token_id=0,
    )
    text = tokenizer.decode(out[0, ids.shape[1] :]).replace("\n", " ").strip()
    return f"> **{prompt}** {text}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, help="its folder; the card goes there")
    add("--work", type=Path, required=True, help="the training's work folder")
    add("--held-out", nargs="+", required=True, help="held-out texts, in the forms of train.py")
    add("--column", default="text")
    add("--windows", type=int, help="of the held-out texts; all by default")
    add("--data", required=True, help="what it was trained on, in words")
    add("--machine", required=True, help="what it was trained with, in words")
    args = parser.parse_args()
    config, steps, seconds = read_meta(args.work / "checkpoint.safetensors")
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    stored = LlamaForCausalLM.from_pretrained(args.model, dtype="auto").dtype
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = args.work / "held-out.bin"
    bytes_in_all = sum(
        len(text.encode())
        for source in args.held_out
        for text in corpus.read_texts(source, args.column)
    )
    nats = nats_per_token(model, ids, config.context, args.windows)
    bits = nats * (ids.stat().st_size // 2) / bytes_in_all / math.log(2)
    draw_loss(args.work / "log.jsonl", config.decay_start, args.model / "loss.png")
    card = CARD.format(
        parameters=model.num_parameters(),
        dtype=str(stored).removeprefix("torch."),
        d_model=config.d_model,
        layers=config.layers,
        heads=config.heads,
        feed_forward=config.feed_forward,
        vocabulary=config.vocab_size,
        max_context=config.max_context,
        context=config.context,
        tokens=steps * config.tokens_per_step,
        steps=steps,
        tokens_per_step=config.tokens_per_step,
        data=args.data,
        muon_lr=config.muon_lr,
        adam_lr=config.adam_lr,
        decay=config.decay,
        short_context=config.short_context,
        origin=origin(config),
        hours=seconds / 3600,
        machine=args.machine,
        nats=nats,
        bits=bits,
        windows=args.windows or "all",
        samples="\n\n".join(sample(model, tokenizer, prompt) for prompt in PROMPTS),
    )
    (args.model / "README.md").write_text(card)
    print(f"{nats:.4f} nats a token, {bits:.4f} bits a byte")


if __name__ == "__main__":
    main()
