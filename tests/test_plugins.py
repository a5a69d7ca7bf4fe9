"""Parts of other packages, by entry point: a package with a dist-info folder on sys.path is installed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpt4image.base import plugins
from gpt4image.base.errors import ConfigError, DataError
from gpt4image.cli import ITEMS_SKIPPED, OK, USER_MISTAKE, main
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
    with pytest.raises(DataError, match="the reader 'shelf' failed \\(KeyError: 'no such shelf'"):
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


def made_from(lines: str) -> str:
    """A describer class; ``lines`` are what differs from a good one."""
    good = "settings, price, repeatable = {'kind': 'odd'}, None, False\n    def arrived(self): return ()\n    "
    good += "def report(self, images): return Report()\n    "
    return f"class make:\n    def __init__(self, *_): pass\n    {good}{lines}"


BASE = "import os, subprocess, sys\nfrom gpt4image.describing.describers.base import Answer, Report\n"
BAD_TEXT = "class Odd(BaseException):\n    def __str__(self): raise ValueError\n"
ANSWERING = "def make(*_):\n    def answer(image, question): {}\n    return answer"
DESCRIBING = "def describe(self, requests):\n        "


@pytest.mark.parametrize(
    ("code", "rc"),
    [
        (ANSWERING.format("sys.exit(0)"), ITEMS_SKIPPED),
        (BAD_TEXT + ANSWERING.format("raise Odd"), ITEMS_SKIPPED),
        (ANSWERING.format("return {(1, 2): 3}"), ITEMS_SKIPPED),
        (ANSWERING.format("a = {}; a['a'] = a; return a").replace("{}", "dict()"), ITEMS_SKIPPED),
        (ANSWERING.format("return None"), ITEMS_SKIPPED),
        (ANSWERING.format("return 'a leaf ' * 200_000"), ITEMS_SKIPPED),
        (ANSWERING.format("print('x'); os.system('echo y'); print('z', file=sys.__stdout__); return 'A leaf.'"), OK),
        ("sys.exit(0)", USER_MISTAKE),
        ("print('x')\nnothing_of_that_name", USER_MISTAKE),
        (BAD_TEXT + "raise Odd", USER_MISTAKE),
        ("def make(*_): sys.exit(0)", USER_MISTAKE),
        ("def make(*_): raise RuntimeError('no licence')", USER_MISTAKE),
        ("def make(*_): return 3", USER_MISTAKE),
        (made_from("describe = 3"), USER_MISTAKE),
        (made_from(DESCRIBING + "return []"), USER_MISTAKE),
        (made_from(DESCRIBING + "[*requests]; return []"), ITEMS_SKIPPED),
        (made_from(DESCRIBING + "while True: yield []"), USER_MISTAKE),
        (made_from(DESCRIBING + "yield from ([3] for _ in requests)"), USER_MISTAKE),
        (made_from(DESCRIBING + "yield from ([Answer(request=one, text='A.')] * 2 for one in requests)"), USER_MISTAKE),
        (made_from(DESCRIBING + "yield from ([Answer(request=one, text=b'A.')] for one in requests)"), ITEMS_SKIPPED),
        (made_from(DESCRIBING + "next(requests); sys.exit(0)"), USER_MISTAKE),
        (made_from("price = 3"), USER_MISTAKE),
        (made_from("settings = {'kind': object()}"), USER_MISTAKE),
        (made_from("settings = property(lambda self: sys.exit(0))"), USER_MISTAKE),
        (
            made_from(DESCRIBING + "yield [Answer(request=next(requests), text='A.', tokens_in='9', cost_usd=-1e999)]"),
            OK,
        ),
    ],
)  # fmt: skip
def test_whatever_a_describer_of_others_does_is_told_by_its_name(
    site: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], code: str, rc: int
) -> None:
    name = f"odd{abs(hash(code))}"
    install(site, name, BASE + code, f"[gpt4image.describers]\n{name} = {name}:make\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "leaf.png")
    words = ["--data", str(tmp_path), "--store", str(tmp_path / "a.db"), "--describer", f"{name}:x", "--json"]
    assert main(["describe", *words]) == rc
    out, told = capfd.readouterr()
    assert "Traceback" not in told and len(out) + len(told) < 3000, "its texts are bounded"
    if rc == USER_MISTAKE:
        assert name in told and not out
    else:
        assert json.loads(out)["described"] == (rc == OK)


ENCODER = "class make:\n    spec, revision, precision, width, max_tokens = 'odd', '1', 'fp32', 4, 9\n"
ENCODER += "    def __init__(self, *_): pass\n    def token_lengths(self, texts): "


@pytest.mark.parametrize("kind", ["encoders", "readers"])
@pytest.mark.parametrize(
    "code",
    [
        "def make(*_): sys.exit(0)",
        "def make(*_): return 3",
        ENCODER + "return [1, 2, 3]\n",
        ENCODER + "return [1]\n    def encode(self, _): sys.exit(0)\n",
    ],
)  # fmt: skip
def test_whatever_an_encoder_or_reader_of_others_does_is_told_by_its_name(
    site: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], code: str, kind: str
) -> None:
    name = f"odd{abs(hash(code + kind))}"
    install(site, name, BASE + code, f"[gpt4image.{kind}]\n{name} = {name}:make\n")
    (tmp_path / "t.csv").write_text("key,description\na.png,A leaf.\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    data, store = f"{name}:x" if kind == "readers" else str(tmp_path), str(tmp_path / "a.db")
    given = ["--data", data, "--store", store, "--describer", f"replay:{tmp_path / 't.csv'}"]
    rc = main(["describe", *given])
    if kind == "encoders":
        rc = main(["encode", "--store", store, "--encoder", f"{name}:x", "--out", str(tmp_path / "e")])
    told = capfd.readouterr().err
    assert rc == USER_MISTAKE and "odd" in told and "Traceback" not in told and len(told) < 1000


def test_a_package_whose_entry_points_cannot_be_read_stops_nobody_else(
    leaves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(leaves, "torn", "", "[gpt4image.readers]\ntorn\n")
    install(leaves, "bytes", "", "")
    (leaves / "bytes-1.0.dist-info" / "entry_points.txt").write_bytes(b"[gpt4image.readers]\n\xff = \xfe")
    assert plugins.names("readers") == ["leaves"]
    monkeypatch.setattr(checkup, "_machine", lambda: {"cpu": "any"})
    states = checkup.doctor(DoctorConfig()).plugins
    assert states is not None and "BROKEN" in states["torn:"] and "BROKEN" in states["bytes:"]
    assert states["leaves:"].count("leaves 1.0") == len(plugins.KINDS)
