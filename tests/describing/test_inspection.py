"""inspect: every count is of what is in the store; a page shows everything and trusts nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gpt4image.describing.asking
from gpt4image.artifacts.answers import Answer
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, StoreError
from gpt4image.config import InspectConfig
from gpt4image.data.dataset import NO_LABEL, Dataset
from gpt4image.describing.inspection import inspect, stored_flaws
from worlds import encoded, in_memory

PAPER = Prompt("paper", 1, "Describe this image in detail.", class_conditioned=False)
TOLD = Prompt("told", 3, "This is a {class_name}. Describe it.", class_conditioned=True)
MODEL: dict[str, Any] = {"kind": "openai", "model": "m", "temperature": 0.5}
HOT = {**MODEL, "temperature": 1.0}
REFUSAL = "I'm sorry, but I can't assist with that."
GOOD = "A black dog lies on the grass"


def known(patch: pytest.MonkeyPatch, contents: list[bytes], **others: Any) -> Dataset:
    """Images of these bytes, the first one without a label, known as any SPEC."""
    labels = [NO_LABEL, *(number % 2 for number in range(1, len(contents)))]
    images = in_memory(contents, labels, **{"classes": ("cat", "big_dog"), **others})
    patch.setattr(gpt4image.describing.asking, "load_with_splits", lambda _spec, **_: images)
    return images


def png(number: int) -> bytes:
    return encoded(Image.new("RGB", (8, 8), (number % 256, number // 256, 0)))


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Forty different images."""
    return known(monkeypatch, [png(number) for number in range(40)])


def result(digest: str, text: str | None, **values: Any) -> Description:
    given = {"digest": digest, "prompt": PAPER, "describer": MODEL, "created": 0.0, "text": text}
    return Description(**{**given, **values})


def store_of(folder: Path, rows: list[Description]) -> Path:
    with DescriptionStore(folder / "a.db", write=True) as store:
        store.add(rows)
    return folder / "a.db"


def page_of(folder: Path, rows: list[Description], **options: Any) -> str:
    given = {"store": store_of(folder, rows), "data": "memory", "page": folder / "page.html"}
    inspect(InspectConfig(**{**given, **options}))
    return (folder / "page.html").read_text(encoding="utf-8")


def keys_of(page: str) -> list[str]:
    return re.findall(r'<div class="key"><bdi>([^<]*)</bdi>', page)


# Counts


def test_stats_count_what_is_there(tmp_path: Path, images: Dataset) -> None:
    imported = {"prompt": Prompt("imported", 1, "", class_conditioned=False), "describer": {"name": "imported"}}
    rows = [
        result(images.digests[2], "A Cat here", **imported),
        result(images.digests[1], "five words are in this", **imported),
        result(images.digests[3], "big dog", prompt=TOLD),
        result("0" * 64, None, describer={}, error="x"),
    ]
    outcome = inspect(InspectConfig(store=store_of(tmp_path, rows), data="memory"))
    summary, record = outcome.counted, outcome.distributions
    assert summary["descriptions"] == summary["images"] == 3 and summary["failures"] == 1
    assert record["words"] == {"min": 2, "median": 3.0, "p95": 4.8, "max": 5}
    prompts = {row["name"]: (row["descriptions"], row["class_conditioned"]) for row in record["prompts"]}
    assert prompts == {"told": (1, True), "imported": (2, False), "paper": (0, False)}
    assert summary["coverage"] == 3 / 40 and not {"cost_usd", "tokens_in"} & summary.keys()
    echo = result(images.digests[1], "This is a big dog. Describe it.", prompt=TOLD)
    assert stored_flaws(echo, "big_dog") == ["echo"], "the class in a prompt is filled in before an answer is judged"
    json.dumps([summary, record])


def test_money_tokens_flaws_and_reasons_are_counted_by_describer(tmp_path: Path, images: Dataset) -> None:
    paid: dict[str, Any] = {"tokens_in": 100, "cost_usd": 0.25, "finish_reason": "stop"}
    cut, late = {**paid, "finish_reason": "length"}, "429: request req-{} came too soon"
    rows = [
        result(images.digests[0], "The image shows a cat.", **paid, tokens_out=10, latency_s=1.0),
        result(images.digests[1], "A dog on a", **cut, tokens_out=30, latency_s=3.0),
        result(images.digests[2], "A cat", describer=HOT),
        result(images.digests[3], REFUSAL, error="refusal", **paid, tokens_out=20, latency_s=2.0),
        result(images.digests[4], None, error=late.format("a1b2c3d4e5"), cost_usd=0.5),
        result(images.digests[4], None, error=late.format("f6a7b8c9d0"), describer=HOT),
    ]
    outcome = inspect(InspectConfig(store=store_of(tmp_path, rows)))
    record = outcome.distributions
    facts = {"failures": 3, "rejected": 1, "no_answer": 2, "flawed": 1}
    facts |= {"tokens_in": 300, "tokens_out": 60, "cost_usd": 1.25}
    assert {name: outcome.counted[name] for name in facts} == facts
    assert record["flaws"] == {"truncated": {"descriptions": 1}}
    assert record["rejected_reasons"] == {"refusal": 1}
    assert record["no_answer_reasons"] == {"429: request … came too soon": 2}
    columns = ("describer", "descriptions", "rejected", "no_answer", "tokens_out", "cost_usd")
    assert [tuple(row[column] for column in columns) for row in record["describers"]] == [
        ("openai:m (temperature=0.5)", 2, 1, 1, 60, 1.25),
        ("openai:m (temperature=1.0)", 1, 0, 1, None, None),
    ]
    for shown in ["openai:m (temperature=1.0)", "429: request … came too soon", "refusal", "1.25"]:
        assert shown in outcome.text


def test_texts_from_outside_do_not_act_on_the_terminal(tmp_path: Path, images: Dataset) -> None:
    nasty = "\x1b[2J\x1b]0;x\x07 [bold]A cat[/bold]\u202e"
    rows = [result(digest, nasty, describer={"name": nasty}) for digest in images.digests[:2]]
    outcome = inspect(InspectConfig(store=store_of(tmp_path, [*rows, result(images.digests[2], None, error=nasty)])))
    assert "\x1b" not in outcome.text and "\u202e" not in outcome.text and "[bold]A cat[/bold]" in outcome.text


# The page


def test_all_that_was_said_is_shown_with_what_is_known_about_it(tmp_path: Path, images: Dataset) -> None:
    rows = [
        result(images.digests[1], GOOD, tokens_in=300, tokens_out=20, cost_usd=0.00012, latency_s=1.5),
        result(images.digests[1], "A dog on a", prompt=TOLD, finish_reason="length", sample=1),
        result(images.digests[2], REFUSAL, error="refusal", describer={"name": "other"}),
        result(images.digests[3], None, error="HTTP 429"),
    ]
    page = page_of(tmp_path, rows)
    for shown in [
        *(GOOD, "big dog", "300 tokens in", "20 tokens out", "$0.00012", "1.5 s", "openai:m", "other"),
        *('title="cut off at the limit of tokens">truncated<', "This is a {class_name}. Describe it."),
        *("version 3, class-conditioned", "Rejected: <bdi>refusal", "No answer: <bdi>HTTP 429", "I&#39;m sorry"),
    ]:
        assert shown in page
    assert keys_of(page) == ["k2", "k3", "k1"] and page.count("data:image/webp;base64,") == 3
    assert page.index("Rejected and failed</h2>") < page.index("Flawed</h2>") and "Good</h2>" not in page


NASTY = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style></p></article><iframe src='https://example.org'>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u202c \u2066x\x00\x1b[2J\u2028",
    "&lt;b&gt; &amp;",
]


def test_nothing_from_outside_becomes_part_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [png(number) for number in range(len(NASTY))]
    nasty = known(monkeypatch, pictures, keys=tuple(NASTY), classes=tuple(NASTY[:2]))
    rows = [result(digest, None, error=text) for digest, text in zip(nasty.digests, NASTY, strict=True)]
    for digest, said in zip(nasty.digests, NASTY, strict=True):
        given: dict[str, Any] = {"describer": {"name": said, said: said}, "finish_reason": said}
        box: Any = {"label": said, "box_2d": [0, 0, 9, 9]}
        asked = Prompt(said, 1, said, class_conditioned=False, ask=("description", "boxes"))
        rows.append(result(digest, said, prompt=asked, answer=Answer(boxes=(box,)), **given))
    page = page_of(tmp_path, rows, data=NASTY[0])
    reader, seen, text = HTMLParser(), list[tuple[str, dict[str, str | None]]](), list[str]()
    reader.handle_starttag = lambda tag, attrs: seen.append((tag, dict(attrs)))  # type: ignore[method-assign]
    reader.handle_data = text.append  # type: ignore[method-assign]
    reader.feed(page)
    assert not {tag for tag, _ in seen} & {"script", "iframe", "object", "embed", "form", "base"}
    assert not [name for _, attributes in seen for name in attributes if name.startswith("on")]
    links = [found[name] or "data:," for _, found in seen for name in ("src", "href") if name in found]
    assert all(re.match(r"data:(image/webp;base64,|,)|#[\w-]+$", link) for link in links)
    assert all(nasty in "".join(text) for nasty in (*NASTY[:5], NASTY[6]))
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\x00\x1b]", page) and "\\u202egnp.exe" in page
    assert "default-src 'none'" in page and "49" not in "".join(text).split("{{ 7 * 7 }}")[1][:20]


def test_the_sample_is_seeded_and_what_is_wrong_has_a_place_in_it(tmp_path: Path, images: Dataset) -> None:
    rows = [result(digest, GOOD) for digest in images.digests[:30]]
    rows += [result(digest, f"{GOOD} " * 9) for digest in images.digests[30:36]]
    rows += [result(digest, REFUSAL, error="refusal") for digest in images.digests[36:]]
    page = page_of(tmp_path, rows, limit=12)
    number = [int(key[1:]) for key in keys_of(page)]
    assert len(set(number)) == 12
    assert [sum(low <= n < high for n in number) for low, high in [(36, 40), (30, 36), (0, 30)]] == [3, 3, 6]
    assert page_of(tmp_path, [], limit=12) == page
    assert len(keys_of(page_of(tmp_path, [], limit=1))) == 1


def test_one_prompt_or_only_texts(tmp_path: Path, images: Dataset) -> None:
    rows = [
        result(images.digests[0], GOOD),
        result(images.digests[1], GOOD, finish_reason="length"),
        result(images.digests[2], REFUSAL, error="refusal"),
        result(images.digests[3], GOOD, prompt=TOLD),
    ]
    assert keys_of(page_of(tmp_path, rows, prompt="told")) == ["k3"]
    page = page_of(tmp_path, [], data=None)
    assert sorted(keys_of(page)) == sorted(images.digests[:4])
    assert GOOD in page and "no picture" in page and "<img" not in page


def test_mistakes_say_what_to_do(tmp_path: Path, images: Dataset) -> None:
    stranger = result("ab" * 32, GOOD)
    for rows, options, error, message in (
        ([], {}, StoreError, "there is no answer"),
        ([stranger], {}, StoreError, "belongs to other images"),
        ([], {"prompt": "papr"}, StoreError, "Did you mean 'paper'"),
        ([], {"page": tmp_path}, ConfigError, "this is a folder"),
    ):
        with pytest.raises(error, match=message):
            page_of(tmp_path, rows, **options)
    assert not (tmp_path / "page.html").exists()
