"""Encoded texts on the Hugging Face hub, and in folders of the same form.

Each has a generated card.

A `.ptok` file goes into a model repository, since it belongs to its base model and to no other.
What comes back from the hub is read with the same suspicion as any file. Folders of results are the
business of `lab.hub`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub import errors as hub_errors
from torch import Tensor

from prototokens._util.files import write_atomically
from prototokens._version import __version__
from prototokens.errors import FileError
from prototokens.lm.checks import one_line
from prototokens.ptok.header import Header

Text = TypeVar("Text", bound="HubMixin")
FILE = "text.ptok"
CARD = "README.md"


class HubMixin:
    """Encoded texts to and from the hub, or a folder of the same form."""

    vectors: Tensor
    header: Header

    def to_bytes(self) -> bytes:
        """The file's content."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the file; returns its size in bytes."""
        raise NotImplementedError

    @classmethod
    def load(cls: type[Text], path: str | os.PathLike[str]) -> Text:
        """Read a file."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write it and its card into a folder, which is made where it is not there.

        Returns:
            The `.ptok` file.

        Raises:
            FileError: the folder cannot be written.
        """
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"the folder {target} cannot be made ({error.strerror or error}): choose another"
                " place"
            ) from error
        self.save(target / FILE)
        write_atomically(target / CARD, card(self).encode())
        return target / FILE

    @classmethod
    def from_pretrained(
        cls: type[Text],
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        filename: str = FILE,
        endpoint: str | None = None,
    ) -> Text:
        """Read one from a folder, or from a repository of the hub.

        The model that it belongs to is not loaded.

        Args:
            name_or_path: a folder written by `save_pretrained`, or the id of a repository.
            revision: branch, tag or commit of a repository.
            filename: the file's name there.
            endpoint: another hub than the usual one.

        Raises:
            FileError: it is not there, or not a file of ours.
        """
        name = os.fspath(name_or_path)
        if Path(name).is_dir():
            if revision is not None:
                raise FileError(
                    f"{name} is a folder and has no revision {revision!r}: only repositories on the"
                    " hub have"
                )
            return cls.load(Path(name) / filename)
        with errors_in_words(name):
            path = hf_hub_download(
                name,
                filename,
                revision=revision,
                endpoint=endpoint,
                library_name="prototokens",
                library_version=__version__,
            )
        return cls.load(path)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        message: str = "An encoded text",
        endpoint: str | None = None,
    ) -> str:
        """Put it and its card into a repository of the hub, which is made where it is not there.

        Args:
            repository: owner/name.
            private: of a new repository; None: as the account has it.
            token: of the account; by default the one that is logged in.
            message: of the commit.
            endpoint: another hub than the usual one.

        Returns:
            The address of the commit.

        Raises:
            FileError: the hub refuses, or is out of reach.
        """
        from huggingface_hub import CommitOperationAdd

        files = {FILE: self.to_bytes(), CARD: card(self, repository).encode()}
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        with errors_in_words(repository):
            api = HfApi(
                endpoint=endpoint,
                token=token,
                library_name="prototokens",
                library_version=__version__,
            )
            api.create_repo(repository, private=private, exist_ok=True)
            return api.create_commit(repository, operations, commit_message=message).commit_url


def card(encoded: HubMixin, repository: str | None = None) -> str:
    """What a reader must know of an encoded text.

    Which model it needs, what is in it, how it is decoded.
    """
    header = encoded.header
    model, text, lengths = header.model, header.text, header.chunks
    tokens, numbers = text.tokens, encoded.vectors.numel()
    meta: dict[str, Any] = {
        "library_name": "prototokens",
        "tags": ["prototokens", "one-step-generation"],
    }
    if model.name.count("/") == 1 and not Path(model.name).exists():
        meta["base_model"] = model.name
    where = repr(repository) if repository else '"FOLDER"'
    load = f'pt.FrozenLM.from_pretrained("{plain(model.name)}"'
    load += f', revision="{plain(model.revision)}")' if model.revision else ")"
    margin = "-" if header.min_margin is None else f"{header.min_margin:.3f}"
    lines = {
        "model": f"{plain(model.name)}, fingerprint `{plain(model.fingerprint[:16])}`,"
        f" computed in {model.dtype}",
        "text": f"{tokens:,} tokens, {text.characters:,} characters, SHA-256"
        f" `{plain(text.sha256)}`",
        "vectors": f"{len(encoded.vectors):,} of {model.d_model} numbers, {numbers / tokens:.2f}"
        " numbers a token",
        "chunks": f"{len(lengths)} of {min(lengths)} to {max(lengths)} tokens, layout"
        f" `{header.layout}`",
        "exact": f"{'yes' if header.exact else 'no'}: {header.accuracy:.2%} of the tokens"
        " right when it was made",
        "least margin": f"{margin} logits",
        "made with": f"prototokens {plain(header.versions['prototokens'])}, recipe"
        f" `{plain(header.recipe['name'])}`",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in lines.items())
    return f"""\
{front_matter(meta)}
# A text as {len(encoded.vectors):,} vectors

`{FILE}` holds a text as input vectors of a frozen language model, which gives it back token for \
token, each chunk in one
forward pass. To any other model the vectors mean nothing. They are larger than the text: \
this is no compressor.

| | |
|---|---|
{table}

```python
import prototokens as pt

lm = {load}
print(pt.decode(lm, pt.EncodedText.from_pretrained({where})))
```
"""


def front_matter(meta: dict[str, Any]) -> str:
    """A card's head: JSON strings are YAML strings, so nothing in a name can end it."""
    lines = [f"{key}: {json.dumps(value)}" for key, value in meta.items()]
    return "\n".join(["---", *lines, "---"])


def plain(word: str) -> str:
    """A string from an untrusted file for a card: no line ends, no markup, no quotes."""
    return "".join(letter if letter.isalnum() or letter in " ._-/:+@" else "?" for letter in word)


@contextmanager
def errors_in_words(repository: str) -> Iterator[None]:
    """Turn the hub's errors into `FileError` with a sentence.

    Raises:
        FileError: anything that the hub, or the way to it, has against it.
    """
    try:
        yield
    except hub_errors.HFValidationError as error:
        raise FileError(
            f"{repository!r} is neither a folder here nor the id of a repository (owner/name)"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise FileError(
            f"the repository {repository!r} has no such revision: give a branch, a tag or a commit"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        advice = "check the name, or log in with `hf auth login` if it is private"
        raise FileError(
            f"{repository!r} is no folder here, and the hub shows no repository of that name:"
            f" {advice}"
        ) from error
    except hub_errors.LocalEntryNotFoundError as error:
        advice = "check the name, or connect to the network"
        raise FileError(
            f"{repository!r} is no folder here, and the hub could not be reached: {advice}"
        ) from error
    except hub_errors.EntryNotFoundError as error:
        raise FileError(
            f"the repository {repository!r} holds no such file: check its name"
        ) from error
    except (hub_errors.HfHubHTTPError, OSError, ValueError) as error:
        raise FileError(
            f"the hub does not serve {repository!r} ({one_line(error)}): log in, or try again later"
        ) from error
