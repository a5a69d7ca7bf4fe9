"""Search: what is asked for comes first, images are read once, and what cannot be searched says why."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import SCHEMES, fits
from gpt4image.artifacts import runs
from gpt4image.artifacts.store import Prompt
from gpt4image.base.errors import ConfigError, DataError, ModelError, RunError
from gpt4image.base.files import read_json, write_json
from gpt4image.base.outcome import Outcome
from gpt4image.config import EncodeConfig, SearchConfig
from gpt4image.data import pixels
from gpt4image.encoding.encode import encode
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.searching.search import search
from gpt4image.training.prepare import load_dataset
from gpt4image.training.run_model import load_run_model
from gpt4image.training.train import train
from small_training import options
from tables import write_store
from trained_runs import rewrite_config
from worlds import COLOURS, noisy, write_colours

PROMPTS = [Prompt("paper", 1, "Describe this image in detail.", False), Prompt("short", 1, "In three words?", False)]


def table_of(root: Path, out: Path, encoder: str, texts: Callable[[str], list[str]]) -> Path:
    """Describe the pictures of a folder, with as many prompts as there are texts, and encode what was written."""
    write_store(out.with_suffix(".db"), (
        {"digest": hashlib.sha256(file.read_bytes()).hexdigest(), "prompt": prompt, "text": text}
        for file in sorted(root.rglob("*.png"))
        for prompt, text in zip(PROMPTS, texts(file.parent.name), strict=False)
    ))  # fmt: skip
    encode(EncodeConfig(store=out.with_suffix(".db"), encoder=encoder, out=out))
    return out


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a run that learned their colours from two descriptions of each, and one that did not."""
    root = tmp_path_factory.mktemp("search")
    write_colours(root / "colours")
    table = table_of(
        root / "colours",
        root / "table",
        "bag-of-words:64",
        lambda name: [f"A plain {name} square with much noise.", f"{name}, {name}, {name}."],
    )
    train(options(root / "colours", root / "run", embeddings=table, epochs=10, lr=0.02))
    train(options(root / "colours", root / "plain", epochs=1))
    return root


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    for name in ("colours", "run"):
        shutil.copytree(trained / name, tmp_path / name, ignore=shutil.ignore_patterns("search"))
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes in bytes of the images of a set that were decoded."""
    sizes: list[int] = []
    decode = pixels.decode_square

    def counted(data: bytes, size: int, **options: Any) -> Any:
        sizes.append(len(data))
        return decode(data, size, **options)

    monkeypatch.setattr(pixels, "decode_square", counted)
    return sizes


def ask(root: Path, *texts: str, **changes: Any) -> Outcome:
    return search(SearchConfig(run_dir=root / "run", texts=texts, **{"data": f"folder:{root / 'colours'}", **changes}))


def keys(outcome: Outcome, query: int = 0) -> list[str]:
    return [result["key"] for result in outcome.queries[query]["results"]]


def test_each_text_finds_the_pictures_of_its_colour(trained: Path) -> None:
    found = ask(trained, "a red square", "something blue", top=16)
    assert {key.split("/")[0] for key in keys(found)} == {"red"}
    assert {key.split("/")[0] for key in keys(found, 1)} == {"blue"}
    first = found.queries[0]
    assert first["query"] == "a red square"
    similarities = [result["similarity"] for result in first["results"]]
    assert similarities == sorted(similarities, reverse=True) and similarities[0] > 0.2
    assert [result["rank"] for result in first["results"]] == list(range(1, 17))
    assert first["results"][0]["label"] == "red"
    assert "a red square" in found.text and re.search(r"^1 +0\.\d{3} +red/\d\d\.png +red$", found.text, re.MULTILINE)


def test_the_similarities_are_those_of_the_model_and_the_encoder(trained: Path) -> None:
    from gpt4image.training.prepare import prepare

    model = load_run_model(trained / "run", None, "abc")
    data = prepare(model.config).data
    images = model.embed(model.read(data.pixels, np.arange(len(data.image_set))).features)
    text = load_text_encoder("bag-of-words:64").encode(["a green square"])[0]
    expected = dict(zip(data.image_set.keys, (images @ text).tolist(), strict=True))
    results = ask(trained, "a green square", top=100).queries[0]["results"]
    assert len(results) == 48
    assert all(result["similarity"] == pytest.approx(expected[result["key"]], abs=2e-3) for result in results)


def test_a_second_query_reads_no_image(copied: Path, decoded: list[int]) -> None:
    first = ask(copied, "red")
    assert len(decoded) == first.indexed_now == 48
    assert Path(first.index).parent == copied / "run" / "search"
    decoded.clear()
    again = ask(copied, "red")
    assert decoded == [] and again.indexed_now == 0 and again.queries == first.queries
    part = ask(copied, "red", split="test", top=100)
    assert len(keys(part)) == part.images == len(decoded) == 9, "a part of the set is indexed alone"


def test_a_split_is_the_one_of_the_run_also_where_described_images_alone_are_trained_on(tmp_path: Path) -> None:
    folder = write_colours(tmp_path / "colours")
    texts: dict[str, list[str]] = {"blue": ["A blue square."], "green": ["A green one."], "red": []}
    table = table_of(folder, tmp_path / "table", "bag-of-words:64", texts.__getitem__)
    chosen = {"only_described": True, "val_fraction": 0.4, "epochs": 1}
    train(options(folder, tmp_path / "run", embeddings=table, **chosen))
    images, _ = load_dataset(load_run_model(tmp_path / "run", None, "abc").config)
    found = ask(tmp_path, "red", split="val", top=100)
    assert sorted(keys(found)) == sorted(images.keys[i] for i in images.indices("val"))


def test_what_cannot_be_searched_says_what_to_do(copied: Path, trained: Path, tmp_path: Path) -> None:
    data = f"folder:{copied / 'colours'}"
    with pytest.raises(ConfigError, match="Nothing is asked"):
        ask(copied)
    with pytest.raises(ConfigError, match="Nothing is asked"):
        ask(copied, "red", " ")
    with pytest.raises(RunError, match=r"no alignment.* train with --embeddings"):
        search(SearchConfig(run_dir=trained / "plain", texts=("red",), data=data))
    with pytest.raises(RunError, match="does not exist"):
        search(SearchConfig(run_dir=tmp_path / "none", texts=("red",), data=data))
    space = read_json(copied / "run" / "text_space.json")
    write_json(copied / "run" / "text_space.json", space | {"revision": "0123456789abcdef"})
    rewrite_config(copied / "run", read_json(copied / "run" / runs.CONFIG))
    with pytest.raises(ModelError, match=r"revision 0123456789ab.* bring back the files of the encoder"):
        ask(copied, "red")


def test_the_table_may_be_gone_and_another_set_be_searched(copied: Path, tmp_path: Path) -> None:
    config = read_json(copied / "run" / runs.CONFIG)
    rewrite_config(copied / "run", config | {"embeddings": str(tmp_path / "gone")})
    (tmp_path / "others" / "any").mkdir(parents=True)
    noisy((250, 20, 20), np.random.default_rng(1)).save(tmp_path / "others" / "any" / "a.png")
    noisy((20, 20, 250), np.random.default_rng(2)).save(tmp_path / "others" / "any" / "b.png")
    found = ask(copied, "red", "blue", data=f"folder:{tmp_path / 'others'}")
    assert (keys(found)[0], keys(found, 1)[0]) == ("any/a.png", "any/b.png")


def test_a_query_image_that_cannot_be_read_costs_no_other_query(trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would never end
    bad = (broken, tmp_path / "missing.jpg", tmp_path / "pipe.png")
    found = ask(trained, "red", image=bad)
    assert [item.name for item in found.skipped] == list(map(str, bad)) and len(found.queries) == 1
    with pytest.raises(DataError, match=r"broken\.jpg: not an image.* nothing else to look for"):
        ask(trained, image=(broken,))


def test_the_page_shows_what_was_found_and_acts_on_no_text(copied: Path, decoded: list[int]) -> None:
    ask(copied, "red")
    strange = copied / "colours" / "red" / "<img src=x onerror=alert(1)>.png"
    noisy(COLOURS["red"], np.random.default_rng(9)).save(strange)
    page = copied / "found.html"
    query = "red <script>alert(1)</script>"
    found = ask(copied, query, image=(copied / "colours" / "blue" / "00.png",), top=20, html=page)
    assert found.path == page and strange.name in {key.split("/")[1] for key in keys(found)}
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "<img src=x" not in text
    assert "red &lt;script&gt;" in text and "&lt;img src=x onerror" in text
    pictures = re.findall(r'src="(data:image/webp;base64,[^"]+)"', text)
    assert len(pictures) == 41, "twenty of each query, and the picture that was asked for"
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    for scheme in SCHEMES:
        fits(text, copied, scheme)
