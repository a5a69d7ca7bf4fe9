"""The aligner around backbones of every common family."""

import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.config.learning import PAPER_LOSSES
from gpt4image.models.aligner import Aligner, projection_head
from gpt4image.models.alignment_losses import LOSSES
from models.small_models import CLASSES, images, small_resnet

WIDTH = 24


class OwnNetwork(nn.Module):
    """A user's model: convolution, pooling, classifier, and an auxiliary layer declared last."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, stride=4)
        self.classify = nn.Linear(8, CLASSES)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.body(x).relu().mean((2, 3)))


def timm_model(name: str, **args) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES, **args)


TIMM_BACKBONES = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2},
    "convnext_atto": {},
    "resnetv2_18": {},  # its classifier is a 1x1 convolution on (B, C, 1, 1)
    "test_vit": {"img_size": 32},  # average of tokens instead of CLS
}
TORCHVISION_BACKBONES = {"resnet18": ("fc", 512), "mobilenet_v3_small": ("classifier.3", 1024)}


class TestAligner:
    @pytest.mark.parametrize("name", TIMM_BACKBONES)
    def test_feature_of_a_timm_model_is_its_pooled_feature(self, name):
        backbone = timm_model(name, **TIMM_BACKBONES[name]).eval()
        model = Aligner(backbone, WIDTH).eval()
        logits, image_emb = model(images())
        pooled = backbone.forward_head(backbone.forward_features(images()), pre_logits=True)
        torch.testing.assert_close(logits, backbone(images()))
        torch.testing.assert_close(image_emb, model.head(pooled.flatten(1)))
        assert image_emb.shape == (2, WIDTH)

    @pytest.mark.parametrize("name", TORCHVISION_BACKBONES)
    def test_torchvision_models(self, name):
        layer, width = TORCHVISION_BACKBONES[name]
        backbone = torchvision.models.get_model(name, num_classes=CLASSES)
        model = Aligner(backbone, WIDTH).eval()
        assert model.classifier == layer
        assert model.head.weight.shape == (WIDTH, width)
        with torch.no_grad():
            logits, image_emb = model(images(64, count=1))
        assert logits.shape == (1, CLASSES)
        assert image_emb.shape == (1, WIDTH)

    def test_feature_is_the_mean_over_places_of_what_a_named_classifier_reads(self):
        own, squeeze = OwnNetwork(), torchvision.models.squeezenet1_1(num_classes=CLASSES).eval()
        tokens = nn.Sequential(nn.Flatten(2), nn.Linear(1024, 6), nn.Linear(6, CLASSES))  # (B, 3, 1024) -> (B, 3, K)
        for backbone, classifier, batch, feature in (
            (own, "classify", images(), lambda x: own.body(x).relu().mean((2, 3))),
            (squeeze, "classifier.1", images(64), lambda x: squeeze.features(x).mean((2, 3))),
            (tokens, None, images(), lambda x: tokens[:2](x).mean(1)),
        ):
            model = Aligner(backbone, WIDTH, classifier=classifier).eval()
            logits, image_emb = model(batch)
            torch.testing.assert_close(logits, backbone(batch))
            torch.testing.assert_close(image_emb, model.head(feature(batch)))

    def test_classifiers_that_cannot_be_used(self):
        with pytest.raises(ModelError, match="no classifier that can be found"):
            Aligner(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()), WIDTH)
        with pytest.raises(ModelError, match="no classifier that can be found"):
            Aligner(timm.create_model("test_resnet", num_classes=0), WIDTH)
        with pytest.raises(ModelError, match=r"no such layer: classifier 'clasify'.*'classify'"):
            Aligner(OwnNetwork(), WIDTH, classifier="clasify")
        with pytest.raises(ModelError, match=r"no such layer: classifier 'bn1'"):
            Aligner(torchvision.models.resnet18(), WIDTH, classifier="bn1")
        with pytest.raises(ModelError, match="'unused' did not run"):
            Aligner(OwnNetwork(), WIDTH)(images())

    def test_what_is_not_known_or_not_of_the_paper_is_refused(self):
        for wrong, message in (
            ({"loss": "infonse"}, r"loss 'infonse'.*Did you mean 'infonce'"),
            ({"head": "mpl"}, r"head 'mpl'.*Did you mean 'mlp'"),
            ({"loss": "siglip", "paper_compat": True}, "The official code of the paper"),
        ):
            with pytest.raises(ConfigError, match=message):
                Aligner(OwnNetwork(), WIDTH, classifier="classify", **wrong)

    def test_release_gives_the_backbone_back_without_the_hook(self):
        backbone = torchvision.models.resnet18(num_classes=CLASSES)
        model = Aligner(backbone, WIDTH)
        assert copy.deepcopy(model).release() is not backbone
        assert backbone.fc._forward_pre_hooks
        assert model.release() is backbone
        assert not any(module._forward_pre_hooks for module in backbone.modules())

    def test_threads_that_share_a_batch_are_refused(self):
        replica = Aligner(small_resnet(), WIDTH)._replicate_for_data_parallel()  # as nn.DataParallel makes them
        with pytest.raises(ModelError, match="torchrun --nproc-per-node"):
            replica(images())

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_compiles_to_one_graph(self):
        model = Aligner(small_resnet(), WIDTH).eval()
        expected = model(images())
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        for mine, theirs in zip(compiled(images()), expected, strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("kind", "layers", "parameters"),
    [
        ("linear", ["Linear"], 8 * 6),
        ("mlp", ["Linear", "ReLU", "Linear"], (8 + 1) * 12 + (12 + 1) * 6),
        ("mlp-bn", ["Linear", "BatchNorm1d", "ReLU", "Linear"], 8 * 12 + 2 * 12 + (12 + 1) * 6),
    ],
)
def test_projection_heads_are_the_papers(kind, layers, parameters):
    head = projection_head(kind, 8, 6)
    children = list(head.children()) or [head]
    assert [type(child).__name__ for child in children] == layers
    assert sum(parameter.numel() for parameter in head.parameters()) == parameters
    assert head(torch.randn(3, 8)).shape == (3, 6)


@pytest.mark.parametrize(("kind", "deviation"), [("linear", 1 / 32), ("mlp", 0.02), ("mlp-bn", 1 / 32)])
def test_heads_start_as_in_the_official_code_where_asked(kind, deviation):
    torch.manual_seed(0)
    head = Aligner(small_resnet(), 512, head=kind, paper_compat=True).head
    layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
    other = Aligner(small_resnet(), 512, head=kind).head
    assert [p.shape for p in other.parameters()] == [p.shape for p in head.parameters()]


SIZE = 6


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, SIZE, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()


def loss_of(image_emb: torch.Tensor, text_emb: torch.Tensor, *, loss: str = "infonce", **options) -> torch.Tensor:
    names = {"temperature", "bias", "paper_compat"}
    made = {name: options.pop(name) for name in names & options.keys()}
    model = Aligner(OwnNetwork(), 4, classifier="classify", loss=loss, **made)
    return model.alignment_loss(image_emb, text_emb, **options)


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_texts_are_no_negatives_of_each_other_and_images_without_a_text_share_none(loss):
    ids = torch.tensor([0, 1, 2, 3, 3, 5])
    expected = LOSSES[loss](*batch(), exclude=ids[:, None] == ids, temperature=0.3, bias=-2.0)
    torch.testing.assert_close(loss_of(*batch(), loss=loss, text_ids=ids, temperature=0.3, bias=-2.0), expected)
    described = torch.tensor([True, False, True, False, True, True])
    options = {"mixing": 0.7 * torch.eye(SIZE) + 0.3 * torch.eye(SIZE).flip(0), "described": described}
    none = loss_of(*batch(), loss=loss, text_ids=torch.where(described, torch.arange(SIZE), -1), **options)
    torch.testing.assert_close(none, loss_of(*batch(), loss=loss, text_ids=torch.arange(SIZE), **options))


@pytest.mark.parametrize("loss", PAPER_LOSSES)
def test_the_official_code_ignores_mixing_and_equal_texts(loss):
    ids, described = torch.zeros(SIZE, dtype=torch.int64), torch.tensor([True, True, True, False, False, True])
    options = {"mixing": 0.7 * torch.eye(SIZE) + 0.3 * torch.eye(SIZE).flip(0), "text_ids": ids}
    found = loss_of(*batch(), loss=loss, paper_compat=True, described=described, **options)
    torch.testing.assert_close(found, LOSSES[loss](*batch(), described=described))
    if loss != "cosine":
        assert found > loss_of(*batch(), loss=loss, text_ids=ids)  # where they are no negatives
