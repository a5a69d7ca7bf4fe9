"""How well a model says "none of these": far strangers, near ones (a class left out), and good images that are refused.

    python benchmarks/strangers.py --data ../shared/data --out strangers
    python benchmarks/strangers.py --data ../shared/data --out strangers --runs run-frozen run-tuned

Features are those of a frozen body; training images have the class that a multimodal LLM answered, and no human label.
A left-out class is no class of the model. "with answers": the training images of which the LLM answers this class are
those that it would call none of these. The border of the nearest neighbours is what `train` sets; of the other methods
it is taken from the test images themselves, which flatters them. ``runs`` are runs on clothes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from command_line import parsed
from gpt4image.base.files import write_json
from gpt4image.data.known_sets import load_openmoji
from gpt4image.deploying.loading import load_classifier
from gpt4image.deploying.preprocessing import as_images
from gpt4image.models.neighbours import Neighbours
from pretrained_weights import features

Floats = NDArray[np.floating[Any]]
SHARE, KEPT, FEWEST = 0.02, 1000, 8
SIDE = {"cifar10": 96}
TRAIN = {"clothes": 1200, "cifar10": 1200, "openmoji": 900}
Pictures = dict[str, bytes]


@dataclass(frozen=True)
class Strangers:
    data: Path
    """Folder of the shared data."""
    out: Path
    """Folder of features and results."""
    seeds: int = 5
    rivals: int = 1
    """Seeds in which other methods are measured too."""
    sets: tuple[str, ...] = ("clothes", "openmoji", "cifar10")
    runs: tuple[Path, ...] = ()


class Images(NamedTuple):
    """Features, the true class and the answered one ("" for none), as arrays."""

    features: Floats
    truth: NDArray[np.str_]
    answer: NDArray[np.str_]


def pictures(data: Path) -> dict[str, Callable[[], tuple[Pictures, dict[str, str]]]]:
    """Return what reads the pictures of each set by key, and the true class of each."""

    def clothes() -> tuple[Pictures, dict[str, str]]:
        paths = sorted((data / "clothes").rglob("*.jpg"))
        names = [path.relative_to(data / "clothes").as_posix() for path in paths]
        return {n: p.read_bytes() for n, p in zip(names, paths, strict=True)}, {n: n.split("/")[1] for n in names}

    def cifar10() -> tuple[Pictures, dict[str, str]]:
        described = set(answers(data / "cifar10" / "answers-class.jsonl"))
        train, test = (pq.read_table(data / f"cifar10/images/{split}.parquet") for split in ("train", "test"))
        rows = [row for row in train.to_pylist() if row["key"] in described]
        rows += [{**row, "key": f"test/{row['key']}"} for row in test.to_pylist()[::2] + test.to_pylist()[1::4]]
        return {r["key"]: r["image"]["bytes"] for r in rows}, {r["key"]: r["key"].split("/")[-2] for r in rows}

    def openmoji() -> tuple[Pictures, dict[str, str]]:
        images = load_openmoji()
        truth = {key: images.classes[label] for key, label in zip(images.keys, images.labels, strict=True)}
        return {key: images.read(row) for row, key in enumerate(images.keys)}, truth

    def of(found: Iterator[bytes]) -> tuple[Pictures, dict[str, str]]:
        return {str(number): data for number, data in enumerate(found)}, {}

    def listed(folder: Path, pattern: str) -> Iterator[bytes]:
        return (path.read_bytes() for path in sorted(folder.glob(pattern)))

    return {
        "clothes": clothes,
        "cifar10": cifar10,
        "openmoji": openmoji,
        "groceries": lambda: of(listed(data / "groceries/images/test", "*.jpg")),
        "people": lambda: of(listed(data / "clothing/images/test", "*")),
        "noise": lambda: of(_png(_noise(seed)) for seed in range(100)),
        "blank": lambda: of(_png(np.full((160, 160, 3), _rng(seed).integers(0, 256, 3))) for seed in range(60)),
        "textures": lambda: of(_png(_texture(seed)) for seed in range(120)),
    }


FAR = {
    "clothes": ("groceries", "textures", "noise", "blank", "openmoji", "people"),
    "cifar10": ("groceries", "textures", "noise", "blank", "openmoji"),
    "openmoji": ("groceries", "textures", "noise", "blank", "clothes"),
}


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _noise(seed: int) -> Floats:
    return _rng(seed).integers(0, 256, (160, 160, 3))


def _texture(seed: int) -> Floats:
    """Return stripes, squares, waves or clouds in two colours."""
    rng, (y, x) = _rng(seed), np.mgrid[:160, :160]
    often, angle = rng.uniform(0.02, 0.3), rng.uniform(0, np.pi)
    across = np.sin(2 * np.pi * often * (np.cos(angle) * x + np.sin(angle) * y))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(160), np.fft.fftfreq(160))) + 1e-3
    clouds = np.fft.ifft2(np.fft.fft2(rng.normal(size=(160, 160))) / frequency ** rng.uniform(0.8, 2)).real
    squares = ((x * often).astype(int) + (y * often).astype(int)) % 2
    clouds = (clouds - clouds.min()) / np.ptp(clouds)
    mixed = (across > 0, squares, (across + 1) / 2, clouds)[seed % 4][..., None]
    return mixed * rng.integers(0, 256, 3) + (1 - mixed) * rng.integers(0, 256, 3)


def _png(pixels: Floats) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def answers(path: Path) -> dict[str, str]:
    return {row["key"]: row["class"] for row in map(json.loads, path.read_text("utf-8").splitlines()) if row["class"]}


def images(options: Strangers, name: str, side: int) -> Images:
    """Return a set, its features computed once."""
    path = options.out / f"{name}-{side}.npz"
    if not path.is_file():
        own, truth = pictures(options.data)[name]()
        found = features(list(own.values()), "pretrained", side)
        said = {"clothes": "answers.jsonl"}.get(name, "answers-class.jsonl")
        file = options.data / name / said
        answered = answers(file) if truth else {}
        columns = [np.array([table.get(key, "") for key in own]) for table in (truth, answered)]
        np.savez(path, features=found, truth=columns[0], answer=columns[1])
    with np.load(path) as file:
        return Images(file["features"], file["truth"], file["answer"])


def baselines(train: Floats, labels: NDArray[np.str_]) -> dict[str, Callable[[Floats], Floats]]:
    """Return how strange images are by each method that is compared."""
    mean, spread = train.mean(0), train.std(0) + 1e-6
    linear = LogisticRegression(max_iter=200, C=0.05).fit((train - mean) / spread, labels)

    def logits(some: Floats) -> Floats:
        return linear.decision_function((some - mean) / spread)

    names, number = np.unique(labels, return_inverse=True)
    centres = np.stack([train[number == k].mean(0) for k in range(len(names))])
    within, whole = (np.linalg.inv(ledoit_wolf(part)[0]) for part in (train - centres[number], train - mean))

    def mahalanobis(some: Floats) -> Floats:
        def to(centre: Floats, inverse: Floats) -> Floats:
            return (((some - centre) @ inverse) * (some - centre)).sum(1)

        return np.min([to(centre, within) for centre in centres], axis=0) - to(mean, whole)

    def distance(some: Floats) -> Floats:
        unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (some, train[:KEPT])]
        return 1 - np.sort(unit[0] @ unit[1].T, axis=1)[:, -10:].mean(1)

    def scaled(values: Callable[[Floats], Floats], some: Floats) -> Floats:
        own = values(train)
        return (values(some) - own.mean()) / own.std()

    def largest(some: Floats) -> Floats:
        return -logits(some).max(1)

    return {
        "largest probability": lambda some: -linear.predict_proba((some - mean) / spread).max(1),
        "largest logit": largest,
        "energy": lambda some: -np.logaddexp.reduce(logits(some), axis=1),
        "relative Mahalanobis": mahalanobis,
        "neighbours": distance,
        "neighbours + largest logit": lambda some: scaled(distance, some) + scaled(largest, some),
    }


def measured(good: Floats, strange: Floats, border: float | None = None) -> dict[str, float]:
    """Return AUROC, the share of strangers that are caught, and the share of good images that are refused."""
    border = float(np.quantile(good, 1 - SHARE)) if border is None else border
    truth = np.r_[np.zeros(len(good)), np.ones(len(strange))]
    auroc = float(roc_auc_score(truth, np.r_[good, strange]))
    return {"auroc": auroc, "caught": float((strange > border).mean()), "refused": float((good > border).mean())}


def draw(options: Strangers, name: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each method and each kind of stranger."""
    side, rng = SIDE.get(name, 160), _rng(seed)
    own = images(options, name, side)
    order = rng.permutation(np.flatnonzero(own.answer != ""))
    train = order[: TRAIN[name]]
    test = np.setdiff1d(np.arange(len(own.truth)), order if len(order) < len(own.truth) else train)
    far = {kind: images(options, kind, side).features for kind in FAR[name]}
    left_out = [c for c in np.unique(own.truth) if (own.truth[test] == c).sum() >= FEWEST]
    for without in [None, *left_out]:
        learned = train[own.answer[train] != without]
        x, strangers = own.features[learned], own.features[train[own.answer[train] == without]]
        good = own.features[test[own.truth[test] != without]]
        kinds = far if without is None else {f"near: {without}": own.features[test[own.truth[test] == without]]}
        methods = baselines(x, own.answer[learned]) if seed < options.rivals else {}
        own_border = {"none of these": Neighbours.of(torch.from_numpy(x), torch.zeros(0, x.shape[1]), KEPT)}
        if len(strangers):
            own_border["none of these, with answers"] = Neighbours.of(*map(torch.from_numpy, (x, strangers)), KEPT)
        for kind, strange in kinds.items():
            row = {"set": name, "seed": seed, "strangers": kind, "answers": len(strangers), "test": len(good)}
            for method, of in methods.items():
                yield {**row, "method": method, **measured(of(good), of(strange))}
            for method, known in own_border.items():
                shares = [1 - known(torch.from_numpy(some)).numpy() for some in (good, strange)]
                yield {**row, "method": method, **measured(*shares, border=1 - SHARE)}


def of_run(options: Strangers, path: Path) -> Iterator[dict[str, Any]]:
    """Yield how often a run refuses test photographs of clothes, and catches strangers."""
    model, read = load_classifier(path), pictures(options.data)

    def known(some: Pictures) -> Floats:
        batches = np.array_split(np.array(list(some.values()), object), max(1, len(some) // 32))
        pixels = (np.stack([model.preprocessing.pixels(each) for each in batch]) for batch in batches)
        return np.concatenate([model.read(as_images(batch))[1] for batch in pixels])

    good = known({key: each for key, each in read["clothes"]()[0].items() if key.startswith("test/")})
    for kind in FAR["clothes"]:
        strange = known(read[kind]()[0])
        yield {"run": path.name, "strangers": kind, "test": len(good), **measured(1 - good, 1 - strange, 1 - SHARE)}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the means over seeds with their 95 % intervals; near strangers are the mean over the classes."""
    for row in rows:
        row["kind"] = row["strangers"].partition(":")[0]
    for name, kind, method in dict.fromkeys((row["set"], row["kind"], row["method"]) for row in rows):
        found = [row for row in rows if (row["set"], row["kind"], row["method"]) == (name, kind, method)]
        cells = []
        for column in ("auroc", "caught", "refused"):
            values = [np.mean([r[column] for r in found if r["seed"] == s]) for s in {r["seed"] for r in found}]
            if len(values) == 1:
                cells.append(f"{values[0]:.3f}")
                continue
            half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
            cells.append(f"{np.mean(values):.3f} ± {half:.3f}")
        yield " | ".join([name, kind, method, *cells])


def main(options: Strangers) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in options.sets if not options.runs else ():
        for seed in range(options.seeds):
            rows += draw(options, name, seed)
        write_json(options.out / "strangers.json", rows)
    print("\n".join(table(rows)))
    found = [row for path in options.runs for row in of_run(options, path)]
    for row in found:
        print(" | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    if found:
        write_json(options.out / "runs.json", found)


if __name__ == "__main__":
    main(parsed(Strangers))
