"""Alignment inside the Trainer of transformers: training, evaluation, checkpoints, and the plain model it saves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2
from transformers import (
    AutoModelForImageClassification,
    ResNetConfig,
    TimmWrapperConfig,
    Trainer,
    TrainingArguments,
    ViTConfig,
)

from examples.hf_alignment import AlignedClassifier, collate_described
from gpt4image.base.errors import ConfigError
from gpt4image.data import load_dataset
from gpt4image.own_loop.pairs import DescribedImages
from tables import make_table

WIDTH, CLASSES = 8, 3
VIT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "vit": ViTConfig(image_size=16, patch_size=4, num_labels=CLASSES, **VIT),
    "resnet": ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=CLASSES
    ),
    "timm": TimmWrapperConfig.from_dict({"architecture": "test_resnet", "num_classes": CLASSES}),
}
TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


@pytest.fixture
def pairs(colour_folder, tmp_path) -> DescribedImages:
    """Three colours, two thirds of the pictures described; the text of a picture says its colour."""
    images = load_dataset(f"folder:{colour_folder}")
    rng = np.random.default_rng(0)
    texts = np.eye(WIDTH)[images.labels] + 0.3 * rng.standard_normal((len(images), WIDTH))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    described = {images.digests[i]: [texts[i]] for i in range(len(images)) if i % 3}
    table = make_table(tmp_path / "table", described)
    return DescribedImages(images, table, split=None, transform=TO_TENSOR)


def plain_model(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return AutoModelForImageClassification.from_config(CONFIGS[name])


def trainer_of(model: nn.Module, pairs: DescribedImages, folder, **options) -> Trainer:
    settings = {"per_device_train_batch_size": 16, "learning_rate": 3e-3, "logging_steps": 1, "save_strategy": "epoch"}
    settings |= {"report_to": "none", "use_cpu": True, "dataloader_pin_memory": False, "disable_tqdm": True}
    arguments = TrainingArguments(output_dir=str(folder), **(settings | options))
    return Trainer(model, arguments, collate_described, train_dataset=pairs, eval_dataset=pairs)


def batch_of(pairs: DescribedImages, rows=range(16)) -> dict[str, torch.Tensor]:
    return collate_described([pairs[i] for i in rows])


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_is_the_sum_and_its_gradient_reaches_every_kind_of_backbone(pairs, name):
    model = AlignedClassifier(plain_model(name), WIDTH, align_weight=0.5, temperature=0.1)
    batch = batch_of(pairs)
    found = model(**batch)
    output, image_emb = model.aligner(batch["pixel_values"])
    align = model.aligner.alignment_loss(
        image_emb, batch["text"], described=batch["described"], text_ids=batch["text_ids"]
    )
    torch.testing.assert_close(found.logits, output.logits)
    torch.testing.assert_close(found.loss, F.cross_entropy(output.logits, batch["labels"]) + 0.5 * align)
    align.backward()
    first = next(model.aligner.backbone.parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_what_would_leave_the_texts_out_is_refused(pairs, tmp_path):
    model = AlignedClassifier(plain_model("vit"), WIDTH)
    with pytest.raises(ConfigError, match="label_smoothing_factor"):
        trainer_of(model, pairs, tmp_path, label_smoothing_factor=0.1, max_steps=1).train()
