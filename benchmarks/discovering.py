"""How well the classes of `gpt4image discover` agree with human ones, on real descriptions.

    python benchmarks/discovering.py

CIFAR-10, OpenMoji, clothes and groceries, with as many clusters as there are classes and with as many as are chosen;
three seeds. Accuracy after one-to-one matching, accuracy where each cluster is given its most frequent class (what
merging can reach), homogeneity.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import homogeneity_score

from gpt4image.base.files import read_json_lines
from gpt4image.labelling.text_classifier import Texts
from gpt4image.reviewing.discover import find_clusters, propose_names, telling_words
from text_labels import DATA, corpus, encoded


def sets() -> Iterator[tuple[str, tuple[str, ...], list[str]]]:
    """Yield the name of a set, its descriptions, and the class of each."""
    for name in ("CIFAR-10", "OpenMoji"):
        found = corpus(name)
        yield name, found.descriptions, [found.classes[k] for k in found.labels]
    rows = read_json_lines(DATA / "clothes" / "answers.jsonl")
    label = {path.name: path.parent.name for path in (DATA / "clothes" / "train").glob("*/*")}
    yield "clothes", tuple(row["description"] for row in rows), [label[row["key"].split("/")[-1]] for row in rows]
    rows = [row for row in read_json_lines(DATA / "groceries" / "answers-boxes.jsonl") if row["boxes"]]
    yield "groceries", tuple(row["description"] for row in rows), [row["boxes"][0]["label"] for row in rows]


def agreement(cluster: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy after the best one-to-one matching, with the most frequent class of each cluster, homogeneity."""
    shared = np.zeros((cluster.max() + 1, labels.max() + 1))
    np.add.at(shared, (cluster, labels), 1)
    return {
        "accuracy": float(shared[linear_sum_assignment(-shared)].sum() / len(labels)),
        "accuracy_merged": float(shared.max(axis=1).sum() / len(labels)),
        "homogeneity": float(homogeneity_score(labels, cluster)),
    }


def main() -> None:
    for name, descriptions, labels in sets():
        classes, numbers = np.unique(labels, return_inverse=True)
        vectors, everything = encoded(descriptions, "minilm"), np.arange(len(labels))
        texts = Texts(vectors, np.ones(len(labels), bool))
        for count in (len(classes), None):
            found = [find_clusters(texts, everything, count, seed) for seed in range(3)]
            cluster = [one.probabilities.argmax(axis=1) for one in found]
            scores = [agreement(one, numbers) for one in cluster]
            means = {what: round(float(np.mean([score[what] for score in scores])), 3) for what in scores[0]}
            sizes = [one.probabilities.shape[1] for one in found]
            print(f"{name}: {len(classes)} classes, {sizes} clusters, {means}", flush=True)
        words = telling_words(descriptions, cluster[0], sizes[0])
        print(f"  {', '.join(propose_names(words))}", flush=True)


if __name__ == "__main__":
    main()
