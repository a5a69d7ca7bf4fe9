"""The endpoints of the Hugging Face hub that putting a model there and loading it need, on a free port of this machine.

with serve_hub(token="hf_...") as hub:
    ...  # hub.url for HF_ENDPOINT; hub.files["me/model"]["config.json"], hub.private, hub.commits
"""

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace

from openai_stub import Call, Reply, json_reply, serve

COMMIT = "0123456789" * 4


class Hub:
    """State of the server: files by repository and path, which repositories are private, messages of commits."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.url = ""
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[str] = []

    def reply(self, call: Call) -> Reply:
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return json_reply({"error": "Invalid username or password."}, 401)
        if call.method in ("GET", "HEAD"):
            found = self._read(call.path)
            size = {"content-length": str(len(found.content))}
            return found if call.method == "GET" else replace(found, content=b"", headers=found.headers | size)
        if call.path == "/api/validate-yaml":  # of model cards
            return json_reply({"errors": [], "warnings": []})
        if call.path == "/api/repos/create":
            repository = f"{call.body['organization']}/{call.body['name']}"
            known = repository in self.files
            self.files.setdefault(repository, {})
            self.private.setdefault(repository, call.body.get("private") or call.body.get("visibility") == "private")
            return json_reply({"url": f"{self.url}/{repository}"}, 409 if known else 200)
        if call.path.endswith("/preupload/main"):
            paths = [file["path"] for file in call.body["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]
            return json_reply({"files": modes})
        repository = call.path.removeprefix("/api/models/").rsplit("/", 2)[0]
        header, *rows = map(json.loads, call.content.splitlines())
        self.commits.append(header["value"]["summary"])
        for row in rows:
            self.files[repository][row["value"]["path"]] = base64.b64decode(row["value"]["content"])
        return json_reply({"commitUrl": f"{self.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})

    def _read(self, path: str) -> Reply:
        if path == "/api/whoami-v2":
            return json_reply({"name": "me", "type": "user"})
        repository, _, name = path.removeprefix("/").partition("/resolve/main/")
        content = self.files.get(repository, {}).get(name)
        if content is None:
            return json_reply({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        etag = hashlib.sha256(content).hexdigest()
        return Reply(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})


@contextlib.contextmanager
def serve_hub(token: str) -> Iterator[Hub]:
    """Run the server in a thread until the block ends."""
    hub = Hub(token)
    with serve(hub.reply) as stub:
        hub.url = f"http://127.0.0.1:{stub.port}"
        yield hub
