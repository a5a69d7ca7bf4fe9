"""Measures besides the metrics of the task: of real runs, each number recomputed by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt4image.config import TrainConfig
from gpt4image.data import load_dataset
from gpt4image.encoding.class_names import ClassNames
from gpt4image.evaluating import evaluate as measures
from gpt4image.evaluating.evaluate import measure_more, measure_run, recalls
from gpt4image.training.prepare import prepare
from gpt4image.training.run_model import load_run_model
from gpt4image.training.train import train
from gpt4image.training.training_data import TrainingData
from tables import make_table
from worlds import write_colours

NAMES = ClassNames(vectors=np.eye(8, dtype=np.float32)[:3], missing="")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingData]:
    """A run that learned colours and their texts."""
    root, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    write_colours(root / "colours", side=32)
    images = load_dataset(f"folder:{root / 'colours'}")
    vectors = np.eye(8)[images.labels] + rng.normal(0, 0.05, (len(images), 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    make_table(root / "table", {digest: [vectors[i]] for i, digest in enumerate(images.digests)})
    config = TrainConfig(
        data=f"folder:{root / 'colours'}", embeddings=root / "table", out=root / "run", model="resnet10t",
        model_args={"channels": [8, 8, 8, 8], "stem_width": 8}, image_size=32, batch_size=8, epochs=12, lr=0.01,
        align_weight=1.0, precision="fp32", memory_format="contiguous",
    )  # fmt: skip
    train(config)
    return root / "run", prepare(config).data


def test_the_text_space_is_measured_and_what_was_known_is_kept(run: tuple[Path, TrainingData]) -> None:
    folder, data = run
    facts = measure_run(folder, data, "test", names=NAMES)
    found, model = facts["metrics"], load_run_model(folder, None, "abc")
    embedded = model.embed(model.read(data.pixels, data.indices("test")).features)
    assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)
    assert found["zero_shot"] > 0.6 and found["image_to_text_recall:5"] >= found["image_to_text_recall:1"]
    assert measure_run(folder, data, "test", names=NAMES) == facts, "what was measured before is kept"


def test_what_cannot_be_measured_is_absent_and_says_why(run: tuple[Path, TrainingData]) -> None:
    folder, data = run
    assert data.text is not None
    model = load_run_model(folder, None, "abc")
    outputs = model.read(data.pixels, data.indices("test"))
    train, val = data.indices("train"), data.indices("val")
    held_back = replace(data, text=data.text.of_others(train, train))
    none = measure_more(model, held_back, "test", outputs, ClassNames(missing="no encoder"))
    assert none.metrics == {} and none.absent["zero_shot"] == "no encoder"
    assert "no two images of test or val have different descriptions" in none.absent["retrieval"]
    most = np.concatenate([val, data.indices("test")[:1]])  # a text that is alone is always found
    found = measure_more(model, replace(data, text=data.text.of_others(most, most)), "test", outputs, NAMES)
    assert "text_to_image_recall:1" in found.metrics and not found.absent
    tuned = measure_more(replace(model, foreign_texts="it learned with the model"), data, "test", outputs, NAMES)
    assert tuned.metrics == {} and "it learned with the model" in tuned.absent["retrieval"]


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), texts=st.integers(1, 40), chunk=st.integers(1, 50), seed=st.integers(0, 999))
def test_recalls_are_those_of_a_plain_loop(n: int, texts: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, texts, n)
    images, of_text = unit(rng, n, 6), unit(rng, texts, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "CHUNK", chunk)
        found = recalls(images, of_text[ids], ids)
    directions = {"image_to_text_recall": (images, of_text[ids]), "text_to_image_recall": (of_text[ids], images)}
    for name, (queries, answers) in directions.items():
        for k in (1, 5, 10):
            hits = []
            for i in range(n):
                scores = queries[i] @ answers.T
                best = max(scores[j] for j in range(n) if ids[j] == ids[i])
                hits.append(sum(scores[j] >= best for j in range(n) if ids[j] != ids[i]) < k)
            assert (f"{name}:{k}" in found) == (k <= n)
            if k <= n:
                assert found[f"{name}:{k}"] == pytest.approx(np.mean(hits))
