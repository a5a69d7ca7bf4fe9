"""Classes that descriptions suggest: planted clusters are found, counted and named."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import homogeneity_score

from gpt4image.base.errors import ConfigError, TableError
from gpt4image.labelling.discovery import FEWEST, find_clusters, propose_names, telling_words
from gpt4image.labelling.text_vectors import Texts, unit

KINDS = ("horse", "truck", "frog", "ship")
PER_KIND = 40


def planted(seed: int = 0) -> tuple[Texts, np.ndarray]:
    """Return texts of four kinds that differ within each kind, too."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(len(KINDS)), PER_KIND)
    vectors = rng.normal(0, 0.1, (len(kind), 48))
    vectors[:, 0] += rng.normal(0, 0.8, len(kind))  # such as a colour
    vectors[np.arange(len(kind)), 1 + kind] += 2.0
    return Texts(unit(vectors), np.ones(len(kind), bool)), kind


def test_planted_classes_are_found_and_counted() -> None:
    texts, kind = planted()
    texts.described[::20] = False
    shaping = np.arange(1, len(kind), 2)
    found = find_clusters(texts, shaping, len(KINDS), 0)
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
