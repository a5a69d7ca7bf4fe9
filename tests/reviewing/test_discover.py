"""The stage discover, with a person who names and merges clusters."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import homogeneity_score

import gpt4image
from gpt4image.artifacts.class_lists import class_list
from gpt4image.artifacts.targets import Targets
from gpt4image.base.errors import ConfigError, TableError
from gpt4image.base.files import write_text
from gpt4image.cli import main
from gpt4image.labelling.texts import Texts, unit
from gpt4image.reviewing import discover
from gpt4image.reviewing.discover import FEWEST, find_clusters, propose_names, telling_words
from gpt4image.reviewing.session import Session

KINDS = {"red": "All of it is red.", "blue": "Blue circles in water.", "green": "Some green leaves."}
PER_KIND = 8


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """Pictures of three kinds without a label, described and encoded; the last one without a description."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos" / "unlabelled"
    folder.mkdir(parents=True)
    lines = ["key,description\n"]
    for number in range(3 * PER_KIND + 1):
        kind = [*KINDS][number % 3]
        Image.new("RGB", (16 + number, 8), kind).save(folder / f"{number:02}-{kind}.png")
        lines += [f"unlabelled/{number:02}-{kind}.png,{KINDS[kind]}\n"] * (number < 3 * PER_KIND)
    write_text(tmp_path / "texts.csv", "".join(lines))
    main(["descriptions", "import", "texts.csv", "--store", "p.db", "--data", "photos"])
    gpt4image.encode(store="p.db", encoder="bag-of-words:64", out="p.emb")
    return {"data": "photos", "embeddings": "p.emb", "classes": 3}


def person(*says: tuple[str, str], stops: bool = False) -> Callable[..., None]:
    """Return what gives these labels and notes to clusters whose proposal begins with the first word of each."""

    def serve(sessions: Mapping[str, Session], _: int) -> None:
        session = sessions["label"]
        for what, name in says:
            cards = [card for card in session.cards("label", 9) if what in card.reason]
            session.mark({cards[0].id: (name, "checked" if name else "unsure")})
        if stops:
            raise KeyboardInterrupt

    return serve


def classes(out: str = "discovered") -> list[str]:
    return [option.name for option in class_list(f"{out}/classes.txt")]


def test_a_person_names_and_merges_and_goes_on_after_a_stop(
    photos: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "serve", person(("red", "warm"), stops=True))
    with pytest.raises(KeyboardInterrupt) as stopped:
        gpt4image.discover(**photos)
    assert stopped.value.args[0].named == 1 and "warm" in classes() and len(classes()) == 3
    monkeypatch.setattr(discover, "serve", person(("green", "cold"), ("blue", "cold")))
    found = gpt4image.discover(**photos)
    assert (found.images, found.clusters, found.classes, found.named) == (24, 3, 2, 3)
    assert sorted(classes()) == ["cold", "warm"]
    targets = Targets.load(found.path / "targets.parquet")
    said = {key: targets.classes[k] for key, k in zip(targets.keys, targets.probabilities.argmax(axis=1), strict=True)}
    assert said == {key: "warm" if "red" in key else "cold" for key in targets.keys} and len(said) == 24
    assert {row["class"]: row["images"] for row in found.rows} == {"cold": 16, "warm": 8}
    assert len(list(found.path.glob("clusters/*.webp"))) == 3


def test_an_unsure_cluster_is_no_class(photos: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "serve", person(("red", "")))
    found = gpt4image.discover(**photos)
    assert (found.classes, found.unsure) == (2, 1) and "red" not in classes()
    assert not any("red" in key for key in Targets.load(found.path / "targets.parquet").keys)
    monkeypatch.setattr(discover, "serve", person(("blue", ""), ("green", "")))
    with pytest.raises(ConfigError, match="every cluster is unsure"):
        gpt4image.discover(**photos)


def test_other_clusters_need_another_folder(photos: Mapping[str, Any], tmp_path: Path) -> None:
    gpt4image.discover(**photos, page=False)
    with pytest.raises(ConfigError, match="discovered holds 3 clusters; give another --out"):
        gpt4image.discover(**{**photos, "classes": 2}, page=False)
    (tmp_path / "photos" / "unlabelled" / "00-red.png").unlink()
    with pytest.raises(ConfigError, match="discovered holds clusters of other descriptions"):
        gpt4image.discover(**photos, page=False)
    (tmp_path / "p.db").rename(tmp_path / "moved.db")
    with pytest.raises(TableError, match=r"p\.db has no description of p\.emb; name the store with --store"):
        gpt4image.discover(**photos, out="new", page=False)
    assert gpt4image.discover(**photos, out="new", store="moved.db", page=False).classes == 3


PLANTED = ("horse", "truck", "frog", "ship")
PER_PLANTED = 40


def planted(seed: int = 0) -> tuple[Texts, np.ndarray]:
    """Return texts of four kinds that differ within each kind, too."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(len(PLANTED)), PER_PLANTED)
    vectors = rng.normal(0, 0.1, (len(kind), 48))
    vectors[:, 0] += rng.normal(0, 0.8, len(kind))  # such as a colour
    vectors[np.arange(len(kind)), 1 + kind] += 2.0
    return Texts(unit(vectors), np.ones(len(kind), bool)), kind


def test_planted_classes_are_found_and_counted() -> None:
    texts, kind = planted()
    texts.described[::20] = False
    shaping = np.arange(1, len(kind), 2)
    found = find_clusters(texts, shaping, len(PLANTED), 0)
    assert found.probabilities[~texts.described].sum() == 0
    there = texts.described
    assert homogeneity_score(found.probabilities[there].argmax(axis=1), kind[there]) == pytest.approx(1)
    assert homogeneity_score(kind[there], found.probabilities[there].argmax(axis=1)) == pytest.approx(1)
    assert np.allclose(found.probabilities[texts.described].sum(axis=1), 1, atol=1e-5)
    chosen = find_clusters(texts, shaping, None, 0)
    cluster = chosen.probabilities[there].argmax(axis=1)
    assert chosen.silhouette > 0.3 and homogeneity_score(kind[there], cluster) == pytest.approx(1)


def test_too_few_descriptions_are_refused() -> None:
    texts, kind = planted()
    with pytest.raises(TableError, match="9 images have a description; clusters need at least 10"):
        find_clusters(texts, np.arange(9), None, 0)
    with pytest.raises(ConfigError, match=r"--classes 33: 160 descriptions are too few"):
        find_clusters(texts, np.arange(len(kind)), len(kind) // FEWEST + 1, 0)


def test_each_cluster_gets_a_telling_name_of_its_own() -> None:
    texts = [
        "A brown horse stands on grass.",
        "White horse, green grass.",
        "A frog sits on grass.",
        "Frog toad on grass.",
    ]
    words = telling_words(texts, np.array([0, 0, 1, 1]), 3)
    assert [own[:1] for own in words] == [["horse"], ["frog"], []] and all("grass" not in own[:2] for own in words)
    assert not any("horse" in word for word in words[0][1:]), "one word once"
    assert propose_names(words) == ["horse", "frog", "class 3"]
    assert propose_names([["tee", "shirt"], ["tee", "print"]]) == ["tee", "print"]
    assert telling_words(["?", "!"], np.array([0, 1]), 2) == [[], []]
