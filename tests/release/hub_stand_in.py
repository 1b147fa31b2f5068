"""The part of the hub's API that an upload and a download need, in memory and on loopback."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"


class Hub:
    """Repositories: (kind, id) -> revisions: commit -> files."""

    def __init__(self):
        self.commits, self.created, self.seen = {}, [], []

    def files(self, kind, name, revision):
        history = self.commits.get((kind, name))
        if history is None:
            return None, None
        commit = list(history)[-1] if revision == "main" else revision
        return commit, history.get(commit)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if not any(name.lower() == "content_length" for name in headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def parts(self):
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.parts()
        self.hub.seen.append((self.path, self.headers.get("User-Agent", "")))
        if parts == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(
                401,
                {"error": "Invalid username or password."},
                X_Error_Message="Invalid credentials",
            )
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            kind = asked.get("type", "model")
            url = f"http://{self.headers['Host']}/{'datasets/' * (kind == 'dataset')}{name}"
            if (kind, name) in self.hub.commits:
                return self.answer(409, {"error": "exists", "url": url})
            self.hub.created.append((kind, name, asked.get("private"), asked.get("visibility")))
            self.hub.commits[(kind, name)] = {"0" * 40: {}}
            return self.answer(200, {"url": url})
        kind, name = parts[1].removesuffix("s"), "/".join(parts[2:4])
        if parts[4] == "preupload":
            files = json.loads(body)["files"]
            return self.answer(
                200,
                {
                    "files": [
                        {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for each in files
                    ]
                },
            )
        assert parts[4] == "commit", parts
        _, files = self.hub.files(kind, name, "main")
        files = dict(files)
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = hashlib.sha1(body).hexdigest()
        self.hub.commits[(kind, name)][commit] = files
        prefix = "datasets/" * (kind == "dataset")
        url = f"http://{self.headers['Host']}/{prefix}{name}/commit/{commit}"
        return self.answer(
            200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}
        )

    def do_GET(self):
        parts = self.parts()
        if parts[0] == "api":
            kind, name = parts[1].removesuffix("s"), "/".join(parts[2:4])
            commit, files = self.hub.files(kind, name, parts[5] if len(parts) > 5 else "main")
            if files is None:
                return self.missing(commit)
            if len(parts) > 4 and parts[4] == "tree":
                return self.answer(
                    200,
                    [
                        {"type": "file", "path": path, "size": len(files[path]), "oid": "0"}
                        for path in files
                    ],
                )
            listed = [{"rfilename": path} for path in files]
            return self.answer(
                200,
                {
                    "id": name,
                    "sha": commit,
                    "siblings": listed,
                    "tags": [],
                    "private": False,
                    "downloads": 0,
                },
            )
        kind = "dataset" if parts[0] == "datasets" else "model"
        parts = parts[1:] if kind == "dataset" else parts
        commit, files = self.hub.files(kind, "/".join(parts[:2]), parts[3])
        path = "/".join(parts[4:])
        if files is None:
            return self.missing(commit)
        if path not in files:
            return self.answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
        etag = hashlib.sha1(files[path]).hexdigest()
        return self.answer(200, files[path], ETag=f'"{etag}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def missing(self, commit):
        code = "RepoNotFound" if commit is None else "RevisionNotFound"
        return self.answer(404, {"error": "not found"}, X_Error_Code=code)


@contextmanager
def stand_in():
    """Serve one; gives its address and what it holds."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
