"""Time and memory of every stage against the number of images.

    .venv/bin/python benchmarks/scale.py --out scale.json 1000 10000 100000

Pictures of 8 x 8 pixels lie in Parquet files. A describer is replayed from a file, or a server on this machine answers.
Each stage runs in a process of its own, which says how many seconds of processor time it took, its workers included,
and its largest memory. Processor time depends less on what else the machine does than that of a clock. What --out has
already is not run again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from PIL import Image

import gpt4image
from describe_servers import serving

PER_SHARD = 10_000
SPLIT_FILES = {"train": "train", "val": "validation", "test": "test"}
PER_CLASS, LABELLED = 20, 4
"""Images that follow each other and have the same class, and how many of them have a label. The first is a test image,
the second one is for validation."""
MODEL: dict[str, Any] = {"model": "resnet10t", "model_args": {"channels": [8, 8, 8, 8], "stem_width": 8}}
TRAINING: dict[str, Any] = {**MODEL, "image_size": 16, "epochs": 1, "batch_size": 256, "device": "cpu", "workers": 1}
REPEATS = 2_000
"""Files of `predict` that differ; the others are names of the same ones."""


class Place(NamedTuple):
    """Where the files of one size lie, how many images and classes there are, and the address of a server."""

    folder: Path
    images: int
    classes: int
    wide: int
    server: str

    @property
    def data(self) -> str:
        """SPEC of the shards."""
        return f"hf:{self.folder}/shards"

    @property
    def names(self) -> str:
        """File of the class names."""
        return str(self.folder / "classes.txt")


def picture(number: int) -> bytes:
    """Return a PNG of 8 x 8 pixels; no two are alike."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(256, size=(8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def samples(images: int, classes: int, per_class: int = PER_CLASS) -> Iterator[tuple[int, str, int]]:
    """Yield number, split and class of every image."""
    for number in range(images):
        split = {0: "test", 1: "val"}.get(number % per_class, "train")
        yield number, split, number // per_class % classes


def write_shards(folder: Path, images: int, classes: int, labelled: int, per_class: int = PER_CLASS) -> None:
    """Write the images as Parquet files by split; ``labelled`` of ``per_class`` have a label."""
    folder.mkdir(parents=True)
    names = datasets.ClassLabel(names=[f"thing {k}" for k in range(classes)])
    features = datasets.Features({"key": datasets.Value("string"), "image": datasets.Image(), "label": names})
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    written = dict.fromkeys(rows, 0)

    def write(split: str) -> None:
        if rows[split]:
            part = datasets.Dataset.from_list(rows[split], features=features)
            part.to_parquet(str(folder / f"{SPLIT_FILES[split]}-{written[split]:05}.parquet"))
            written[split] += 1
            rows[split].clear()

    for number, split, label in samples(images, classes, per_class):
        known = label if number % per_class < labelled else None
        image = {"bytes": picture(number), "path": None}
        rows[split].append({"key": f"{number:08}", "image": image, "label": known})
        if len(rows[split]) == PER_SHARD:
            write(split)
    for split in rows:
        write(split)


def make(place: Place) -> None:
    """Write the shards and the answers to replay."""
    write_shards(place.folder / "shards", place.images, place.classes, LABELLED)
    Path(place.names).write_text("".join(f"thing {k}\n" for k in range(place.classes)))
    rng = np.random.default_rng(0)
    with (place.folder / "answers.jsonl").open("w") as file:
        for number, _, label in samples(place.images, place.classes):
            said = label if rng.random() < 0.7 else int(rng.integers(place.classes))
            text = f"kind{label} group{label % 50} shade{int(rng.integers(40))} picture{number}"
            row = {"key": f"{number:08}", "description": text, "class": f"thing {said}", "confidence": 0.8}
            file.write(json.dumps(row) + "\n")


def make_files(place: Place) -> None:
    """Write the files to predict."""
    files = place.folder / "files"
    for number in range(place.images):
        target = files / f"{number // 1000:05}" / f"{number:08}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        if number < REPEATS:
            target.write_bytes(picture(number))
        else:
            os.link(files / f"{number % REPEATS // 1000:05}" / f"{number % REPEATS:08}.png", target)


def replayed(place: Place, store: str, **asked: Any) -> Any:
    """Ask the replayed describer."""
    describer = f"replay:{place.folder}/answers.jsonl"
    return gpt4image.describe(data=place.data, store=place.folder / store, describer=describer, **asked)


def asked(place: Place) -> Any:
    """Ask a server on this machine for descriptions."""
    os.environ["OPENAI_API_KEY"] = "sk-local"
    own: dict[str, Any] = {"describer": "openai:tiny", "base_url": place.server, "concurrency": 64}
    return gpt4image.describe(data=place.data, store=place.folder / "server.db", **own)


def label(place: Place) -> Any:
    """Fuse answers, descriptions and labels."""
    own: dict[str, Any] = {"embeddings": place.folder / "emb", "classes": place.names}
    return gpt4image.label(
        data=place.data, answers=place.folder / "answers.db", out=place.folder / "labels.parquet", **own
    )


def train(place: Place, data: str, out: str, **more: Any) -> Any:
    """Train one epoch, pixels read from the shards."""
    return gpt4image.train(data=data, out=place.folder / out, memory_limit_gb=0.001, **TRAINING, **more)


def wide_run(place: Place) -> Any:
    """Make a run of many classes; not measured."""
    write_shards(place.folder / "few", 3 * place.wide, place.wide, 3, per_class=3)
    return train(place, f"hf:{place.folder}/few", "wide")


def evaluate(place: Place) -> Any:
    """Measure the run of many classes on images of the test split."""
    if not (place.folder / "many").exists():
        write_shards(place.folder / "many", place.images, place.wide, PER_CLASS)
    return gpt4image.evaluate(run_dir=place.folder / "wide", data=f"hf:{place.folder}/many", split="train")


STAGES: dict[str, Callable[[Place], Any]] = {
    "describe, replayed": lambda place: replayed(place, "answers.db", ask="description,class", classes=place.names),
    "describe, texts replayed": lambda place: replayed(place, "texts.db"),
    "describe, server": asked,
    "encode": lambda place: gpt4image.encode(
        store=place.folder / "answers.db", encoder="bag-of-words:64", out=place.folder / "emb"
    ),
    "label": label,
    "train": lambda place: train(place, place.data, "run", targets=place.folder / "labels.parquet"),
    "predict": lambda place: gpt4image.predict(
        model=place.folder / "run", images=str(place.folder / "files"), out=place.folder / "predictions.csv", threads=1
    ),
    "evaluate": evaluate,
    "report": lambda place: gpt4image.report(dir=place.folder / "wide"),
}
SETUP: dict[str, Callable[[Place], Any]] = {"make": make, "files": make_files, "wide run": wide_run}


def work(name: str, place: Place) -> None:
    """Run one stage in this process and print what it took."""
    started = time.monotonic()
    ({**STAGES, **SETUP}[name])(place)
    own, workers = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = own.ru_utime + own.ru_stime + workers.ru_utime + workers.ru_stime
    found = {"seconds": round(seconds, 2), "wall_seconds": round(time.monotonic() - started, 2)}
    print(json.dumps({**found, "peak_mb": round(own.ru_maxrss / 1024, 1)}), file=sys.__stdout__)


def measured(name: str, place: Place) -> dict[str, float]:
    """Run one stage in a process of its own. Raises SystemExit: it failed."""
    command = [sys.executable, __file__, "--stage", name, "--place", json.dumps([str(place.folder), *place[1:]])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} of {place.images:,} images failed")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure the stages that are wanted at the sizes that are wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=int, default=[1_000, 10_000])
    parser.add_argument("--out", type=Path, default=Path("scale.json"))
    parser.add_argument("--folder", type=Path, help="for the files, which are deleted; a temporary one without it")
    parser.add_argument("--classes", type=int, default=2_000)
    parser.add_argument("--wide", type=int, default=10_000, help="classes of evaluate and report")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE")
    parser.add_argument("--keep", action="store_true", help="leave the files where they are")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--place", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        folder, *rest = json.loads(options.place)
        return work(options.stage, Place(Path(folder), *rest))
    found: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out.is_file() else []
    done = {(row["stage"], row["images"]) for row in found}
    for images in options.images:
        wanted = [name for name in options.only if (name, images) not in done]
        folder = Path(options.folder or tempfile.gettempdir()) / f"scale-{images}"
        with serving() as server:
            place = Place(folder, images, options.classes, options.wide, server.url)
            if wanted and not folder.exists():
                measured("make", place)
            for name in wanted:
                if name == "predict" and not (folder / "files").exists():
                    measured("files", place)
                if name in ("evaluate", "report") and not (folder / "wide").exists():
                    measured("wide run", place)
                facts = measured(name, place)
                classes = options.wide if name in ("evaluate", "report") else options.classes
                found.append({"stage": name, "images": images, "classes": classes, **facts})
                print(f"{name:20} {images:>9,} {facts['seconds']:9.1f} s {facts['peak_mb']:8.0f} MB", flush=True)
                options.out.write_text(json.dumps(found, indent=1) + "\n")
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return None


if __name__ == "__main__":
    main()
