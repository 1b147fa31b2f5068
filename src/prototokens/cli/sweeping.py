"""What `reproduce` and `capacity` share.

Options, the settings made of them, the runner, the display while jobs run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prototokens._util.numerals import whole_number
from prototokens.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from prototokens.lab.job import Config, Job, Row
    from prototokens.lab.sweep import Runner, SweepProgress

STEPS = {
    "smoke": 400,
    "paper": 5000,
}  # budget of a fit: what the paper gives one, and what shows that everything runs
LINE_EVERY = 60.0  # seconds between two lines of progress where there is no terminal


def sweep_options(command: Callable) -> Callable:
    """The options of both commands: texts, scale, recipe, runner and folder."""
    return _job_options(_run_options(command))


def _job_options(command: Callable) -> Callable:
    """What is fitted: --texts to --lengths."""
    for option in (
        click.option(
            "--lengths", help="Lengths in tokens in place of the scale's, with commas: 8,16,32."
        ),
        click.option(
            "--seeds",
            type=click.IntRange(min=1),
            help="How many seeds, in place of the scale's number.",
        ),
        click.option(
            "--count",
            type=click.IntRange(min=1),
            help="How many texts, in place of the scale's number.",
        ),
        click.option(
            "--steps",
            type=click.IntRange(min=1),
            help="Most steps of a fit: 400 for smoke, 5000 for paper.",
        ),
        click.option(
            "--prefix",
            default="auto",
            show_default=True,
            metavar="auto|none|bos|text:...",
            help="Fixed tokens before the vectors; auto: BOS where the model's first position is an"
            " attention sink, and none with the recipe paper.",
        ),
        click.option(
            "--recipe",
            type=click.Choice(["fast", "paper"]),
            default="fast",
            show_default=True,
            help="How vectors are fitted.",
        ),
        click.option(
            "--scale",
            type=click.Choice(["smoke", "paper"]),
            default="smoke",
            show_default=True,
            help="A few minutes that show that it works, or the paper's own numbers of texts,"
            " lengths and seeds.",
        ),
        click.option(
            "--texts",
            multiple=True,
            metavar="SOURCE",
            help="Where texts come from: sample, file:PATH[:COLUMN], hub:ID[@REVISION]:COLUMN,"
            " random-words:WORDLIST, random-tokens, generated[:SOURCE]; may be given again. By"
            " default sample.",
        ),
    ):
        command = option(command)
    return command


def _run_options(command: Callable) -> Callable:
    """Where jobs run and rows go: --runner to --track."""
    from prototokens.lab.tracking import TRACKERS

    for option in (
        click.option(
            "--track",
            type=click.Choice(TRACKERS),
            help="Send rows to a tracker too; none by default.",
        ),
        click.option(
            "--out", type=click.Path(path_type=Path), help="Folder of rows, solutions and reports."
        ),
    ):
        command = option(command)
    return runner_options(command)


def runner_options(command: Callable) -> Callable:
    """Where jobs run: --runner, --address and --actors."""
    for option in (
        click.option(
            "--actors",
            type=click.IntRange(min=1),
            help="With ray: how many; by default one a GPU, or a core.",
        ),
        click.option(
            "--address",
            help="With ray: an existing cluster, 'auto' or ray://HOST:10001; else one is started"
            " here.",
        ),
        click.option(
            "--runner",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Where jobs are run.",
        ),
    ):
        command = option(command)
    return command


def lengths_of(text: str | None) -> tuple[int, ...] | None:
    """Lengths as a user writes them.

    Raises:
        UsageError: they are not whole numbers from 1 up.
    """
    if text is None:
        return None
    lengths = {whole_number(part.strip()) or 0 for part in text.split(",")}
    if 0 in lengths:
        raise UsageError(
            f"--lengths {text!r} is no list of whole numbers from 1 up, such as 8,16,32"
        )
    return tuple(sorted(lengths))


def layouts_of(text: str | None) -> tuple[str, ...] | None:
    """Layouts as a user writes them.

    Raises:
        UsageError: one of them is no layout.
    """
    from prototokens.lab.methods import parse_method

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        parse_method(name)
    return names


def check(options: dict[str, Any]) -> None:
    """Refuse options that name nothing, before anything heavy is imported.

    Raises:
        UsageError: a length, a layout, or an option of another runner.
        ModelError: a folder that holds no model.
    """
    from prototokens.lm.local import find_local

    lengths_of(options["lengths"])
    layouts_of(options.get("layouts"))
    check_runner(options)
    name = (options["model"] or "builtin").removeprefix("random:")
    if "@" not in name:
        find_local(name, options["revision"])


def check_runner(options: dict[str, Any]) -> None:
    """Refuse options of another runner.

    Raises:
        UsageError: one of them.
    """
    if options["runner"] == "local" and (options["address"] or options["actors"]):
        raise UsageError("--address and --actors are of --runner ray")


def settings(options: dict[str, Any], default_texts: tuple[str, ...]) -> Config:
    """The model and the texts, loaded, and everything that jobs are made from."""
    from prototokens.fitting import prefix_of
    from prototokens.lab import models
    from prototokens.lab.job import Config
    from prototokens.lab.texts import Texts
    from prototokens.recipe import Recipe

    lm = models.load(
        options["model"] or "builtin", options["revision"], options["dtype"], options["device"]
    )

    def facts_of(name: str) -> Any:
        other = models.load(name, dtype=str(lm.dtype).removeprefix("torch."), device=str(lm.device))
        return models.facts(other, prefix_of(other, options["prefix"], recipe))

    scale = options["scale"]
    recipe = Recipe.named(options["recipe"], steps=options["steps"] or STEPS[scale])
    return Config(
        model=models.facts(lm, prefix_of(lm, options["prefix"], recipe)),
        texts=Texts(lm, options["texts"] or default_texts, options["seed"]),
        scale=scale,
        recipe=recipe,
        seed=options["seed"],
        checkpoints=tuple(options.get("checkpoints") or ()),
        facts_of=facts_of,
        embedder=options.get("embedder"),
        most_texts=options["count"],
        grid=lengths_of(options["lengths"]),
        most_seeds=options["seeds"],
        chosen_layouts=layouts_of(options.get("layouts")),
    )


def folder(options: dict[str, Any]) -> Path:
    """Where rows go: `--out`, or a folder named after the model, here."""
    if options["out"]:
        return options["out"]
    name = (options["model"] or "builtin").rstrip("/").rpartition("/")[2] or "model"
    return Path("reproduced") / name


def run_jobs(jobs: list[Job], config: Config, options: dict[str, Any]) -> list[Row]:
    """Sweep over the jobs with a display, and return their rows.

    Raises:
        Interrupted: Ctrl-C; what was done is on disk.
    """
    from prototokens.lab.records import Records
    from prototokens.lab.sweep import sweep
    from prototokens.lab.tracking import Remote

    quiet = options["quiet"]

    def log(line: str) -> None:
        click.echo(f"prototokens: {line}", err=True)

    runner = _runner(config, options)
    records = Records(folder(options), log)
    about = {
        "model": config.model.name,
        "fingerprint": config.model.fingerprint,
        "scale": config.scale,
    }
    tracker = Remote(options["track"], about) if options["track"] else None
    try:
        with display(quiet) as show:
            return sweep(jobs, records, runner, show, tracker)
    except KeyboardInterrupt as stop:
        done = sum(records.done(key) for key in {job.key for job in jobs})
        raise Interrupted(
            f"stopped; {done} of {len(jobs)} jobs are done, and the same command goes on from there"
        ) from stop
    finally:
        records.close()
        if tracker:
            tracker.finish()


def _runner(config: Config, options: dict[str, Any]) -> Runner:
    if options["runner"] == "local":
        from prototokens.lab.sweep import Local

        return Local(config.texts.lm)
    from prototokens.lab.cluster import Cluster

    return Cluster(
        address=options["address"], actors=options["actors"], device=str(config.texts.lm.device)
    )


@contextmanager
def display(
    quiet: bool, words: Callable[[Any], str] | None = None
) -> Iterator[Callable[[Any], None] | None]:
    """What is done, speed and time left, on standard error.

    Live on a terminal, else a line a minute.

    Args:
        words: of a progress, which has `done` and `total`; by default those of a sweep.
    """
    words = words or _words
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _live(words) as show:
            yield show
    else:
        last = time.monotonic()

        def line(now: Any) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY:
                last = time.monotonic()
                click.echo(words(now), err=True)

        yield line


@contextmanager
def _live(words: Callable[[Any], str]) -> Iterator[Callable[[Any], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=None), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda now: bar.update(
            task, total=now.total, completed=now.done, description=words(now)
        )


def _words(now: SweepProgress) -> str:
    """Jobs, fits in work, speed and time left, short enough to stand beside a bar."""
    last = f" ({now.experiment})" if now.experiment else ""
    words = [f"{now.done}/{now.total} jobs{last}"]
    if now.fits:
        rate = now.fits.row_steps / max(now.fits.seconds, 1e-9)
        words.append(f"{now.fits.done}/{now.fits.total} fits, {rate:,.0f} steps/s")
    if now.work_done and now.work:
        from prototokens.lab.catalogue import describe_seconds

        words.append(
            f"{describe_seconds(now.seconds * max(0.0, now.work / now.work_done - 1))} left"
        )
    return ", ".join(words)
