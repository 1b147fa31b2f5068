"""Real processes, stopped, crowded and starved.

An output is the old file or the whole new one, and what is solved is taken up.

Each process is forked from one that has imported everything, so that many are tried in a minute.
PROTOTOKENS_REPEATS sets how often each signal is sent at random, twice by default.
tests/cli/test_interrupt.py sends them once something is solved.
"""

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from random import Random
from typing import NamedTuple

import pytest

from prototokens.cli import main
from prototokens.decoding import decode_text
from prototokens.ptok.encoded import EncodedText

REPEATS = int(os.environ.get("PROTOTOKENS_REPEATS", "2"))
TEXT = "Call me Ishmael. Some years ago, never mind how long."
OTHER = "It was dark. He had never seen the sea before that day."
PRELOAD = [
    "prototokens.cli",
    "prototokens.encoder.starts",
    "prototokens.planning.throughput",
    "transformers.models.llama.modeling_llama",
]
TIME_LIMIT = 120.0  # seconds until a test gives up


class Ended(NamedTuple):
    """What a process left: its exit status (negative for a signal) and standard error."""

    status: int
    err: str


def command(arguments, log, limit, slow):
    """In the new process: the command line, its messages in a file.

    Args:
        limit: most bytes of a file.
        slow: seconds that every flush to the disk takes.
    """
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    # What is solved is saved at every step; where writing is slow or limited, the output alone is
    # written.
    sys.modules["prototokens.cli.encode_run"].SAVE_EVERY = TIME_LIMIT if slow or limit else 0.0
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if slow:
        os.fsync = lambda _: time.sleep(slow)
    main([str(argument) for argument in arguments])


class Process:
    """`prototokens ARGUMENTS` beside this one."""

    context = multiprocessing.get_context("forkserver")

    def __init__(self, log, *arguments, limit=None, slow=None):
        self.log = log
        self.context.set_forkserver_preload(PRELOAD)
        self.process = self.context.Process(target=command, args=(arguments, log, limit, slow))
        self.process.start()

    def printed(self):
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, happened):
        """Wait until something has happened, or the process has ended."""
        end = time.monotonic() + TIME_LIMIT
        while self.process.is_alive() and not happened():
            assert time.monotonic() < end, self.printed()
            time.sleep(0.002)

    def send(self, number):
        if self.process.is_alive():
            os.kill(self.process.pid, number)
        return self.ended()

    def ended(self):
        self.process.join(TIME_LIMIT)
        assert self.process.exitcode is not None, self.printed()
        return Ended(self.process.exitcode, self.printed())


def begin_in(root, folder):
    """What begins an encoding of a text in a process of its own.

    The output is x.ptok in `root`/out.
    """
    (root / "out").mkdir()
    (root / "logs").mkdir()
    count = iter(range(1000))

    def begin(text=TEXT, **options):
        given = [
            "--text",
            text,
            "-o",
            output(root),
            "--model",
            folder,
            "--rows",
            1,
            "--chunk-length",
            12,
            "--force",
        ]
        return Process(
            root / "logs" / str(next(count)), "encode", *given, "--certify", "none", **options
        )

    return begin


@pytest.fixture
def begin(folder, tmp_path):
    return begin_in(tmp_path, folder)


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """A run that nothing disturbs: its file, and the seconds from its first words to its end."""
    root = tmp_path_factory.mktemp("undisturbed")
    process = begin_in(root, folder)()
    process.wait_for(lambda: "chunk" in process.printed())
    began = time.monotonic()
    assert process.ended().status == 0, process.printed()
    return output(root).read_bytes(), time.monotonic() - began


def output(tmp_path):
    return tmp_path / "out" / "x.ptok"


def content(path):
    return path.read_bytes() if path.exists() else None


def holds(path, lm, text=TEXT):
    """Whether a file is whole and decodes to a text."""
    decoded = decode_text(lm, EncodedText.load(path), any_model=True)
    return decoded.matches and decoded.text == text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_at_a_random_moment(begin, undisturbed, tiny_llama, tmp_path, number):
    path, chance, (whole, length) = output(tmp_path), Random(f"{number}"), undisturbed
    for _ in range(REPEATS):
        old = chance.choice([None, b"old"])
        path.unlink(missing_ok=True)
        if old:
            path.write_bytes(old)
        process = begin()
        process.wait_for(lambda process=process: "chunk" in process.printed())
        time.sleep(chance.uniform(0, length))
        status, err = process.send(number)
        assert "Traceback" not in err
        assert content(path) in (old, whole)
        assert status in ((-number, 0) if number == signal.SIGKILL else (130, -number, 0)), err
        if number != signal.SIGKILL:
            assert {one.name for one in path.parent.iterdir()} <= {
                path.name,
                f"{path.name}.partial",
            }
        status, err = begin().ended()
        assert status == 0, err
        assert path.read_bytes() == whole
        assert holds(path, tiny_llama)
        for one in path.parent.iterdir():  # what a kill left of a file that was being written
            assert one == path or (number == signal.SIGKILL and one.name.startswith(".x.ptok"))
            one.unlink()


def size_of(path):
    """In bytes; of a file that has been renamed since it was seen, 0."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_the_output_is_written(begin, tiny_llama, tmp_path, number):
    path = output(tmp_path)
    path.write_bytes(b"old")
    process = begin(slow=0.5)
    process.wait_for(lambda: any(size_of(one) for one in path.parent.glob(".x.ptok.*")))
    _, err = process.send(number)
    assert "Traceback" not in err
    # On a busy machine the signal may come late, when the new file is in its place.
    assert path.read_bytes() == b"old" or holds(path, tiny_llama)
    if number != signal.SIGKILL:
        assert {one.name for one in path.parent.iterdir()} <= {path.name, f"{path.name}.partial"}
    assert begin().ended().status == 0
    assert holds(path, tiny_llama)


def test_a_disk_that_is_full_before_the_file_is_whole(begin, tmp_path):
    path = output(tmp_path)
    path.write_bytes(b"old")
    status, err = begin(limit=4000).ended()
    assert status == 2, err
    assert "Traceback" not in err
    assert (
        f"prototokens: {path} could not be written (File too large): what was there before is"
        " untouched" in err
    )
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_goes_away(begin, tmp_path):
    process = begin()
    process.wait_for(lambda: "chunk" in process.printed())
    shutil.rmtree(output(tmp_path).parent)
    status, err = process.ended()
    assert status == 2, err
    assert "Traceback" not in err
    assert (
        f"prototokens: {output(tmp_path)} could not be written (No such file or directory)" in err
    )


@pytest.mark.parametrize("texts", [(TEXT, TEXT), (TEXT, OTHER)], ids=["one text", "two texts"])
def test_two_encoders_of_one_output(begin, tiny_llama, tmp_path, texts):
    path = output(tmp_path)
    for _ in range(1 + REPEATS // 10):
        path.unlink(missing_ok=True)
        for process in [begin(text) for text in texts]:
            status, err = process.ended()
            assert status == 0, err
        assert any(holds(path, tiny_llama, text) for text in texts)
        assert list(path.parent.iterdir()) == [path]
