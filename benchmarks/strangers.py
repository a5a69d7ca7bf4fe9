"""How well a model says "none of these": far strangers, near ones (a class left out), and good images that are refused.

    python benchmarks/strangers.py --data ../shared/data --out strangers
    python benchmarks/strangers.py --data ../shared/data --out strangers --runs run-frozen run-tuned

Features are those of a frozen body; training images have the class that a multimodal LLM answered, and no human label.
A left-out class is no class of the model. "with answers": the training images of which the LLM answers this class are
those that it would call none of these. ``runs`` are runs on clothes. Commit c1e5204a measured other methods too.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score

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
Pictures = tuple[dict[str, bytes], dict[str, str]]
"""Pictures by key, and the true class of each."""


class Images(NamedTuple):
    """Features, the true class and the answered one ("" for none), as arrays."""

    features: Floats
    truth: NDArray[np.str_]
    answer: NDArray[np.str_]


def clothes(data: Path) -> Pictures:
    paths = {path.relative_to(data / "clothes").as_posix(): path for path in sorted((data / "clothes").rglob("*.jpg"))}
    return {name: path.read_bytes() for name, path in paths.items()}, {name: name.split("/")[1] for name in paths}


def cifar10(data: Path) -> Pictures:
    described = set(answers(data / "cifar10" / "answers-class.jsonl"))
    train, test = (pq.read_table(data / f"cifar10/images/{split}.parquet").to_pylist() for split in ("train", "test"))
    rows = [row for row in train if row["key"] in described]
    rows += [{**row, "key": f"test/{row['key']}"} for row in test[::2] + test[1::4]]
    return {r["key"]: r["image"]["bytes"] for r in rows}, {r["key"]: r["key"].split("/")[-2] for r in rows}


def openmoji(_: Path) -> Pictures:
    images = load_openmoji()
    truth = {key: images.classes[label] for key, label in zip(images.keys, images.labels, strict=True)}
    return {key: images.read(row) for row, key in enumerate(images.keys)}, truth


def strange(found: Iterable[bytes]) -> Pictures:
    return {str(number): data for number, data in enumerate(found)}, {}


def files(folder: Path) -> Pictures:
    return strange(path.read_bytes() for path in sorted(folder.iterdir()))


PICTURES: dict[str, Callable[[Path], Pictures]] = {
    "clothes": clothes,
    "cifar10": cifar10,
    "openmoji": openmoji,
    "groceries": lambda data: files(data / "groceries/images/test"),
    "people": lambda data: files(data / "clothing/images/test"),
    "noise": lambda _: strange(_png(_rng(seed).integers(0, 256, (160, 160, 3))) for seed in range(100)),
    "blank": lambda _: strange(_png(np.full((160, 160, 3), _rng(seed).integers(0, 256, 3))) for seed in range(60)),
    "textures": lambda _: strange(_png(_texture(seed)) for seed in range(120)),
}
FAR = {
    "clothes": ("groceries", "textures", "noise", "blank", "openmoji", "people"),
    "cifar10": ("groceries", "textures", "noise", "blank", "openmoji"),
    "openmoji": ("groceries", "textures", "noise", "blank", "clothes"),
}


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


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


def images(options: argparse.Namespace, name: str, side: int) -> Images:
    """Return a set, its features computed once."""
    path = options.out / f"{name}-{side}.npz"
    if not path.is_file():
        own, truth = PICTURES[name](options.data)
        file = options.data / name / ("answers.jsonl" if name == "clothes" else "answers-class.jsonl")
        columns = [np.array([by_key.get(key, "") for key in own]) for by_key in (truth, answers(file) if truth else {})]
        found = features(list(own.values()), "pretrained", side)
        np.savez(path, features=found, truth=columns[0], answer=columns[1])
    with np.load(path) as file:
        return Images(file["features"], file["truth"], file["answer"])


def measured(known_good: Floats, known_strange: Floats) -> dict[str, float]:
    """Return AUROC, the share of strangers that are caught, and the share of good images that are refused."""
    truth = np.r_[np.zeros(len(known_good)), np.ones(len(known_strange))]
    auroc = float(roc_auc_score(truth, -np.r_[known_good, known_strange]))
    return {
        "auroc": auroc,
        "caught": float((known_strange < SHARE).mean()),
        "refused": float((known_good < SHARE).mean()),
    }


def draw(options: argparse.Namespace, name: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each method and each kind of stranger."""
    side = SIDE.get(name, 160)
    own = images(options, name, side)
    order = _rng(seed).permutation(np.flatnonzero(own.answer != ""))
    train = order[: TRAIN[name]]
    test = np.setdiff1d(np.arange(len(own.truth)), order if len(order) < len(own.truth) else train)
    far = {kind: images(options, kind, side).features for kind in FAR[name]}
    left_out = [c for c in np.unique(own.truth) if (own.truth[test] == c).sum() >= FEWEST]
    for without in [None, *left_out]:
        x = torch.from_numpy(own.features[train[own.answer[train] != without]])
        answered = torch.from_numpy(own.features[train[own.answer[train] == without]])
        good = torch.from_numpy(own.features[test[own.truth[test] != without]])
        kinds = far if without is None else {f"near: {without}": own.features[test[own.truth[test] == without]]}
        methods = {"none of these": Neighbours.of(x, torch.zeros(0, x.shape[1]), KEPT)}
        if len(answered):
            methods["none of these, with answers"] = Neighbours.of(x, answered, KEPT)
        for kind, others in kinds.items():
            row = {"set": name, "seed": seed, "strangers": kind, "answers": len(answered), "test": len(good)}
            for method, known in methods.items():
                shares = (known(some).numpy() for some in (good, torch.from_numpy(others)))
                yield {**row, "method": method, **measured(*shares)}


def of_run(data: Path, path: Path) -> Iterator[dict[str, Any]]:
    """Yield how often a run refuses test photographs of clothes, and catches strangers."""
    model = load_classifier(path)

    def known(some: list[bytes]) -> Floats:
        batches = np.array_split(np.array(some, object), max(1, len(some) // 32))
        pixels = (np.stack([model.preprocessing.pixels(each) for each in batch]) for batch in batches)
        return np.concatenate([model.read(as_images(batch))[1] for batch in pixels])

    good = known([each for key, each in clothes(data)[0].items() if key.startswith("test/")])
    for kind in FAR["clothes"]:
        found = known(list(PICTURES[kind](data)[0].values()))
        yield {"run": path.name, "strangers": kind, "test": len(good), **measured(good, found)}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of features and results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="*", default=["clothes", "openmoji", "cifar10"])
    parser.add_argument("--runs", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.runs:
        found = [row for path in options.runs for row in of_run(options.data, path)]
        print("\n".join(" | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in r.values()) for r in found))
        write_json(options.out / "runs.json", found)
        return
    rows = [row for name in options.sets for seed in range(options.seeds) for row in draw(options, name, seed)]
    write_json(options.out / "strangers.json", rows)
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
