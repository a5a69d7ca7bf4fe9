"""One card for all pages: what it says is escaped, what is missing is said, and a broken picture costs no other."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from gpt4image.data.dataset import Dataset, MemorySource
from gpt4image.data.known_sets import load_openmoji
from gpt4image.pages.cards import SHARE, Thumbnails, overlaid, thumbnail
from gpt4image.pages.page import render


def test_a_thumbnail_is_small_and_broken_pictures_are_set_aside_once() -> None:
    good = load_openmoji().read(0)
    with Image.open(io.BytesIO(base64.b64decode(thumbnail(good, 32).partition(",")[2]))) as image:
        assert image.format == "WEBP" and max(image.size) == 32
    images = Dataset(
        spec="memory", source=MemorySource([good, b"no picture"]), keys=("good", "bad"), classes=("a", "b"),
        labels=np.zeros(2, np.int64), splits=np.full(2, "train"), rows=np.arange(2),
    )  # fmt: skip
    pictures = Thumbnails(images)
    assert pictures.of(0) == thumbnail(good)
    assert pictures.of(1) is None and pictures.of(1) is None
    assert [item.name for item in pictures.skipped] == ["bad"]


def test_a_page_about_images_without_a_label_does_not_say_that_their_labels_are_right() -> None:
    facts = {"labelled": 0, "described": 0, "answered": 400, "images": 400, "noise": 0.0, "suspected": 0}
    classes = [("cat", 300, 0.9), ("dog", 100, 0.8)]
    page = render("label-page.html", data="x", sections=[], facts=facts, agreement=None, classes=classes, more=[])
    assert (
        "400 training images have a target. No label says how many are right" in page
        and "400 images, 0 described, 400 with an answer." in page
    )
    assert "share of wrong labels" not in page and "looks wrong" not in page


def test_the_background_stays_as_it_is_and_other_classes_are_tinted() -> None:
    picture = Image.new("RGB", (4, 2), (100, 100, 100))
    drawn = np.asarray(overlaid(picture, np.array([[0, 1]], np.uint8)))
    assert (drawn[:, :2] == 100).all()
    assert drawn[0, 3].tolist() == pytest.approx([100 + (128 - 100) * SHARE, *[100 * (1 - SHARE)] * 2], abs=1)
    assert not (np.asarray(overlaid(picture, np.array([[0, 1]], np.uint8), background=-1))[:, :2] == 100).any()


def test_values_are_escaped_and_invisible_text_is_shown_under_a_policy_that_forbids_scripts_and_the_network() -> None:
    page = render("base.html", title="<b>\"x\" & 'y'\ud800a\u202egnp\x1bb")
    assert r"&lt;b&gt;&#34;x&#34; &amp; &#39;y&#39;\ud800a\u202egnp\x1bb" in page
    assert "\u202e" not in page and "\x1b" not in page and page.encode("utf-8")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:;" in page
    assert "http://" not in page and "https://" not in page
