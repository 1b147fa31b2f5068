"""Damage valid `.ptok` files in many thousand ways: each is refused clearly or decodes rightly.

A mutant with broken hashes is the easy case. Most of these have their hashes made anew, as somebody
would who means harm: then only the checks of the file's content protect the program. Every mutant
is loaded and decoded as `decode` does it, and shown by `inspect`. It must end in one of

- refused: a FileError of one line;
- right text: the text that was encoded;
- reported to differ: another text, and `matches` says so.

Anything else is a fault: another exception; another text that is reported to match; a command of
more than 5 seconds; more than 1 GB of memory; another path opened, a model that the user did not
name, the network. The mutations are `mutations.py`.

    # 20,000 at random, and every length and every header value in turn
    python tests/faults/mutate_files.py
    # at random alone, in a minute
    python tests/faults/mutate_files.py --count 500 --brief

Mutant N of a seed is the same in every run: --only N reads that one again and lets its exception
through.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from mutations import Valid, mutant, mutants, valid_files
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prototokens.cli import common
from prototokens.cli.inspect import inspect
from prototokens.decoding import decode_text
from prototokens.errors import FileError
from prototokens.lm.frozen_lm import FrozenLM
from prototokens.ptok.encoded import EncodedText

SECONDS = 5.0  # of one command
MEMORY = 1 << 30  # bytes that the process may grow by
MAX_REFUSAL = 20_000  # characters: it may name a model's folder
ENDS = ("refused", "right text", "reported to differ", "fault")
WATCHED = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.",
    "ctypes.dlopen",
    "shutil.",
)


class Watch:
    """What Python opens, connects to and starts while it is on."""

    seen: list[str] | None = None

    @classmethod
    def hook(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if cls.seen is not None and (event == "open" or event.startswith(WATCHED)):
            cls.seen.append(f"{event} {arguments[0] if arguments else ''}")

    @classmethod
    @contextlib.contextmanager
    def on(cls) -> Iterator[list[str]]:
        cls.seen = seen = []
        try:
            yield seen
        finally:
            cls.seen = None


sys.addaudithook(Watch.hook)


class Hang(BaseException):
    """A mutant that took too long; no part of the program takes it for an error of its own."""


@contextlib.contextmanager
def timed() -> Iterator[None]:
    """Stop what takes more than `SECONDS`, and notice what could not be stopped."""

    def late(*_: Any) -> None:
        raise Hang(f"more than {SECONDS:.0f} seconds")

    before, began = signal.signal(signal.SIGALRM, late), time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if (seconds := time.perf_counter() - began) > SECONDS:
        raise Hang(f"{seconds:.1f} seconds")


def peak() -> int:
    """Most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Judge:
    """Reads mutants, as the command line does, and says how each ended.

    Args:
        files: those that the mutants are made of.
        folder: a folder for them.
    """

    def __init__(self, lm: FrozenLM, files: list[Valid], folder: Path):
        self.lm, self.path, self.texts = lm, folder / "mutant.ptok", {one.text for one in files}
        self.loads: list[str] = []
        for one in files:  # what is imported on the way is imported before anything is watched
            self.path.write_bytes(one.raw)
            for _ in range(2):
                self.read()
        self.floor = peak()

    def end(self, content: bytes) -> tuple[str, str]:
        """How it ended, one of `ENDS`, and why."""
        self.path.write_bytes(content)
        self.loads.clear()
        with Watch.on() as seen:
            try:
                end, why = self.read()
            except FileError as refusal:
                end, why = "refused", str(refusal)
                if "\n" in why or len(why) > MAX_REFUSAL:
                    end, why = "fault", f"a refusal of {len(why)} characters: {why[:60]!r}"
            except (Exception, Hang) as error:
                end, why = "fault", f"{type(error).__name__}: {str(error)[:200]}"
        foreign = [what for what in [*seen, *self.loads] if what != f"open {self.path}"]
        if foreign:
            return "fault", f"touched {foreign[:3]}"
        if (grown := peak() - self.floor) > MEMORY:
            self.floor = peak()
            return "fault", f"the process grew by {grown / 1e9:.2f} GB"
        return end, why

    def read(self) -> tuple[str, str]:
        """Load, show and decode it.

        Raises:
            FileError: refused.
        """
        with timed():
            encoded = EncodedText.load(self.path)
            with mock.patch.object(common, "load_model", self._load):
                with contextlib.suppress(
                    FileError
                ):  # of another model than the built-in one, and none is named
                    common.load_model_of(encoded, self.path, None, None, None, "auto")
                lm = common.load_model_of(encoded, self.path, self.lm.name, None, None, "auto")
            decoded = decode_text(lm, encoded)
        for as_json in (False, True):
            with (
                timed(),
                contextlib.redirect_stdout(
                    io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
                ),
            ):
                inspect.callback(self.path, as_json, False, False)  # pyright: ignore[reportOptionalCall]
        if not decoded.matches:
            return "reported to differ", ""
        return (
            ("right text", "")
            if decoded.content in self.texts
            else ("fault", f"gave {decoded.content[:60]!r}")
        )

    def _load(
        self, name: str | None, revision: str | None, device: str | None, dtype: str
    ) -> FrozenLM:
        """In place of loading: which model, and at which commit, a file leads to."""
        if name not in ("builtin", self.lm.name) or dtype not in common.DTYPES:
            self.loads.append(f"model {name} in {dtype}")
        if revision is not None and not (
            revision.isalnum() and revision.isascii() and len(revision) <= 64
        ):
            self.loads.append(f"revision {revision[:80]!r}")
        return self.lm


def tally(
    judge: Judge, given: Iterator[tuple[str, str, bytes]]
) -> tuple[dict[str, Counter[str]], list[str]]:
    """How mutants of each kind ended, and the faults in words."""
    counts: dict[str, Counter[str]] = {}
    faults = []
    for kind, name, content in given:
        end, why = judge.end(content)
        counts.setdefault(kind, Counter())[end] += 1
        if end == "fault":
            faults.append(f"{kind} ({name}): {why}")
    return counts, faults


def small_model() -> FrozenLM:
    """A Llama of two layers with random weights, over bytes.

    Vectors hold a text in it as in a trained one.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer, backend.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.15,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return FrozenLM(model, PreTrainedTokenizerFast(tokenizer_object=backend), name="small")


def table(counts: dict[str, Counter[str]]) -> str:
    """In Markdown."""
    lines = [
        "| kind | tried | refused | right text | reported to differ | faults |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    whole = sum(counts.values(), Counter())
    for kind, ends in [*counts.items(), ("**all**", whole)]:
        lines.append(
            f"| {kind} | {ends.total():,} | " + " | ".join(f"{ends[end]:,}" for end in ENDS) + " |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=20_000, help="mutants at random (20,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--model",
        help="that the files are made with: builtin, or a folder (a random one of two layers)",
    )
    parser.add_argument(
        "--only", type=int, metavar="N", help="this mutant alone, its exception let through"
    )
    parser.add_argument(
        "--brief", action="store_true", help="without every length and every value in turn"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    lm = FrozenLM.from_pretrained(given.model) if given.model else small_model()
    files = valid_files(lm)
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(lm, files, Path(folder))
        if given.only is not None:
            kind, name, content = mutant(files, given.seed, given.only)
            judge.path.write_bytes(content)
            print(f"{kind} of {name}, {len(content):,} bytes: {judge.read()}")
            return 0
        began = time.monotonic()
        counts, faults = tally(
            judge, mutants(files, given.count, given.seed, whole=not given.brief)
        )
        print(table(counts))
        print(
            f"\nseed {given.seed}, {time.monotonic() - began:.0f} s,"
            f" {(peak() - judge.floor) / 1e6:.0f} MB more memory at most"
        )
    for fault in faults[:50]:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
