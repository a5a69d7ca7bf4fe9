"""The endpoints of the Hugging Face hub that putting a model there and loading it need, on a free port of this machine.

with serve_hub(token="hf_...") as hub:
    ...  # hub.url for HF_ENDPOINT; hub.files["me/model"]["config.json"], hub.private, hub.commits
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789" * 4


class Hub(ThreadingHTTPServer):
    """State of the server: files by repository and path, which repositories are private, messages of commits."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Endpoints)
        self.token = token
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Endpoints(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.reply(401, {"error": "Invalid username or password."})
        if self.path == "/api/whoami-v2":
            return self.reply(200, {"name": "me", "type": "user"})
        repository, _, name = self.path.removeprefix("/").partition("/resolve/main/")
        content = self.server.files.get(repository, {}).get(name)
        if content is None:
            return self.reply(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest()
        return self.send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.reply(401, {"error": "Invalid username or password."})
        if self.path == "/api/validate-yaml":  # of model cards
            return self.reply(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            repository = f"{asked['organization']}/{asked['name']}"
            known = repository in self.server.files
            self.server.files.setdefault(repository, {})
            self.server.private.setdefault(repository, asked.get("private") or asked.get("visibility") == "private")
            return self.reply(409 if known else 200, {"url": f"{self.server.url}/{repository}"})
        repository = self.path.removeprefix("/api/models/").rsplit("/", 2)[0]
        if self.path.endswith("/preupload/main"):
            paths = [file["path"] for file in json.loads(content)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return self.reply(200, {"files": modes})
        header, *rows = map(json.loads, content.splitlines())
        self.server.commits.append(header["value"]["summary"])
        for row in rows:
            self.server.files[repository][row["value"]["path"]] = base64.b64decode(row["value"]["content"])
        return self.reply(200, {"commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})

    def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def serve_hub(token: str) -> Iterator[Hub]:
    """Run the server in a thread until the block ends."""
    with Hub(token) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join(5)
