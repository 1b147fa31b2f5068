"""Build the wheel and the source archive, and prove them.

Same bytes twice, and the main job from the wheel alone.

    python scripts/check_release.py

1. Wheel and source archive are built twice from copies of the tree, and once more from the unpacked
    archive: the same bytes.
2. The wheel, and what it asks for without extras, is installed into a new environment in a
    temporary folder.
3. There, outside the tree, a text goes through encode, inspect, verify and decode, and comes back;
   the parts that need an extra say so in a sentence; every module that needs none can be imported.

The two files are left in dist/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = "He had never seen the sea before that day.\n"
IMPORTS = """
import importlib, pkgutil, sys, prototokens
names = [module.name for module in pkgutil.walk_packages(prototokens.__path__, "prototokens.")]
failed = []
for name in names:
    if name == "prototokens.__main__":
        continue
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        failed.append((name, error.name))
unexpected = [
    (name, missing)
    for name, missing in failed
    if not name.startswith("prototokens.explorer.") or missing == "torch"
]
print(f"{len(names)} modules, {len(failed)} of the web page need its extra")
sys.exit(f"cannot be imported without extras: {unexpected}" if unexpected else 0)
"""


def build(folder: Path, source: Path) -> dict[str, Path]:
    """Wheel and source archive of a copy of `source`, by suffix."""
    copy = folder / "tree"
    leave = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "results"
    )
    shutil.copytree(source, copy, ignore=leave, symlinks=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1577836800"}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder / "dist")]
    subprocess.run(
        command,
        cwd=copy,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return {path.suffix: path for path in (folder / "dist").iterdir()}


def same(one: Path, other: Path) -> None:
    """Stop where two files differ."""
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, other)]
    if hashes[0] != hashes[1]:
        sys.exit(f"{one.name} is not reproducible: {hashes[0][:16]} and {hashes[1][:16]}")


def run(command: Sequence[str | Path], folder: Path, status: int = 0) -> str:
    """A command in the new environment, outside the tree.

    Returns what it printed on both streams.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != status:
        sys.exit(
            f"{' '.join(map(str, command))}: status {ran.returncode}, not"
            f" {status}\n{ran.stdout}{ran.stderr}"
        )
    return ran.stdout + ran.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument(
        "--torch", default="torch", help="the torch to install, as pip takes it: torch==2.13.0"
    )
    torch, began = parser.parse_args().torch, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        made = build(folder / "one", ROOT)
        wheel, archive = made[".whl"], made[".gz"]
        again = build(folder / "two", ROOT)
        same(wheel, again[".whl"])
        same(archive, again[".gz"])
        with tarfile.open(archive) as packed:
            packed.extractall(folder / "unpacked", filter="data")
        same(wheel, build(folder / "three", next((folder / "unpacked").iterdir()))[".whl"])
        print(
            f"{wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB), {archive.name}: the same bytes"
            " twice, and from the archive"
        )

        venv.create(folder / "clean", with_pip=True)
        python = folder / "clean" / "bin" / "python"
        prototokens = python.with_name("prototokens")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        run([*pip, torch], folder)  # first and by exact version, as in the Makefile
        run([*pip, wheel], folder)
        print(f"installed without extras after {time.monotonic() - began:.0f} s")

        (folder / "chapter.txt").write_text(TEXT, encoding="utf-8")
        run([prototokens, "encode", "chapter.txt"], folder)
        run([prototokens, "inspect", "chapter.ptok"], folder)
        run([prototokens, "decode", "chapter.ptok", "-o", "again.txt"], folder)
        if (folder / "again.txt").read_text(encoding="utf-8") != TEXT:
            sys.exit("the text did not come back from the wheel")
        run([prototokens, "verify", "chapter.ptok", "--quick"], folder)
        run([prototokens, "encode", "chapter.txt", "-o", "small.ptok", "--bits", "4"], folder)
        if TEXT not in run([prototokens, "decode", "small.ptok"], folder):
            sys.exit("the text did not come back from few bits")
        run([prototokens, "trace", "chapter.ptok"], folder)
        for arguments, extra in (
            (["explore"], "explorer"),
            (["trace", "chapter.ptok", "-o", "x.png"], "plots"),
        ):
            if f"prototokens[{extra}]" not in run([prototokens, *arguments], folder, status=2):
                sys.exit(f"prototokens {' '.join(arguments)} does not name the extra [{extra}]")
        run([prototokens, "doctor"], folder)
        print(run([python, "-c", IMPORTS], folder).strip())
        (ROOT / "dist").mkdir(exist_ok=True)
        for path in (wheel, archive):
            shutil.copy(path, ROOT / "dist")
    seconds = time.monotonic() - began
    print(
        "encode, inspect, decode, verify, trace from the wheel, outside the tree: the text came"
        f" back; {seconds:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
