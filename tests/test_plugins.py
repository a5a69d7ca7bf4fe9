"""Parts of other packages, by entry point: a package with a dist-info folder on sys.path is installed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.config import DescribeConfig, DoctorConfig
from gpt4image.data import load_dataset, load_with_splits
from gpt4image.describing.describe import describe
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.reporting import doctor as checkup

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def install(folder: Path, name: str, code: str, points: str) -> None:
    (folder / f"{name}.py").write_text(code)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def leaves(site: Path) -> Path:
    """The example package of the page, installed."""
    block = r"`([\w./-]+)`:\n(?:\n|<!--.*?-->\n)*```(?:python|toml)\n(.*?)^```$"
    files = dict(re.findall(block, PAGE.read_text(), re.M | re.S))
    groups = re.findall(r'\[project\.entry-points\."(gpt4image\.\w+)"\]\n(\w+) = "([\w:]+)"', files["pyproject.toml"])
    assert {group for group, _, _ in groups} == {f"gpt4image.{kind}" for kind in plugins.KINDS}
    points = "".join(f"[{group}]\n{name} = {what}\n" for group, name, what in groups)
    install(site, "leaves", files["leaves.py"], points)
    return site


def test_the_package_on_the_page_brings_a_describer_an_encoder_and_a_reader(leaves: Path, tmp_path: Path) -> None:
    herbarium = tmp_path / "herbarium"
    herbarium.mkdir()
    for number in range(12):
        leaf = Image.new("RGB", (8, 8), (20 * number, 100, 0))
        leaf.save(herbarium / f"{'oak' if number % 2 else 'ash'}-{number}.png")
    images = load_dataset(f"leaves:{herbarium}")
    assert images.classes == ("ash", "oak") and len(images) == 12 and images.spec == f"leaves:{herbarium}"
    store = tmp_path / "a.db"
    options = {"data": f"leaves:{herbarium}", "store": store, "ask": "description,class"}
    outcome = describe(DescribeConfig(describer="leaves:by-colour", splits="train,val,test", **options))  # type: ignore[arg-type]
    assert outcome.described == 12 and outcome.details["class_in_list"] == 12
    encoder = load_text_encoder("leaves:16")
    vectors = encoder.encode(["an oak leaf", "an ash leaf"])
    assert vectors.shape == (2, encoder.width) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert load_with_splits(f"leaves:{herbarium}", val_fraction=0.2, test_fraction=0.2).spec == f"leaves:{herbarium}"


def test_a_broken_package_is_named_and_stops_only_those_who_use_it(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = "[gpt4image.describers]\nworse = nothing_there:make\nbad = broken:make\n"
    install(site, "broken", "make = 3\ndef read(argument): raise KeyError('no such shelf')\n", points)
    install(site, "twice", "make = 3\n", "[gpt4image.encoders]\nminilm = twice:make\n")
    install(site, "shelf", "from broken import read\n", "[gpt4image.readers]\nshelf = shelf:read\n")
    for name, words in (
        ("worse", "broken 1.0, whose nothing_there:make cannot be imported"),
        ("bad", "is a int, no function"),
    ):
        options = DescribeConfig(data="folder:x", store=tmp_path / "a.db", describer=f"{name}:x")
        with pytest.raises(ConfigError, match=words):
            describe(options)
    with pytest.raises(ConfigError, match=r"Unknown describer: 'bat'.*bad"):
        describe(DescribeConfig(data="folder:x", store=tmp_path / "a.db", describer="bat:x"))
    with pytest.raises(DataError, match="the reader 'shelf' failed \\('no such shelf'"):
        load_dataset("shelf:1")
    assert load_text_encoder("minilm").spec == "minilm", "a part of gpt4image comes first"
    monkeypatch.setattr(checkup, "_machine", lambda: {"cpu": "any"})  # which tries a compiler
    result = checkup.doctor(DoctorConfig())
    assert result.plugins is not None and "BROKEN describer" in result.plugins["worse:"] and "shelf 1.0" in result.text


def test_two_packages_with_the_same_name_are_both_named(site: Path) -> None:
    for name in ("one", "two"):
        install(site, name, "def make(name, options): ...\n", f"[gpt4image.describers]\nsame = {name}:make\n")
    with pytest.raises(ConfigError, match=r"one 1.0 and two 1.0 both bring 'same'"):
        plugins.find("describers", "same")
