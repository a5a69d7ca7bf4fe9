"""What ``describe`` relies on, for every describer: one answer per request, bad images that cost only themselves."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from canaries import with_secrets
from gpt4image.config import DescriberOptions
from gpt4image.describing.describers import transformers_model
from gpt4image.describing.describers.base import Answer, Describer, Request
from gpt4image.describing.describers.registry import DESCRIBERS, SERVERS, load_describer
from gpt4image.describing.prices import FREE
from openai_cases import KEY, picture, request
from openai_stub import Call, Reply, answer, serve
from tables import write_lines
from tiny_vlm import make_tiny_vlm
from worlds import in_memory

IMAGES = 7


def says(image: Any, question: str) -> str:
    return f"A picture {image.width} pixels wide."


def replies(call: Call) -> Reply:
    if len(call.images) == 1:
        return answer("A square.")
    names = [part["text"][:-1].removeprefix("Image ") for part in call.body["messages"][-1]["content"][:-1:2]]
    return answer(json.dumps({"answers": [{"image": name, "description": "A square."} for name in names]}))


@pytest.fixture(params=["openai", "sheets", "python", "replay", "transformers"])
def describer(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Describer]]:
    """Makes the same describer again and again."""
    monkeypatch.setattr(transformers_model, "computes_bf16", lambda _: False)
    with contextlib.ExitStack() as opened:
        options: dict[str, Any] = {"max_tokens": 8, "batch_size": 3, "max_side": 32}
        match request.param:
            case "openai" | "sheets":
                stub = opened.enter_context(serve(replies))
                options |= {"describer": "openai:tiny", "base_url": with_secrets(stub.url), "server_name": "stub"}
                options |= {"per_call": 3} if request.param == "sheets" else {}
            case "python":
                options["describer"] = f"python:{__name__}:says"
                monkeypatch.setattr("gpt4image.describing.describers.function.GIVEN", {f"{__name__}:says": says})
            case "replay":
                rows = [{"digest": f"{number:064x}", "description": f"A square {number}."} for number in range(IMAGES)]
                options["describer"] = f"replay:{write_lines(tmp_path / 'rows.jsonl', rows)}"
            case _:
                options["describer"] = f"transformers:{make_tiny_vlm(tmp_path / 'tiny-vlm')}"
        yield lambda: load_describer(DescriberOptions(**options))


def answers(describer: Describer, requests: list[Request]) -> list[Answer]:
    return [one for group in describer.describe(iter(requests)) for one in group]


def test_each_request_is_answered_once_and_a_bad_image_costs_only_itself(
    describer: Callable[[], Describer], tmp_path: Path
) -> None:
    asked, bad = [request(number) for number in range(IMAGES)], {2: b"no image", 4: picture()[:60]}
    broken = [request(n, read=lambda n=n: bad[n]) if n in bad else one for n, one in enumerate(asked)]
    gone = request(IMAGES, read=(tmp_path / "gone.png").read_bytes)
    made = describer()
    reads_images = made.settings["kind"] != "replay"
    for requests in (asked, [*broken, gone]):  # it may be called again
        found = answers(made, requests)
        again = [replace(one.request, again=True) for one in found if one.retry]
        found = [*(one for one in found if not one.retry), *answers(made, again)]
        assert sorted(one.request.digest for one in found) == [one.digest for one in requests]
        failed = {int(one.request.digest, 16): one.error for one in found if one.text is None}
        if requests is asked:
            assert not failed and not made.arrived()
        elif reads_images:
            assert failed.keys() == {*bad, IMAGES} and "cannot be read: No such file" in (failed[IMAGES] or "")
            assert all("cannot be decoded: " in (failed[number] or "") for number in bad)
    assert isinstance(dict(made.report(in_memory([b"a"])).facts), dict)


def test_settings_are_the_identity_of_its_answers_and_hold_no_secret(describer: Callable[[], Describer]) -> None:
    made = describer()
    settings = json.loads(json.dumps(made.settings))
    assert settings == describer().settings and "c4n4ry" not in str(settings) and KEY not in str(settings)
    assert made.price == FREE and made.repeatable == (settings["kind"] in ("replay", "transformers"))


def test_every_describer_has_a_case_here() -> None:
    assert DESCRIBERS.keys() - {*SERVERS} == {"python", "replay", "transformers"}
