"""Secrets that can be told from everything else, in every place where a user keeps one, and a search for what leaks."""

import base64
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

MARK = "c4n4ry"
KEY = f"sk-{MARK}-openai/+7Qx2Zp9LwV4tKd81"
TOKEN = f"hf_{MARK}Hub7Qx2Zp9Lw"
LOGIN, PASSWORD = f"{MARK}-user", f"{MARK}-p@ss/word"
NAMES = """ANTHROPIC_API_KEY GEMINI_API_KEY OPENAI_ADMIN_KEY AZURE_OPENAI_API_KEY GITHUB_TOKEN AWS_SECRET_ACCESS_KEY
WANDB_API_KEY MLFLOW_TRACKING_PASSWORD HUGGING_FACE_HUB_TOKEN DATABASE_PASSWORD"""
PROXY = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://{MARK}-proxy:{MARK}-proxy-pass@127.0.0.1:9")
VARIABLES = {"OPENAI_API_KEY": KEY, "HF_TOKEN": TOKEN, **PROXY}
VARIABLES |= {name: f"{MARK}-{name.lower()}" for name in NAMES.split()}
# Also as they look in a header of Basic authentication, and where a text was cut.
_ENCODED = [base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()), base64.b64encode(KEY.encode())]
LEAKS = [MARK.encode(), *(text[:16] for text in _ENCODED)]


def with_secrets(url: str, *, login: bool = True) -> str:
    """Return an address with a parameter that is a key, and with a login, which is then sent instead of the key."""
    parts = urlsplit(url)
    user = f"{quote(LOGIN, safe='')}:{quote(PASSWORD, safe='')}@" if login else ""
    return f"{parts.scheme}://{user}{parts.netloc}{parts.path}?api-version=2&key={MARK}-parameter"


class Watch:
    """Everything that was seen: outputs that a test adds, files below a folder, and commands of child processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts: list[str] = []
        self.commands: set[bytes] = set()
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    parent = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
                    if int(parent) == os.getpid():
                        self.commands.add((process / "cmdline").read_bytes())
                except OSError:  # it ended
                    continue

    def leaks(self) -> list[str]:
        """Return the places where a secret was seen."""
        self._ended.set()
        self._looking.join()
        seen = {"output": "".join(self.texts).encode(), "processes": b"\n".join(self.commands)}
        seen |= {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        found = [(place, text, text.find(leak)) for place, text in seen.items() for leak in LEAKS]
        return [f"{place}: {text[max(0, at - 60) : at + 60]!r}" for place, text, at in found if at >= 0]


@pytest.fixture
def watched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[Watch]:
    """Set a secret in every variable; at the end none may stand in files of the test, its output, logs or commands."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    caplog.set_level(0)
    watch = Watch(tmp_path)
    yield watch
    logs = [record.getMessage() for when in ("setup", "call") for record in caplog.get_records(when)]
    watch.texts += [*capfd.readouterr(), *logs]
    if leaks := watch.leaks():
        pytest.fail("secrets leaked:\n" + "\n".join(leaks))
