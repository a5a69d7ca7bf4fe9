"""A text encoder that learns with the model: it starts as the table, resumes to the same bits, and is found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt4image.artifacts import runs
from gpt4image.artifacts.store import Description, DescriptionStore, Prompt
from gpt4image.artifacts.table import EmbeddingTable
from gpt4image.artifacts.weights import load_tensors
from gpt4image.base.errors import ConfigError, ModelError, TableError
from gpt4image.config import CompareConfig, EncodeConfig, TrainConfig
from gpt4image.config.alignment import WITH_NEGATIVES
from gpt4image.encoding.encode import encode
from gpt4image.encoding.text_encoders.registry import load_text_encoder
from gpt4image.encoding.text_encoders.tuning import FOLDER, WEIGHTS
from gpt4image.training.text_targets import TextTargets
from gpt4image.training.text_tower import TextReader, TextSource, TextTower
from gpt4image.training.train import train
from several_processes import COUNTS, SHARED, VIT, gradient, on_each_count
from small_training import options, resumed, same
from tiny_text_models import make_model

PAPER = Prompt("paper", 1, "Describe this image in detail.", False)
LONG = "the small red dog runs under the blue sky . a green tree sits . a small cat runs"
KINDS = ["a red dog runs .", "the blue sky", "a green tree sits under the sky ."]


@pytest.fixture
def described(colour_folder: Path, tmp_path: Path) -> Path:
    """A table of the colours: one image has two texts, one a long one, one none; some share a text."""
    files = sorted(colour_folder.rglob("*.png"))
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    texts = {digest: [f"{KINDS[number // 16]} {'zebra ' * (number % 5)}"] for number, digest in enumerate(digests[1:])}
    texts[digests[1]].append("a small cat")
    texts[digests[2]] = [LONG]
    with DescriptionStore(tmp_path / "a.db", write=True) as store:
        store.add(
            Description(digest=digest, prompt=PAPER, describer={"sample": number}, created=0, text=text)
            for digest, several in texts.items()
            for number, text in enumerate(several)
        )
    make_model(tmp_path / "bert", "bert", max_length=12)
    encode(EncodeConfig(store=tmp_path / "a.db", encoder=f"transformers:{tmp_path / 'bert'}", out=tmp_path / "t"))
    return tmp_path / "t"


def targets(table: EmbeddingTable) -> TextTargets:
    """Targets of all images of a table, and of one that has no text."""
    return TextTargets.of(table, [*(row.tobytes().hex() for row in table.digests), "0" * 64])


@pytest.mark.parametrize("how", ["lora", "full"])
def test_before_it_learns_it_gives_the_vectors_of_the_table(described: Path, how: Any) -> None:
    table = EmbeddingTable.open(described)
    assert table.manifest.pooled > 0
    text = targets(table)
    tower = TextTower(TextSource.of(table), how, 2, torch.device("cpu"))
    tower.train()
    images = np.random.default_rng(0).permutation(len(text.offsets) - 1)
    batch = TextReader(text, tower).take(images)
    found = tower(batch)
    expected, has, _ = text.take(images)
    assert not has.all()
    torch.testing.assert_close(found.detach(), expected, atol=0.02, rtol=0)
    assert len(batch.chunk_of_text) < len(images), "equal texts are read once"
    found.square().sum().backward()
    learns = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    assert learns and all(parameter.grad is not None for parameter in learns)


@pytest.mark.parametrize("kind", ["bert", "decoder"])
def test_a_batch_without_texts_gives_zeros_and_a_gradient_of_zero(described: Path, kind: str) -> None:
    if kind == "decoder":  # its tokenizer adds nothing to a text
        model = make_model(described.parent / "decoder", "llama", special=False)
        described = described.parent / "of-decoder"
        encode(EncodeConfig(store=described.parent / "a.db", encoder=f"transformers:{model}", out=described))
    text = targets(EmbeddingTable.open(described))
    tower = TextTower(TextSource.of(EmbeddingTable.open(described)), "full", 1, torch.device("cpu"))
    found = tower(TextReader(text, tower).take(np.array([len(text.offsets) - 2] * 3)))
    assert found.shape == (3, text.width) and not found.any()
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters() if parameter.requires_grad)


def test_texts_read_ahead_are_those_read_when_asked_for(described: Path) -> None:
    table = EmbeddingTable.open(described)
    towers = (TextTower(TextSource.of(table), "lora", 1, torch.device("cpu")) for _ in range(2))
    one, other = (TextReader(targets(table), tower) for tower in towers)
    for start in range(0, 40, 8):
        images = np.arange(start, start + 8)
        one.prepare(images + 8)
        ahead, asked = one.take(images), other.take(images)
        assert torch.equal(ahead.tokens["input_ids"], asked.tokens["input_ids"])
        assert torch.equal(ahead.text_of_image, asked.text_of_image)


def test_its_state_holds_what_learns_and_nothing_else(described: Path) -> None:
    source = TextSource.of(EmbeddingTable.open(described))
    one, other = (TextTower(source, "lora", 2, torch.device("cpu")) for _ in range(2))
    state = one.state_dict()
    assert set(state) == {f"tower.{name}" for name, p in one.tower.named_parameters() if p.requires_grad}
    other.load_state_dict(state)
    loaded = other.state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
    del state[next(iter(state))]
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state)


CASES: dict[str, dict[str, Any]] = {
    "lora": {"tune_text": "lora", "tune_text_rank": 2, "tune_text_lr": 0.1, "ema": 0.9},
    "full": {"tune_text": "full", "tune_text_lr": 0.001, "mixup": 0.5, "clip_grad": 1.0},
}


@pytest.mark.parametrize("case", CASES)
def test_runs_resume_to_the_same_bits_and_the_encoder_is_found_again(
    case: str, described: Path, colour_folder: Path, tmp_path: Path
) -> None:
    changes = {"embeddings": described, "epochs": 2, "optimizer": "sgd", "lr": 0.05, **CASES[case]}
    config = options(colour_folder, tmp_path / "whole", **changes)
    train(config)
    resumed(config, tmp_path / "broken", steps=5)
    assert same(tmp_path / "whole", tmp_path / "broken")
    ours, theirs = (load_tensors(tmp_path / name / FOLDER / WEIGHTS)[0] for name in ("whole", "broken"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    tuned = load_text_encoder(f"tuned:{tmp_path / 'whole'}", "cpu")
    frozen = load_text_encoder(EmbeddingTable.open(described).manifest.encoder, "cpu")
    cosines = (tuned.encode(KINDS) * frozen.encode(KINDS)).sum(axis=1)
    assert cosines.max() < 0.9999
    outcome = encode(
        EncodeConfig(store=tmp_path / "a.db", encoder=f"tuned:{tmp_path / 'whole'}", out=tmp_path / "again")
    )
    assert outcome.summary["encoder"].startswith("tuned:")


@pytest.mark.slow
def test_the_frozen_table_is_the_default_and_arms_with_made_up_vectors_keep_it(
    described: Path, colour_folder: Path, tmp_path: Path
) -> None:
    from gpt4image.comparing.compare import compare

    compare(
        CompareConfig(
            **options(colour_folder, tmp_path / "c", embeddings=described, epochs=1, tune_text="lora").model_dump(
                exclude=TrainConfig.model_fields.keys() - CompareConfig.model_fields.keys() | {"seed"}
            ),
            arms="aligned,class-name",
            seeds=1,
            jobs=1,
        )
    )
    found = [path.parent for path in (tmp_path / "c").rglob(runs.RUN)]
    folders = {run.parent.name.split("-all-labels")[0]: run for run in found}
    assert (folders["aligned"] / FOLDER / WEIGHTS).is_file()
    assert not any((folders[arm] / FOLDER).exists() for arm in ("baseline", "class-name"))


class DoubleTower(TextTower):
    """In float64, so that the order of sums does not show."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.double()


TUNED: dict[str, dict[str, Any]] = {
    "lora": {"tune_text": "lora"},
    **{loss: {"tune_text": "full", "align_loss": loss} for loss in WITH_NEGATIVES},
}


def tuned_gradients(count: int, options: dict[str, Any], out: Path) -> None:
    from gpt4image.parallel import processes
    from gpt4image.training import trainer
    from gpt4image.training.prepare import prepare

    trainer.TextTower = DoubleTower  # pyright: ignore[reportPrivateImportUsage]
    with processes.joined(torch.device("cpu")):
        config = TrainConfig(**options, **SHARED, **VIT, lr=0.01, weight_decay=0.0, out=out)
        data = prepare(config, ("train",)).data
        found = {name: gradient(config.model_copy(update=changes), data) for name, changes in TUNED.items()}
        if processes.rank() == 0:
            torch.save(found, out / f"{count}.pt")


@pytest.mark.slow
def test_the_gradient_does_not_depend_on_the_number_of_processes(
    described: Path, colour_folder: Path, tmp_path: Path
) -> None:
    options = {"data": f"folder:{colour_folder}", "embeddings": described, "mixup": 0.8, "tune_text_rank": 2}
    on_each_count(tuned_gradients, options, tmp_path)
    alone, *shared = (torch.load(tmp_path / f"{count}.pt") for count in COUNTS)
    for how in TUNED:
        learned = [name for name in alone[how] if name.startswith("texts.")]
        assert max(float(alone[how][name].abs().max()) for name in learned) > 1e-6
        for found in shared:
            assert found[how].keys() == alone[how].keys()
            for name, value in alone[how].items():
                torch.testing.assert_close(found[how][name], value, atol=1e-10, rtol=0, msg=f"{how} {name}")


def refused() -> Iterator[tuple[dict[str, Any], str]]:
    yield {"embeddings": None}, "needs --embeddings"
    yield {"align_weight": 0.0}, "give an --align-weight above 0"
    yield {"align_loss": "cosine"}, "nothing would keep the texts apart"
    yield {"centre": "all"}, "--centre is made for texts that stay as they are"
    yield {"paper_compat": True}, "--paper-compat is made for texts that stay"


@pytest.mark.parametrize(("changes", "message"), list(refused()))
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = {"data": "folder:x", "out": tmp_path, "embeddings": tmp_path / "t", "tune_text": "lora", **changes}
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


def test_tables_whose_texts_or_encoder_are_gone_are_refused(
    described: Path, colour_folder: Path, tmp_path: Path
) -> None:
    tuned = options(colour_folder, tmp_path / "run", embeddings=described, tune_text="lora")
    make_model(tmp_path / "bert", "bert", seed=1, max_length=12)
    with pytest.raises(TableError, match="another version of"):
        train(tuned)
    (tmp_path / "a.db").rename(tmp_path / "b.db")
    with pytest.raises(TableError, match=r"a\.db, the store .* is gone"):
        train(tuned)
    encode(EncodeConfig(store=tmp_path / "b.db", encoder="bag-of-words", out=tmp_path / "words"))
    with pytest.raises(ModelError, match="has nothing to learn"):
        train(options(colour_folder, tmp_path / "run", embeddings=tmp_path / "words", tune_text="lora"))
    assert not (tmp_path / "run").exists()
