"""Alignment losses against loops that follow their definition word by word."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.errors import ConfigError
from gpt4image.models.alignment_losses import LOSSES, info_nce, info_nce_one_way

INFO_NCE = (info_nce, info_nce_one_way)


def unit(vector):
    length = vector.norm()
    return vector / length if length > 0 else vector


def cos(a, b):
    return unit(a) @ unit(b)


def by_loops(name, image_emb, text_emb, **options):
    """Return the loss called ``name``; every option must be given."""
    loops = Loops(image_emb, text_emb, **options)
    if not any(loops.mass):
        return 0 * image_emb.sum()
    if name == "siglip":
        return loops.sigmoid_loss()
    pairs = [(i, j) for i in loops.items for j in loops.items if loops.weight[i][j] > 0]
    return sum(loops.weight[i][j] * loops.term(name, i, j) for i, j in pairs) / sum(loops.mass)


class Loops:
    def __init__(self, image_emb, text_emb, *, target, described, exclude, temperature, bias):
        self.image_emb, self.text_emb = image_emb, text_emb
        self.items = range(len(image_emb))
        self.target, self.described, self.exclude = target.tolist(), described, exclude
        self.temperature, self.bias = temperature, bias
        self.weight = [[self.target[i][j] * bool(described[j]) for j in self.items] for i in self.items]
        self.mass = [sum(row) for row in self.weight]

    def excluded(self, i, j):
        return any(self.target[i][b] > 0 and bool(self.exclude[b, j]) for b in self.items)

    def candidate(self, i, j):
        return self.mass[i] > 0 and bool(self.described[j]) and (self.weight[i][j] > 0 or not self.excluded(i, j))

    def score(self, i, j):
        image, text = self.image_emb[i], self.text_emb[j]
        return cos(image, text) / self.temperature

    def to_text(self, i, j):
        others = (torch.exp(self.score(i, k)) for k in self.items if self.candidate(i, k))
        return -torch.log(torch.exp(self.score(i, j)) / sum(others))

    def to_image(self, i, j):
        others = (torch.exp(self.score(k, j)) for k in self.items if self.candidate(k, j))
        return -torch.log(torch.exp(self.score(i, j)) / sum(others))

    def term(self, name, i, j):
        if name == "cosine":
            return 2 - 2 * cos(self.image_emb[i], self.text_emb[j])
        if name == "infonce-one-way":
            return self.to_text(i, j)
        return (self.to_text(i, j) + self.to_image(i, j)) / 2

    def sigmoid_loss(self):
        total = 0.0
        for i in self.items:
            for j in self.items:
                if self.candidate(i, j):
                    right, logit = self.weight[i][j], self.score(i, j) + self.bias
                    total = total - right * torch.log(torch.sigmoid(logit))
                    total = total - (self.mass[i] - right) * torch.log(torch.sigmoid(-logit))
        return total / sum(self.mass)


@st.composite
def batches(draw):
    """Image and text embeddings, and every option that concerns them."""
    size = draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    width = draw(st.integers(1, 5))
    image_emb = torch.randn(size, width, generator=generator, dtype=torch.float64)
    text_emb = torch.randn(size, width, generator=generator, dtype=torch.float64)
    lam = torch.rand(size, 1, generator=generator, dtype=torch.float64)
    eye = torch.eye(size, dtype=torch.float64)
    numbers = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    ids = torch.tensor(draw(numbers))
    options = {
        "target": lam * eye + (1 - lam) * eye[torch.randperm(size, generator=generator)]
        if draw(st.booleans())
        else eye,
        "described": torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size))),
        "exclude": ids[:, None] == ids,
    }
    return image_emb, text_emb, options


def value_and_gradients(loss, *inputs):
    inputs = [given.clone().requires_grad_() for given in inputs]
    value = loss(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("name", LOSSES)
@given(batch=batches(), temperature=st.floats(0.05, 2.0), bias=st.floats(-10, 1))
def test_value_and_gradients_equal_the_naive_loop(name, batch, temperature, bias):
    *emb, options = batch
    learned = torch.tensor([temperature, bias], dtype=torch.float64)

    def run(loss):
        return value_and_gradients(lambda i, t, n: loss(i, t, temperature=n[0], bias=n[1]), *emb, learned)

    fast = run(lambda *args, **learned: LOSSES[name](*args, **options, **learned))
    slow = run(lambda *args, **learned: by_loops(name, *args, **options, **learned))
    for mine, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_one_image_drawn_twice_finds_its_text_as_if_drawn_once():
    image_emb = torch.randn(5, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    text_emb = image_emb + 0.1
    ids = torch.tensor([0, 0, 1, 2, 3, 4])

    def first_row(*batch, **options):
        return info_nce_one_way(*batch, target=torch.eye(len(batch[0]))[0].diag(), **options)

    once = first_row(image_emb, text_emb)
    twice = image_emb[ids], text_emb[ids]
    torch.testing.assert_close(first_row(*twice, exclude=ids[:, None] == ids), once)
    assert first_row(*twice) > once + 0.3  # without it the copy is a negative as near as the positive


@pytest.mark.parametrize("loss", LOSSES.values())
def test_images_without_text_take_no_part(loss):
    image_emb, text_emb = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(1))
    described = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1], dtype=torch.bool)
    text_emb[~described] = torch.nan  # nothing may be read there
    value, gradient, _ = value_and_gradients(lambda i, t: loss(i, t, described=described), image_emb, text_emb)
    torch.testing.assert_close(value, loss(image_emb[described], text_emb[described]))
    assert gradient[~described].count_nonzero() == 0
    assert gradient.isfinite().all()
    assert gradient[described].abs().sum() > 0


@pytest.mark.parametrize("loss", LOSSES.values())
def test_precision(loss):
    image_emb, text_emb = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    exact = loss(image_emb, text_emb)
    assert exact.dtype == torch.float64
    low = loss(image_emb.bfloat16(), text_emb.half())
    assert low.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = loss(image_emb.float(), text_emb.float())
    assert under_autocast.dtype == torch.float32
    torch.testing.assert_close(under_autocast.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", INFO_NCE)
def test_small_temperatures_are_stable(loss):
    image_emb, text_emb = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(5))
    described = torch.arange(16) % 3 > 0
    image_emb.requires_grad_()
    value = loss(image_emb, text_emb, described=described, temperature=1e-4)
    value.backward()
    assert image_emb.grad is not None
    assert value.isfinite()
    assert image_emb.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"temperature": math.nan}, "temperature = nan"),
        ({"target": torch.ones(4, 1)}, r"target is \(4, 1\)"),
        ({"described": torch.ones(4, 1, dtype=torch.bool)}, r"described is \(4, 1\)"),
        ({"exclude": torch.ones(4, dtype=torch.bool)}, r"exclude is \(4,\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        info_nce(torch.randn(4, 3), torch.randn(4, 3), **options)
