"""Alignment inside timm's training script: its loader, mixup, task, moving average, optimiser and checkpoints."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import AugMixDataset, FastCollateMixup, create_dataset
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.task import load_task_ema_checkpoint, resume_task_checkpoint
from timm.utils import CheckpointSaver
from torch import nn

from examples.timm_alignment import AlignedTask, Targets, create_loader_with_texts
from gpt4image.base.errors import ConfigError, DataError, TableError
from gpt4image.data.file_source import file_digests
from gpt4image.own_loop.pairs import Texts
from tables import make_table

# timm's ImageDataset leaves closing the files that it opens to Python.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

WIDTH, CLASSES = 8, 3


@pytest.fixture
def texts(colour_folder, tmp_path) -> Texts:
    """A text for two of three pictures of each colour."""
    rng = np.random.default_rng(0)
    files = sorted(colour_folder.rglob("*.png"))
    digests = file_digests([str(file) for file in files])
    vectors = rng.standard_normal((len(files), WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    described = {digest: [vector] for i, (digest, vector) in enumerate(zip(digests, vectors, strict=True)) if i % 3}
    return Texts(make_table(tmp_path / "table", described))


def loader(texts: Texts, folder: Path, **options):
    dataset = create_dataset("", root=str(folder), split="train", is_training=True)
    wrapped = AugMixDataset(dataset, options["num_aug_splits"]) if "num_aug_splits" in options else dataset
    defaults = {"input_size": (3, 16, 16), "batch_size": 16, "is_training": True, "no_aug": True, "num_workers": 0}
    device = torch.device("cpu")
    return create_loader_with_texts(texts, wrapped, device=device, **(defaults | options)), dataset


def task_of(texts: Texts | SimpleNamespace, name: str = "test_resnet", **options) -> AlignedTask:
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 8} if "vit" in name else {}
    model = timm.create_model(name, num_classes=CLASSES, **size)
    options = {"criterion": LabelSmoothingCrossEntropy(), "verbose": False} | options
    return AlignedTask(model, text_width=texts.width, **options)


def colour_of(images: torch.Tensor) -> torch.Tensor:
    """Return (B, 3), the mean colour of normalised pictures."""
    return images.mean((2, 3))


def test_the_text_of_an_image_is_its_own_and_not_that_of_its_neighbour(texts, colour_folder):
    names = create_dataset("", root=str(colour_folder), split="train").filenames(absolute=True)
    for number, name in enumerate(names):  # each picture now says its number
        Image.new("RGB", (16, 16), (number, 0, 0)).save(name)
    Path(names[7]).write_bytes(b"no picture")
    digests = file_digests(names)
    own = np.eye(48)
    table = make_table(texts.table.path.parent / "own", {digest: [own[i]] for i, digest in enumerate(digests)})
    batches, _ = loader(Texts(table), colour_folder, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    for images, targets in batches:
        assert isinstance(targets, Targets) and (targets.soft, targets.mixing) == (None, None)
        numbers = images[:, 0, 0, 0].round().long()
        assert 7 not in numbers  # timm takes the next picture for one that is broken: so must the text
        assert targets.text.argmax(1).tolist() == numbers.tolist()


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_texts_are_mixed_as_timm_mixes_images(texts, colour_folder, mode):
    np.random.seed(3)
    mixup = FastCollateMixup(mixup_alpha=1.0, mode=mode, label_smoothing=0.1, num_classes=CLASSES)
    batches, _ = loader(texts, colour_folder, collate_fn=mixup, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    pure = torch.tensor([[40.0, 60.0, 220.0], [40.0, 190.0, 60.0], [220.0, 50.0, 40.0]])
    mixed = 0
    for images, targets in batches:
        torch.testing.assert_close(targets.mixing.sum(1), torch.ones(16))
        one_hot = nn.functional.one_hot(targets.classes, CLASSES).float()
        torch.testing.assert_close(targets.soft, targets.mixing @ one_hot * 0.9 + 0.1 / CLASSES)
        torch.testing.assert_close(colour_of(images), targets.mixing @ pure[targets.classes], atol=12.0, rtol=0)
        mixed += int((targets.mixing.diagonal() < 0.99).sum())
    assert mixed > 10


def test_the_optimiser_treats_the_backbone_as_if_it_were_alone(texts):
    task = task_of(texts, "test_vit")
    module = task.get_trainable_module()
    for options in ({}, {"layer_decay": 0.5}):
        alone, whole = (
            create_optimizer_v2(part, opt="adamw", lr=0.1, weight_decay=0.2, **options)
            for part in (module.backbone, module)
        )
        groups = ([(group, p) for group in one.param_groups for p in group["params"]] for one in (alone, whole))
        settings = [{id(p): (g["weight_decay"], g.get("lr_scale")) for g, p in one} for one in groups]
        assert settings[0].items() <= settings[1].items()
        assert settings[1][id(module.head.weight)] == (0.2, 1.0 if options else None)
    assert set(task.get_clip_parameters()) == set(module.parameters())
    left_out = set(module.parameters()) - set(task.get_clip_parameters(exclude_head=True))
    assert left_out == set(module.backbone.head.parameters())


def test_a_checkpoint_holds_the_plain_backbone_and_resumes_with_the_head(texts, tmp_path):
    def new(seed: int) -> tuple[AlignedTask, torch.optim.Optimizer]:
        task = task_of(texts)
        task.setup_ema(decay=0.5)
        torch.manual_seed(seed)
        for parameter in task.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
        return task, torch.optim.AdamW(task.get_trainable_module().parameters(), lr=0.1)

    task, optimizer = new(1)
    saver = CheckpointSaver(
        task.get_eval_model(),
        optimizer,
        args=argparse.Namespace(model="test_resnet"),
        checkpoint_dir=tmp_path,
        task=task,
    )
    saver.save_checkpoint(0, metric=1.0)
    file = tmp_path / "last.pth.tar"
    with torch.serialization.safe_globals([argparse.Namespace]):
        saved = torch.load(file, weights_only=True)
    plain = timm.create_model("test_resnet", num_classes=CLASSES, checkpoint_path=str(tmp_path / "model_best.pth.tar"))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain.eval()(images), task.get_eval_model(ema=True).eval()(images))  # timm prefers it
    plain.load_state_dict(saved["state_dict"], strict=True)
    torch.testing.assert_close(plain(images), task.get_eval_model().eval()(images))
    assert saved["task_state"].keys() == {"head"}

    other, optimizer = new(2)
    assert resume_task_checkpoint(other, file, optimizer, log_info=False) == 1
    load_task_ema_checkpoint(other, file)
    for ema in (False, True):
        states = [one.get_trainable_module(ema=ema).state_dict() for one in (task, other)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_cannot_be_joined_is_refused(texts, colour_folder, tmp_path):
    with pytest.raises(ConfigError, match="leave --no-prefetcher out"):
        loader(texts, colour_folder, use_prefetcher=False)
    with pytest.raises(ConfigError, match="--mixup-mode half"):
        loader(texts, colour_folder, collate_fn=FastCollateMixup(mode="half"))
    with pytest.raises(DataError, match="TensorDataset gives no files"):
        numbers = torch.utils.data.TensorDataset(torch.zeros(4))
        create_loader_with_texts(texts, numbers, (3, 16, 16), 2, is_training=True)
    with pytest.raises(DataError, match="2 keys for 48 images"):
        loader(texts, colour_folder, keys=["a", "b"])
    foreign = Texts(make_table(tmp_path / "foreign", {"ab" * 32: [np.eye(WIDTH)[0]]}))
    with pytest.raises(TableError, match="None of the 48 images has a text"):
        loader(foreign, colour_folder)
