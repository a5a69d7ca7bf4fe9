"""`describe` against a server with every fault, once and always: good images described, bad ones named, keys kept."""

from __future__ import annotations

import hashlib
import io
import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fault_proxy import FAULTS, FaultProxy, Script, image_of
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.base.errors import DescriberError
from gpt4image.cli import OK, SET_ASIDE, USER_MISTAKE, main
from gpt4image.config import DescribeConfig
from gpt4image.describing.describe import describe
from gpt4image.describing.describers.openai import calls, rate_limiter
from openai_stub import Call, Reply, Stub, answer, serve
from transformers_server import Server

KEY = "sk-distinctive-7Qx2Zp9LwV4tKd81"
COLOURS = {
    "black": (10, 10, 10),
    "blue": (30, 40, 230),
    "green": (20, 170, 40),
    "grey": (128, 128, 128),
    "red": (230, 30, 20),
    "white": (245, 245, 245),
    "yellow": (240, 230, 30),
}
BAD = "green"
CONCURRENCY, RETRIES = 3, 2
FATES: dict[str, list[str]] = {}
for _name, _fault in FAULTS.items():
    FATES.setdefault(_fault.fate, []).append(_name)


def colour_of(image: bytes) -> str:
    """Return the name of the colour in the middle of a picture."""
    with Image.open(io.BytesIO(image)) as opened:
        pixel = opened.convert("RGB").getpixel((16, 16))
    distance = {name: sum(abs(a - b) for a, b in zip(colour, pixel, strict=True)) for name, colour in COLOURS.items()}  # type: ignore[arg-type]
    return min(distance, key=lambda name: distance[name])


def key_of(colour: str) -> str:
    return f"unlabelled/{colour}.png"


def text_about(colour: str) -> str:
    return f"A square of plain {colour} without any pattern, filling the whole frame."


def see(call: Call) -> Reply:
    return answer(text_about(colour_of(image_of(call.content) or b"")), delay=0.01)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    (root / "unlabelled").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (32, 32), colour).save(root / key_of(name))
    return root


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    with serve(see) as running:
        yield running


@pytest.fixture(autouse=True)
def secret(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[list[str]]:
    """Set a key that is looked for, whole or cut, in every file and all output of the test, and in the list."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(0)
    texts: list[str] = []
    yield texts
    out, err = capfd.readouterr()
    texts += [out, err, caplog.text]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 3
    assert not [text for text in texts if KEY[:10] in text], "the API key leaked"


class Ran:
    """What a run came to: exit code, output and the stored texts by colour."""

    def __init__(self, code: int, out: str, err: str, store: Path, pictures: Path) -> None:
        self.code = code
        self.err = err
        self.summary: dict[str, Any] = json.loads(out) if out else {}
        self.set_aside = {item["name"]: item["reason"] for item in self.summary.get("set_aside", ())}
        keys = {image.read_bytes(): image.stem for image in pictures.glob("*/*.png")}
        self.texts = texts_by_colour(store, keys)


def texts_by_colour(store: Path, keys: dict[bytes, str]) -> dict[str, str]:
    names = {hashlib.sha256(data).hexdigest(): name for data, name in keys.items()}
    with DescriptionStore(store) as opened:
        return {names[row.digest]: row.text for row in opened.texts()}


Run = Callable[..., Ran]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the order of waits but not their length: what is tested is what is asked, not when."""
    monkeypatch.setattr(calls, "_BACKOFF_S", 0.02)
    monkeypatch.setattr(calls, "_LONGEST_BACKOFF_S", 0.1)
    monkeypatch.setattr(rate_limiter, "_PAUSE_S", (0.05, 0.05))
    monkeypatch.setattr(rate_limiter, "_SLOWEST", 20.0)


@pytest.fixture
def run(tmp_path: Path, pictures: Path, capfd: pytest.CaptureFixture[str], secret: list[str]) -> Run:
    def run_with(url: str, *options: str) -> Ran:
        store = tmp_path / "s.db"
        command = f"describe --data folder:{pictures} --store {store} --describer openai:tiny --base-url {url} --json "
        command += f"--concurrency {CONCURRENCY} --retries {RETRIES} --timeout 1 --image-format png"
        code = main([*command.split(), *options])
        out, err = capfd.readouterr()
        secret.extend([out, err])
        return Ran(code, out, err, store, pictures)

    return run_with


def calls_by_colour(counts: Counter[bytes]) -> dict[str, int]:
    return {colour_of(image): count for image, count in counts.items()}


def once(fault: str) -> Script:
    """The first call about one image meets the fault."""
    return lambda number, image: fault if number == 0 and colour_of(image) == BAD else None


def always(fault: str) -> Script:
    """Every call about one image meets the fault."""
    return lambda number, image: fault if colour_of(image) == BAD else None


def everywhere(fault: str) -> Script:
    return lambda number, image: fault


CALLED_ONCE = dict.fromkeys(COLOURS, 1)
GOOD = {name: text_about(name) for name in COLOURS}
ALL_BUT_BAD = {name: text for name, text in GOOD.items() if name != BAD}


@pytest.mark.parametrize("fault", FATES["passes"])
def test_a_fault_that_passes_costs_one_more_call(fault: str, run: Run, stub: Stub) -> None:
    with FaultProxy(stub.url, once(fault)) as proxy:
        ran = run(proxy.url)
        assert ran.code == OK, ran.err
        assert ran.texts == GOOD
        assert calls_by_colour(proxy.calls) == CALLED_ONCE | {BAD: 2}
        assert proxy.most_in_flight <= CONCURRENCY
        assert run(proxy.url).code == OK
        assert calls_by_colour(proxy.calls) == CALLED_ONCE | {BAD: 2}, "a finished set is not asked about again"


@pytest.mark.parametrize("fault", [*FATES["passes"], *FATES["image"], *FATES["answer"]])
def test_an_image_that_always_meets_a_fault_is_named_and_costs_the_others_nothing(
    fault: str, run: Run, stub: Stub
) -> None:
    most = {"passes": 1 + RETRIES, "image": 1, "answer": 2}[FAULTS[fault].fate]
    with FaultProxy(stub.url, always(fault)) as proxy:
        ran = run(proxy.url)
        assert ran.code == SET_ASIDE
        assert ran.texts == ALL_BUT_BAD
        calls = calls_by_colour(proxy.calls)
        assert calls == CALLED_ONCE | {BAD: calls[BAD]}
        assert 1 <= calls[BAD] <= most
        assert list(ran.set_aside) == [key_of(BAD)]
        reason = ran.set_aside[key_of(BAD)]
        assert reason and len(reason) <= 400 and "\n" not in reason

        proxy.script = lambda number, image: None
        again = run(proxy.url, "--retry-rejected")
        assert again.code == OK and again.texts == GOOD
        assert calls_by_colour(proxy.calls) == CALLED_ONCE | {BAD: calls[BAD] + 1}


@pytest.mark.parametrize("fault", FATES["image"])
def test_an_image_that_the_server_will_not_look_at_is_not_asked_about_twice_in_a_run(
    fault: str, run: Run, stub: Stub
) -> None:
    with FaultProxy(stub.url, everywhere(fault)) as proxy:
        ran = run(proxy.url)
        assert ran.code == SET_ASIDE
        assert set(calls_by_colour(proxy.calls).values()) == {1}
        assert set(ran.set_aside) == set(map(key_of, COLOURS))


@pytest.mark.parametrize("fault", FATES["answer"])
def test_an_answer_that_is_no_description_is_asked_for_once_more(fault: str, run: Run, stub: Stub) -> None:
    with FaultProxy(stub.url, once(fault)) as proxy:
        ran = run(proxy.url)
        assert ran.code == OK and ran.texts == GOOD
        assert calls_by_colour(proxy.calls) == CALLED_ONCE | {BAD: 2}


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("fault", ["429", "500", "reset", "hang", "other json", "html 502"])
def test_a_server_that_never_works_ends_the_run_within_its_retries(fault: str, run: Run, stub: Stub) -> None:
    with FaultProxy(stub.url, everywhere(fault)) as proxy:
        ran = run(proxy.url, "--limit", "2")
        assert ran.code == SET_ASIDE
        assert ran.texts == {} and len(ran.set_aside) == 2
        assert list(proxy.calls.values()) == [1 + RETRIES] * 2


@pytest.mark.parametrize("fault", FATES["stops"])
def test_what_every_call_would_meet_stops_the_run_and_keeps_what_came(
    fault: str, run: Run, stub: Stub, secret: list[str], pictures: Path, tmp_path: Path
) -> None:
    with FaultProxy(stub.url, always(fault)) as proxy:
        ran = run(proxy.url)
        assert ran.code == USER_MISTAKE
        assert ran.err.startswith("Error: ") and "Traceback" not in ran.err
        assert set(proxy.calls.values()) == {1}
        came = calls_by_colour(proxy.paid)
        assert set(ran.texts) == set(came), "an answer that was paid for was dropped"

        config = DescribeConfig(
            data=f"folder:{pictures}", store=tmp_path / "s.db", describer="openai:tiny", base_url=proxy.url
        )
        with pytest.raises(DescriberError) as caught:
            describe(config)
        secret.append("".join(traceback.format_exception(caught.value)))
        assert max(proxy.paid.values(), default=0) <= 1, "what is described is not paid for again"


@pytest.mark.usefixtures("short_waits")
def test_faults_of_all_kinds_at_once_lose_and_double_nothing(run: Run, stub: Stub) -> None:
    """Every image meets two other faults of those that pass, one after the other."""
    names = [name for name in FATES["passes"] if name not in ("hang", "drip") and "after" not in name]

    def two(number: int, image: bytes) -> str | None:
        first = 2 * sorted(COLOURS).index(colour_of(image))
        return names[(first + number) % len(names)] if number < 2 else None

    with FaultProxy(stub.url, two) as proxy:
        ran = run(proxy.url)
        assert ran.code == OK, ran.summary
        assert ran.texts == GOOD
        assert set(proxy.calls.values()) == {3}


@pytest.mark.parametrize("fault", ["500", "429 retry-after seconds"])
def test_a_limit_counts_images_not_tries(fault: str, run: Run, stub: Stub) -> None:
    """Every image that is asked about meets the fault once."""
    with FaultProxy(stub.url, lambda number, image: fault if number == 0 else None) as proxy:
        ran = run(proxy.url, "--limit", "2")
        assert ran.summary["described"] == 2
        assert list(proxy.calls.values()) == [2, 2]


@pytest.mark.slow
def test_a_real_server_behind_every_fault_that_passes_describes_all_images(
    pictures: Path,
    tmp_path: Path,
    transformers_serve: Server,
    capfd: pytest.CaptureFixture[str],
    secret: list[str],
) -> None:
    """The same texts come as without faults; each image meets three of them, so that all images together meet all."""
    names = [name for name in FATES["passes"] if name != "hang"]  # 7 images meet 3 each

    def three(number: int, image: bytes) -> str | None:
        return names[(3 * sorted(COLOURS).index(colour_of(image)) + number) % len(names)] if number < 3 else None

    def texts_through(proxy: FaultProxy, store: Path) -> dict[str, str]:
        command = f"describe --data folder:{pictures} --store {store} --describer openai:{transformers_serve.model} "
        command += f"--base-url {proxy.url} --concurrency 2 --timeout 20 --image-format png --temperature 0 "
        command += "--max-tokens 24 --reject empty --json"
        code = main(command.split())
        out, err = capfd.readouterr()
        secret.extend([out, err])
        assert code == OK, out + err
        return Ran(code, out, err, store, pictures).texts

    with FaultProxy(transformers_serve.base_url) as proxy:
        plain = texts_through(proxy, tmp_path / "plain.db")
        assert set(plain) == set(COLOURS)
        proxy.calls.clear()
        proxy.script = three
        assert texts_through(proxy, tmp_path / "s.db") == plain
        assert set(proxy.calls.values()) == {4}
