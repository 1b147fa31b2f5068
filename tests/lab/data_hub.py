"""As much of the hub as reading one data set takes, served on loopback.

Its card, its tree, its files.
"""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

NAME, COMMIT = "some/books", "a" * 40
ROWS = [
    {"body": text, "number": number}
    for number, text in enumerate(("One was here.", "Two came after.", "Three left."))
]
FILES = {
    "README.md": b"---\nlicense: cc0-1.0\n---\n# Books\n",
    "data/train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
}


def entries(folder):
    """What lies in a folder, as the hub lists it: files, and folders once."""
    lead, found = f"{folder}/" if folder else "", {}
    for path, content in FILES.items():
        if path.startswith(lead):
            name, _, deeper = path.removeprefix(lead).partition("/")
            about = {"type": "file", "size": len(content)} if not deeper else {"type": "directory"}
            found[name] = {"path": lead + name, "oid": hashlib.sha1(content).hexdigest(), **about}
    return list(found.values())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(content)}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self):
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        where = parts[2:] if parts[:2] == ["api", "datasets"] else parts[1:]
        if "/".join(where[:2]) != NAME:
            return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        if len(where) > 3 and where[3] not in ("main", COMMIT):
            return self.answer(
                404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound"
            )
        if parts[0] == "api":
            if where[2:3] == ["tree"]:
                return self.answer(200, entries("/".join(where[4:])))
            siblings = [{"rfilename": path} for path in FILES]
            return self.answer(
                200, {"id": NAME, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            )
        path = "/".join(where[4:])
        if path not in FILES:
            return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        tag = hashlib.sha1(FILES[path]).hexdigest()
        return self.answer(200, FILES[path], ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@contextmanager
def serving():
    """Serve it; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
