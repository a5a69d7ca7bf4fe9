"""The task loss against torch's own, and the metrics against counting by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.tasks.classification import Classification, soft_cross_entropy


@given(
    count=st.integers(1, 9),
    classes=st.integers(2, 6),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 9),
)
def test_one_hot_targets_give_the_usual_cross_entropy_and_its_gradient(
    count: int, classes: int, smoothing: float, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(count, classes, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, classes, (count,))
    ours = soft_cross_entropy(logits, F.one_hot(labels, classes).double(), smoothing)
    theirs = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.allclose(ours, theirs)
    (mine,), (usual,) = torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits)
    assert torch.allclose(mine, usual)


def test_images_count_by_the_part_of_them_that_has_a_target() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    targets = F.one_hot(torch.tensor([0, 1, 2, 0, 1]), 3).double()
    targets[3:] = 0
    loss = soft_cross_entropy(logits, targets, 0.1)
    assert torch.allclose(loss, soft_cross_entropy(logits[:3], targets[:3], 0.1))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient[3:], torch.zeros(2, 3, dtype=torch.float64))
    nothing = soft_cross_entropy(logits, torch.zeros(5, 3), 0.1)
    assert nothing.item() == 0.0 and not torch.autograd.grad(nothing, logits)[0].any()
    mixed, log_p = torch.tensor([[1.0, 0, 0], [0, 0.25, 0]]).double(), logits[:2].log_softmax(1)
    assert torch.allclose(soft_cross_entropy(logits[:2], mixed), -(log_p[0, 0] + 0.25 * log_p[1, 1]) / 1.25)


@pytest.mark.filterwarnings("ignore")  # torchmetrics warns about its own optional parts on import
def test_metrics_equal_counting_by_hand() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(7), 200).astype(np.float32)
    labels = rng.integers(-1, 6, 200)  # class 6 has no image, some images no label
    facts = Classification().measure(probabilities, labels, tuple("abcdefg"))
    has = labels >= 0
    predictions, truth = probabilities[has].argmax(1), labels[has]
    top5 = np.argsort(-probabilities[has], 1)[:, :5]
    assert facts["images"] == 200 and facts["labelled"] == has.sum()
    assert facts["top1"] == pytest.approx((predictions == truth).mean())
    assert facts["top5"] == pytest.approx((top5 == truth[:, None]).any(1).mean())
    assert facts["per_class"][6] is None
    assert facts["per_class"][2] == pytest.approx((predictions == truth)[truth == 2].mean())
    confusion = np.zeros((7, 7), int)
    np.add.at(confusion, (truth, predictions), 1)
    pairs = facts["confused"]
    assert {(a, b): n for a, b, n in pairs} == {
        (a, b): confusion[a, b] for a in range(7) for b in range(7) if a != b and confusion[a, b]
    }
    assert [n for *_, n in pairs] == sorted((n for *_, n in pairs), reverse=True)
    assert facts["support"] == confusion.sum(axis=1).tolist()
    confidence = probabilities[has].max(1)
    bins = np.searchsorted(np.arange(0, 15) * len(confidence) // 15, np.argsort(np.argsort(confidence)), "right")
    gaps = [
        (bins == b).mean() * abs((predictions == truth)[bins == b].mean() - confidence[bins == b].mean())
        for b in set(bins)
    ]
    assert facts["ece"] == pytest.approx(sum(gaps), abs=1e-5)
    assert facts["loss"] == pytest.approx(-np.log(probabilities[has, truth]).mean(), rel=1e-4)
