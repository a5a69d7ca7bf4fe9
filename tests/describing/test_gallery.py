"""descriptions view: one page that shows everything, trusts nothing and chooses the same images every time."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gpt4image.describing.gallery
from browser import SCHEMES, act, fits
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.base.errors import ConfigError, StoreError
from gpt4image.config import ViewConfig
from gpt4image.data.dataset import NO_LABEL, Dataset
from gpt4image.describing.gallery import view
from loaded_sets import in_memory

PAPER = Prompt("paper", 1, "Describe this image in detail.", class_conditioned=False)
MODEL: dict[str, Any] = {"kind": "openai", "model": "m"}
REFUSAL = "I'm sorry, but I can't assist with that."
GOOD = "A black dog lies on the grass"


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def image_set(contents: list[bytes], keys: list[str] | None = None) -> Dataset:
    labels = [NO_LABEL, *(number % 2 for number in range(1, len(contents)))]
    return in_memory(contents, labels, classes=("cat", "big_dog"), **({"keys": tuple(keys)} if keys else {}))


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Forty different images."""
    forty = image_set([png(number) for number in range(40)])
    monkeypatch.setattr(gpt4image.describing.gallery, "load_dataset", lambda _spec: forty)
    return forty


def result(digest: str, text: str | None, **values: Any) -> Description:
    return Description(
        **{"digest": digest, "prompt": PAPER, "describer": MODEL, "created": 0.0, "text": text, **values}
    )


def page_of(folder: Path, rows: list[Description], **options: Any) -> str:
    with DescriptionStore(folder / "a.db", write=True) as store:
        store.add(rows)
    view(ViewConfig(**{"store": folder / "a.db", "data": "memory", "out": folder / "page.html", **options}))
    return (folder / "page.html").read_text(encoding="utf-8")


def keys_of(page: str) -> list[str]:
    return re.findall(r'<div class="key"><bdi>([^<]*)</bdi>', page)


def test_all_that_was_said_is_shown_with_what_is_known_about_it(tmp_path: Path, images: Dataset) -> None:
    told = Prompt("told", 3, "This is a {class_name}. Describe it.", class_conditioned=True)
    rows = [
        result(images.digests[1], GOOD, tokens_in=300, tokens_out=20, cost_usd=0.00012, latency_s=1.5),
        result(images.digests[1], "A dog on a", prompt=told, finish_reason="length", sample=1),
        result(images.digests[2], REFUSAL, error="refusal", describer={"name": "other"}),
        result(images.digests[3], None, error="HTTP 429"),
    ]
    page = page_of(tmp_path, rows)
    for shown in [
        GOOD,
        "big dog",
        "300 tokens in",
        "20 tokens out",
        "$0.00012",
        "1.5 s",
        "openai:m",
        "other",
        'title="cut off at the limit of tokens">truncated<',
        "sample 2",
        "This is a {class_name}. Describe it.",
        "version 3, class-conditioned",
        "Rejected: <bdi>refusal",
        "No answer: <bdi>HTTP 429",
        "I&#39;m sorry",
    ]:
        assert shown in page
    assert keys_of(page) == ["k2", "k3", "k1"]
    assert page.index("Rejected and failed</h2>") < page.index("Flawed</h2>")
    assert "Good</h2>" not in page
    assert page.count("data:image/webp;base64,") == 3


NASTY = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</style></p></article><iframe src='https://example.org'>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe\u202c \u2066x\x00\x1b[2J\u2028",
    "&lt;b&gt; &amp;",
]


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_from_outside_becomes_part_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nasty = image_set([png(number) for number in range(len(NASTY))], NASTY)
    object.__setattr__(nasty, "classes", (NASTY[0], NASTY[1]))
    monkeypatch.setattr(gpt4image.describing.gallery, "load_dataset", lambda _spec: nasty)
    rows = [
        result(
            digest,
            text,
            prompt=Prompt(text, 1, text, class_conditioned=False),
            describer={"name": text, text: text},
            finish_reason=text,
            error=error,
        )
        for digest, text in zip(nasty.digests, NASTY, strict=True)
        for error in (None, text)
    ]
    rows = [row if row.error is None else result(row.digest, None, error=row.error) for row in rows]
    page = page_of(tmp_path, rows, data=NASTY[0])
    reader = Reader()
    reader.feed(page)
    assert not reader.tags & {"script", "iframe", "object", "embed", "form", "base"}
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    links = [value for name, value in reader.attributes if name in ("src", "href")]
    assert all(re.match(r"data:(image/webp;base64,|,)|#[\w-]+$", link) for link in [link or "data:," for link in links])
    assert all(text in reader.text for text in NASTY[:5])
    assert NASTY[6] in reader.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u2028\x00\x1b]", page)
    assert "\\u202egnp.exe" in page
    assert "default-src 'none'" in page and "49" not in reader.text.split("{{ 7 * 7 }}")[1][:20]


def test_the_sample_is_seeded_and_what_is_wrong_has_a_place_in_it(tmp_path: Path, images: Dataset) -> None:
    rows = [result(digest, GOOD) for digest in images.digests[:30]]
    rows += [result(digest, f"The image shows {GOOD}") for digest in images.digests[30:36]]
    rows += [result(digest, REFUSAL, error="refusal") for digest in images.digests[36:]]
    page = page_of(tmp_path, rows, limit=12)
    number = [int(key[1:]) for key in keys_of(page)]
    assert len(set(number)) == 12
    assert [sum(low <= n < high for n in number) for low, high in [(36, 40), (30, 36), (0, 30)]] == [3, 3, 6]
    assert page_of(tmp_path, [], limit=12) == page
    assert len(keys_of(page_of(tmp_path, []))) == 40
    for limit in (1, 2, 3):
        assert len(keys_of(page_of(tmp_path, [], limit=limit))) == limit
    few_are_good = [result(digest, f"The image shows {GOOD}") for digest in images.digests[:20]]
    (tmp_path / "few").mkdir()
    page = page_of(tmp_path / "few", [*few_are_good, result(images.digests[20], GOOD)], limit=10)
    assert len(keys_of(page)) == 10 and "k20" in keys_of(page), "the flawed fill the page"


def test_equal_images_share_a_card_and_broken_ones_have_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = image_set([png(1), b"no image", png(1)])
    monkeypatch.setattr(gpt4image.describing.gallery, "load_dataset", lambda _spec: strange)
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add([result(digest, GOOD) for digest in strange.digests[:2]])
    outcome = view(ViewConfig(store=tmp_path / "a.db", data="memory", out=tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert keys_of(page) == ["k0", "k1"] and "and 1 equal image" in page and "no picture" in page
    assert [item.name for item in outcome.skipped] == ["k1"]
    assert outcome.summary["images_shown"] == 2


def test_one_flaw_one_prompt_or_only_texts(tmp_path: Path, images: Dataset) -> None:
    other = Prompt("other", 1, "Describe.", class_conditioned=False)
    rows = [
        result(images.digests[0], GOOD),
        result(images.digests[1], GOOD, finish_reason="length"),
        result(images.digests[2], REFUSAL, error="refusal"),
        result(images.digests[3], GOOD, prompt=other),
    ]
    assert keys_of(page_of(tmp_path, rows, flaw="truncated")) == ["k1"]
    assert keys_of(page_of(tmp_path, [], flaw="refusal")) == ["k2"]
    assert keys_of(page_of(tmp_path, [], prompt="other")) == ["k3"]
    page = page_of(tmp_path, [], data=None)
    assert sorted(keys_of(page)) == sorted(images.digests[:4]) and GOOD in page and "<img" not in page


def test_mistakes_say_what_to_do(tmp_path: Path, images: Dataset) -> None:
    with pytest.raises(StoreError, match="nothing in this store"):
        page_of(tmp_path, [])
    with pytest.raises(StoreError, match="descriptions check"):
        page_of(tmp_path, [result("ab" * 32, GOOD)])
    with pytest.raises(StoreError, match="Did you mean 'paper'"):
        page_of(tmp_path, [], prompt="papr")
    with pytest.raises(StoreError, match="no answer with the flaw loop"):
        page_of(tmp_path, [result(images.digests[0], GOOD)], flaw="loop")
    with pytest.raises(ConfigError, match="this is a folder"):
        page_of(tmp_path, [], out=tmp_path)
    assert not (tmp_path / "page.html").exists()


CHOOSE = """
  const choice = document.querySelector("#class"), seen = [...choice.options].map(option => {
    choice.value = option.value;
    const cards = [...document.querySelectorAll(".card")].filter(card => card.offsetParent !== null);
    const sections = [...document.querySelectorAll("section.shown")].filter(part => part.offsetParent !== null);
    return [option.textContent, cards.length, sections.length];
  });
  choice.focus();
  return {seen, focus: document.activeElement === choice};
"""


@pytest.mark.slow
def test_one_class_is_shown_alone_without_a_server_or_a_script(tmp_path: Path, images: Dataset) -> None:
    rows = [result(digest, GOOD) for digest in images.digests[:5]]
    page = page_of(tmp_path, [*rows, result(images.digests[5], REFUSAL, error="refusal")])
    assert "<script" not in page
    found, messages = act(page, CHOOSE, tmp_path)
    assert messages == [] and found["focus"]
    assert found["seen"] == [["all", 6, 2], ["big dog (3)", 3, 2], ["cat (2)", 2, 1], ["no label (1)", 1, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_fits_every_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    nasty = image_set([png(number) for number in range(len(NASTY))], ["k" * 200, *NASTY[1:]])
    object.__setattr__(nasty, "classes", (NASTY[0], "c" * 120))
    monkeypatch.setattr(gpt4image.describing.gallery, "load_dataset", lambda _spec: nasty)
    rows = [result(digest, text * 9, finish_reason=text) for digest, text in zip(nasty.digests, NASTY, strict=True)]
    fits(page_of(tmp_path, rows), tmp_path, scheme)
