"""The engine ray on a real cluster of two workers: same results as locally, workers that die, faults that stop all."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpt4image.artifacts.answers import PROMPTS
from gpt4image.artifacts.store import DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.base.errors import ConfigError, DescriberError, MissingExtraError, RunError
from gpt4image.base.interrupts import Interrupt
from gpt4image.config import DescribeConfig, EncodeConfig
from gpt4image.data import load_dataset
from gpt4image.data.dataset import Dataset
from gpt4image.describing.asking import Asking, Budget, Missing
from gpt4image.describing.describers.base import Answer
from gpt4image.describing.describers.ray import RayDescriber
from gpt4image.describing.describers.registry import load_describer
from gpt4image.encoding.encode import encode
from gpt4image.encoding.text_encoders.bag_of_words import BagOfWordsEncoder
from gpt4image.parallel import ray_cluster
from gpt4image.parallel.ray_cluster import Workers, require_ray
from openai_stub import Call, Reply, answer, failure, serve
from tables import write_store

KEY = "sk-only-in-the-environment"
# Ray leaves sockets and log files of its processes to the garbage collector, and warns about its own next versions.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all tests; its processes have the key in their environment, as those of a real one would."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("RAY_worker_niceness", "0")  # workers of the default, 15, wait for all other tests
        require_ray()
        import ray

        warnings.simplefilter("ignore")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    yield
    ray.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    """41 small pictures in a folder, all different."""
    folder = tmp_path / "photos" / "class"
    folder.mkdir(parents=True)
    for number in range(41):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number:02}.png")
    return load_dataset(f"folder:{folder.parent}")


@pytest.fixture
def replay_file(tmp_path: Path, photos: Dataset) -> Path:
    """Descriptions of all pictures but one."""
    file = tmp_path / "texts.jsonl"
    rows = [{"key": key, "description": f"picture {key}"} for key in photos.keys[1:]]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def config_of(describer: str, **options: Any) -> DescribeConfig:
    return DescribeConfig(data="-", store=Path("-"), describer=describer, engine="ray", **{"workers": 2, **options})


def ask(describer: Any, images: Dataset) -> Iterator[Sequence[Answer]]:
    wanted = set(images.digests)
    asking = Asking(images, [Missing(PROMPTS["paper"], wanted, wanted)])
    return describer.describe(asking.requests(Budget(limit=None, max_cost=None, price=None, max_tokens=1), Interrupt()))


def answered(answers: Iterator[Sequence[Answer]]) -> dict[tuple[str, int], dict[str, Any]]:
    """The answers about each image, without what differs from run to run."""
    return {one.request.digest: {**vars(one), "request": None, "latency_s": None} for group in answers for one in group}


@pytest.mark.usefixtures("cluster")
def test_replayed_answers_are_those_of_the_engine_local(photos: Dataset, replay_file: Path) -> None:
    config = config_of(f"replay:{replay_file}", batch_size=4)
    describer = RayDescriber(config, photos)
    local = load_describer(config)
    assert describer.settings == local.settings
    expected = answered(ask(local, photos))
    assert len(expected) == 41
    for _ in range(2):  # a later round finds the workers ready
        assert answered(ask(describer, photos)) == expected
    assert describer.report(photos).facts == {**local.report(photos).facts, "workers": 2}
    with pytest.raises(ConfigError, match="--workers 3: each takes a CPU, and the Ray cluster has 2"):
        list(ask(RayDescriber(config_of(f"replay:{replay_file}", workers=3), photos), photos))


@pytest.mark.usefixtures("cluster")
def test_a_mistake_on_a_worker_stops_the_run_with_its_message(photos: Dataset, replay_file: Path) -> None:
    describer = RayDescriber(config_of(f"replay:{replay_file}", workers=1), photos)
    replay_file.unlink()  # the driver saw it, the workers do not: as where machines share no files
    with pytest.raises(DescriberError, match="there is no such file"):
        list(ask(describer, photos))


@pytest.mark.usefixtures("cluster")
def test_a_used_up_quota_stops_the_run_and_keeps_what_came(photos: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def until_the_tenth(call: Call) -> Reply:
        return answer("fine") if call.number < 10 else failure(429, "You exceeded your quota", "insufficient_quota")

    came = 0
    with serve(until_the_tenth) as stub:
        config = config_of("openai:tiny", base_url=stub.url, concurrency=4, batch_size=2, workers=1)
        describer = RayDescriber(config, photos)
        with pytest.raises(DescriberError, match="quota"):
            for group in ask(describer, photos):
                came += sum(one.text is not None for one in group)
        assert came + sum(one.text is not None for one in describer.arrived()) == 10
        assert len(stub.calls) <= 10 + 4


class Sleepy:
    """Work that says who did it; dies where the value says so."""

    def __call__(self, value: str) -> int:
        if value == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        return os.getpid()


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_is_killed_costs_only_tries_and_one_that_always_dies_ends_the_run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "MOST_TRIES", 2)
    workers = Workers(Sleepy, lambda _count: (), 1, gpu=False)
    try:
        (victim,) = workers.map(iter(["first"]), ordered=True)
        threading.Timer(0.4, os.kill, (victim, signal.SIGKILL)).start()
        found = list(workers.map(iter(["item"] * 4), ordered=False))
        assert len(found) == 4 and found[-1] != victim
        with pytest.raises(RunError, match="most often because memory ran out"):
            list(workers.map(iter(["poison"]), ordered=False))
        assert capfd.readouterr().out == ""  # it belongs to the JSON of the stage
    finally:
        workers.close()


@pytest.mark.parametrize("address", ["http://me:hunter2@localhost:1/v1", "http://localhost:1/v1?api-key=hunter2"])
def test_a_secret_in_an_address_is_not_sent_to_workers(address: str, photos: Dataset) -> None:
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL on every machine") as caught:
        RayDescriber(config_of("openai:tiny", base_url=address), photos)
    assert "hunter2" not in str(caught.value)


def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from gpt4image.parallel.ray_cluster import connect; connect()"]
    done = subprocess.run(
        command, env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}, capture_output=True, text=True, timeout=30
    )
    assert "RunError: --engine ray: there is no Ray cluster at RAY_ADDRESS=127.0.0.1:1 ([Errno 111]" in done.stderr


@pytest.mark.slow
def test_interrupted_it_keeps_what_came_prints_no_noise_and_leaves_no_process(photos: Dataset, tmp_path: Path) -> None:
    folder = photos.spec.removeprefix("folder:")
    with serve(lambda call: answer("a red square", delay=0.5)) as stub:
        command = [sys.executable, "-m", "gpt4image", "describe", "--data", f"folder:{folder}", "--engine", "ray"]
        options = ["--describer", "openai:tiny", "--base-url", stub.url, "--concurrency", "2", "--batch-size", "1"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment["RAY_worker_niceness"] = "0"
        process = subprocess.Popen(
            [*command, *options, "--workers", "1", "--json", "--store", str(tmp_path / "a.db")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while len(stub.calls) < 6:
            time.sleep(0.1)
            assert process.poll() is None
        children = descendants(process.pid)
        assert len(children) > 3
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (130, "")
        assert "Interrupted" in err and "Traceback" not in err
        until = time.monotonic() + 30
        while left := [pid for pid in children if Path(f"/proc/{pid}").exists()]:
            assert time.monotonic() < until, left
            time.sleep(0.1)
        with DescriptionStore(tmp_path / "a.db") as store:
            assert 6 <= sum(count for *_, count in store.counts()) == len(stub.calls) < 41


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # a process that ends meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs .*\[ray\]"):
        require_ray()


@pytest.mark.usefixtures("cluster")
def test_a_table_is_that_of_the_engine_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_path = tmp_path / "texts.db"
    words = ["a", "small", "brown", "bird", "with", "black", "wings", "on", "the", "branch", "of", "an", "old", "tree"]
    rng = np.random.default_rng(0)
    texts = (f"{number} " + " ".join(rng.choice(words, size=rng.integers(3, 40))) for number in range(300))
    write_store(store_path, ({"digest": f"{number:064x}", "text": text} for number, text in enumerate(texts)))
    monkeypatch.setattr(BagOfWordsEncoder, "max_tokens", 24)  # longer texts travel as chunks
    options: dict[str, Any] = {"store": store_path, "encoder": "bag-of-words:16", "batch_tokens": 512, "device": "cpu"}
    local, spread = tmp_path / "local", tmp_path / "ray"
    encode(EncodeConfig(out=local, **options))
    outcome = encode(EncodeConfig(out=spread, engine="ray", workers=1, **options))
    assert outcome.texts_encoded == 300
    for name in ("texts.npy", "digests.npy", "offsets.npy", "rows.npy"):
        assert (local / name).read_bytes() == (spread / name).read_bytes(), name
    one, other = EmbeddingTable.open(local), EmbeddingTable.open(spread)
    assert one.manifest == other.manifest and one.manifest.pooled
    np.testing.assert_allclose(np.asarray(one.embeddings), np.asarray(other.embeddings), atol=1e-3)
