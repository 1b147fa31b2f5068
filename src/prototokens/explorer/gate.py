"""What stands before Gradio: the page's own rules for requests and answers.

Gradio takes a file's path on the server's disk, or an address to fetch, from whoever writes to it,
and checks neither where it is mounted in another application. Here both are refused before it sees
them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gradio.route_utils import API_PREFIX
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prototokens._util import strict_json

# Whatever a page may ask for, the browser gets it from here or not at all.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self'"
    " 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self'"
    " blob:; frame-ancestors 'self'"
)
# The route for files of Gradio takes an address too, and redirects to it or fetches it, as its
# version has it.
ELSEWHERE = re.compile(r"/(file|proxy)[=/]\s*[a-z][a-z0-9+.-]+:", re.IGNORECASE)
MAX_REQUEST = 4 << 20  # bytes of a request that is no upload, where texts are not let be longer
# Bytes of a refused request that are read: a browser reads the answer only once it has sent all.
MAX_DRAINED = 64 << 20


class Gate:
    """Refuses requests that name files which were not uploaded.

    It also instructs browsers to fetch nothing from elsewhere.

    Args:
        max_characters: of a text. A request holds two texts at most, of up to six bytes a
            character as JSON.
    """

    def __init__(self, inner: ASGIApp, max_characters: int = 0):
        self.inner, self.max_characters = inner, max_characters
        self.max_request = MAX_REQUEST + 12 * max_characters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        if scope["type"] == "http" and ELSEWHERE.search(scope["path"]):
            await _refusal(403, "this page serves its own files alone")(scope, receive, sent)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or _is_upload(scope):
            await self.inner(scope, receive, sent)
            return
        body = await _body(receive, self.max_request)
        if body is None:
            await _refusal(
                413,
                f"the text is far longer than the {self.max_characters:,} characters that this"
                " page takes",
            )(scope, receive, sent)
            return
        if not _names_uploads_alone(body, _own_addresses(scope)):
            await _refusal(403, "only a file that was sent up can be named")(scope, receive, sent)
            return
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            return next(given, None) or await receive()

        await self.inner(scope, again, sent)


def _is_upload(scope: Scope) -> bool:
    """Gradio counts the bytes of those itself."""
    return Headers(scope=scope).get("content-type", "").startswith("multipart/form-data")


def _refusal(status: int, sentence: str) -> JSONResponse:
    """An answer whose sentence Gradio's page shows: it looks for it in JSON."""
    return JSONResponse({"detail": sentence}, status)


async def _body(receive: Receive, most: int) -> bytes | None:
    """The whole of a request, or None where it has more bytes than `most`.

    They are read and dropped, as far as is sensible.
    """
    body, seen = bytearray(), 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        seen += len(part)
        if seen <= most:
            body += part
        if (
            seen > most + MAX_DRAINED
            or message["type"] != "http.request"
            or not message.get("more_body")
        ):
            return bytes(body) if seen <= most else None


def _own_addresses(scope: Scope) -> set[str]:
    """What a visitor's browser calls this page.

    Host and port, behind a proxy those of the proxy.
    """
    headers = Headers(scope=scope)
    return {headers.get("host", ""), urlsplit(headers.get("origin", "")).netloc} - {""}


def _names_uploads_alone(body: bytes, own: set[str]) -> bool:
    """Whether every file that a request names was sent up to this page.

    What is not JSON names none.

    Args:
        body: of the request.
        own: host and port of this page, as addresses of its files begin.
    """
    try:
        asked = strict_json.loads(body)
    except strict_json.RepeatedKeyError:
        return False
    except (ValueError, RecursionError):
        return not body.lstrip().startswith((b"{", b"["))
    waiting = [asked]
    while waiting:
        each: Any = waiting.pop()
        if isinstance(each, dict):
            if not _is_upload_or_none(each.get("path"), each.get("url"), own):
                return False
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return True


def _is_upload_or_none(path: Any, url: Any, own: set[str]) -> bool:
    """Whether a file was uploaded, and its address is where this page serves it."""
    if isinstance(path, str) and not _is_in_uploads(path):
        return False
    if not url:
        return True
    if not isinstance(url, str) or not isinstance(path, str):
        return False
    root, _, named = url.partition(f"{API_PREFIX}/file=")
    try:
        host = urlsplit(root).netloc
    except ValueError:
        return False
    return unquote(named) == unquote(path) and (host in own if root else True)


def _is_in_uploads(path: str) -> bool:
    try:
        return Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
    except (OSError, ValueError):  # no name of a file: too long, or with a null character
        return False
