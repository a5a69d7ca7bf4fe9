import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the page: pip install 'gpt4image[review]'")
from starlette.testclient import TestClient

from gpt4image.reviewing.server import PAGE, make_app
from gpt4image.reviewing.session import Session

TOKEN = "a-token-of-this-test"
ORIGIN = "http://127.0.0.1:8000"


def client_of(session: Session, *, token: str | None = TOKEN) -> TestClient:
    app = make_app({"label": session, "correct": session}, TOKEN, lambda: None)
    client = TestClient(app, base_url=ORIGIN, headers={"Origin": ORIGIN})
    if token is not None:
        client.cookies.set("gpt4image-review-8000", token)
    return client


def label(client: TestClient, digest: str, name: str, note: str = "checked") -> Any:
    return client.post("/marks", content=json.dumps({digest: {"label": name, "note": note}}))


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(opened: Callable[..., Session]) -> None:
    session = opened()
    client = client_of(session, token=None)
    assert client.get("/").status_code == client.get("/news").status_code == client.get("/page.js").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    assert client.get("/?token=").status_code == client.get("/?token=%C3%A9%ff").status_code == 403
    page = client.get(f"/?token={TOKEN}")
    assert page.status_code == 200
    assert re.fullmatch(
        rf"gpt4image-review-8000={TOKEN}; HttpOnly; Path=/; SameSite=strict", page.headers["set-cookie"]
    )
    assert client.get("/").status_code == client.get("/news").status_code == 200
    assert client.get("/?token=wrong").status_code == 403
    tunnel = {"Host": "localhost:9000", "Origin": "http://localhost:9000"}
    answer = client_of(session, token=None).get(f"/?token={TOKEN}", headers=tunnel)
    assert answer.headers["set-cookie"].startswith("gpt4image-review-9000=")


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_another_token_is_refused_everywhere(opened: Callable[..., Session], token: str) -> None:
    session = opened()
    client = client_of(session, token=None)
    client.headers["Cookie"] = f"gpt4image-review-8000={token}"
    for path in ("/", "/news", "/page.js", "/page.css", f"/image/{session.digests[0]}", "/cards?mode=label&count=9"):
        assert client.get(path).status_code == 403, path
    assert label(client, session.digests[0], "cat").status_code == 403
    assert client.post("/finish").status_code == 403
    assert session.changes == 0


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example:8000", "127.0.0.1@evil.example", "", "0.0.0.0:8000"],
)
def test_a_name_that_leads_here_is_refused(opened: Callable[..., Session], host: str) -> None:
    client = client_of(opened())
    answer = client.get("/news", headers={"Host": host, "Origin": f"http://{host}"})
    assert (answer.status_code, answer.text) == (403, "This server answers to 127.0.0.1 and localhost only.\n")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8000", "http://127.0.0.1:8001", ""]
)
def test_requests_of_other_pages_are_refused(opened: Callable[..., Session], origin: str) -> None:
    session = opened()
    client = client_of(session)
    client.headers["Origin"] = origin
    assert label(client, session.digests[0], "dog").status_code == 403
    assert client.get("/news").status_code == 403
    del client.headers["Origin"]
    assert label(client, session.digests[0], "dog").status_code == 403, "a browser always says where a POST comes from"
    assert client.get("/news").status_code == 200
    assert client.get("/news", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get(f"/image/{session.digests[0]}", headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert session.changes == 0


def test_no_file_can_be_reached(opened: Callable[..., Session], tmp_path: Path) -> None:
    session = opened()
    client = client_of(session)
    (tmp_path / "photos" / "secret.txt").write_text("secret", encoding="utf-8")
    ways = ["/image/..%2f..%2fetc%2fpasswd", "/image/photos/cat/0.png", "/image/cat%2f0.png", "/image/" + "0" * 64]
    ways += ["/../../etc/passwd", "/page.js/../index.html", "/%2e%2e/server.py", "/labels.csv", "/photos/secret.txt"]
    for way in ways:
        answer = client.get(way)
        assert answer.status_code in (400, 404), way
        assert "root:" not in answer.text and "secret\n" not in answer.text


def test_what_is_sent_is_a_picture_whatever_the_file_is(opened: Callable[..., Session], pictures: Path) -> None:
    (pictures / "unlabelled" / "page.png").write_text("<html><script>alert(1)</script>", encoding="utf-8")
    session = opened()
    client = client_of(session)
    images = session.file.images
    for key, digest in zip(images.keys, images.digests, strict=True):
        answer = client.get(f"/image/{digest}")
        if key.endswith("page.png"):
            assert answer.status_code == 422
            assert "cannot be shown: not an image" in answer.json()["error"]
        else:
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
            assert Image.open(io.BytesIO(answer.content)).format == "WEBP"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_script_but_that_of_the_page_runs(opened: Callable[..., Session]) -> None:
    client = client_of(opened())
    page = client.get("/")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert re.findall(r"<script(?! src=\"/page\.js\" defer></script>)|\son\w+=|style=|javascript:", page.text) == []
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script) == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{}", b"null", b"\xff", b"[" * 5000, b'{"a": 1}'),
        *(b'{"a": {"label": 1, "note": ""}}', b'{"a": {"label": "cat"}}', b'{"a": {"label": "cat", "note": ""}}'),
        *(b'{"ID": {"label": "cat", "note": "sure"}}', b'{"ID": {"label": "owl", "note": "checked"}}'),
    ],
)
def test_other_requests_are_refused_with_a_reason(opened: Callable[..., Session], body: bytes) -> None:
    session = opened()
    answer = client_of(session).post("/marks", content=body.replace(b"ID", session.digests[0].encode()))
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert session.changes == 0


def test_requests_are_bounded(opened: Callable[..., Session]) -> None:
    client = client_of(opened())
    assert "at most 1,000,000 bytes" in client.post("/marks", content=b"x" * 1_000_001).json()["error"]
    for query in ("", "?mode=label", "?mode=other&count=3", "?mode=label&count=-1", "?mode=label&count=99999"):
        assert client.get(f"/cards{query}").status_code == 400
    assert client.get("/news?since=x").status_code == 400
    assert client.get("/marks").status_code == client.post("/news").status_code == 405


def test_a_full_disk_is_said_and_nothing_counts_as_saved(
    opened: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened()
    client = client_of(session)
    card = client.get("/cards?mode=label&count=1").json()["cards"][0]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt4image.reviewing.labels_file.write_text", full)
    answer = label(client, card["id"], "dog")
    assert (answer.status_code, answer.json()) == (
        507, {"error": "Not saved: No space left on device. Mend that, then click again."}
    )  # fmt: skip
    assert client.get("/cards?mode=label&count=1").json()["cards"][0]["label"] == ""


def test_names_that_turn_the_reading_direction_reach_the_page_escaped_and_mean_what_they_are(
    opened: Callable[..., Session], pictures: Path
) -> None:
    name = "ca\u202et"
    (pictures / "cat").rename(pictures / name)
    session = opened()
    client = client_of(session)
    card, *_ = client.get("/cards?mode=label&count=96").json()["cards"]
    answer = label(client, card["id"], "ca\\u202et")
    assert answer.json()["cards"][card["id"]]["label"] == "ca\\u202et"
    assert session.card(card["id"]).label == name and name in session.file.labels()
    for path in ("/cards?mode=label&count=96", "/cards?mode=correct&count=96", "/news?since=0"):
        texts = client.get(path).json()
        assert "\u202e" not in json.dumps(texts, ensure_ascii=False) and "\\u202e" in str(texts)
