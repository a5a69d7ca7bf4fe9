"""The alignment loss with its options: equal texts, what it learns, and the official behaviour."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gpt4image.base.errors import ConfigError
from gpt4image.config.alignment import PAPER_LOSSES
from gpt4image.models.alignment import Alignment
from gpt4image.models.alignment_losses import LOSSES, info_nce, info_nce_one_way

SIZE, WIDTH = 6, 4


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, SIZE, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind()


DESCRIBED = torch.tensor([True, True, True, False, False, True])


class TestSameText:
    @pytest.mark.parametrize("loss", LOSSES)
    def test_equal_texts_are_no_negatives_of_each_other(self, loss):
        ids = torch.tensor([0, 1, 2, 3, 3, 5])
        expected = LOSSES[loss](*batch(), exclude=ids[:, None] == ids)
        torch.testing.assert_close(Alignment(loss)(*batch(), text_ids=ids), expected)

    @pytest.mark.parametrize("loss", sorted(LOSSES))
    def test_images_without_a_text_share_none(self, loss):
        described = torch.tensor([True, False, True, False, True, True])
        mixing = 0.7 * torch.eye(SIZE) + 0.3 * torch.eye(SIZE).flip(0)
        ids = torch.where(described, torch.arange(SIZE), -1)
        options = {"mixing": mixing, "described": described}
        found = Alignment(loss)(*batch(), text_ids=ids, **options)
        torch.testing.assert_close(found, Alignment(loss)(*batch(), text_ids=torch.arange(SIZE), **options))


class TestLearned:
    def test_the_temperature_is_learned_from_its_start(self):
        alignment = Alignment(temperature=0.07, learn_temperature=True)
        assert [name for name, _ in alignment.named_parameters()] == ["log_scale"]
        loss = alignment(*batch())
        torch.testing.assert_close(loss, info_nce(*batch(), temperature=0.07), rtol=1e-6, atol=0)
        loss.backward()
        h = 1e-5
        below, above = (info_nce(*batch(), temperature=0.07 * math.exp(-step)) for step in (-h, h))
        assert alignment.log_scale is not None
        assert alignment.log_scale.grad is not None
        assert alignment.log_scale.grad.item() == pytest.approx(((above - below) / (2 * h)).item(), rel=1e-4)

    def test_siglip_learns_its_bias_too(self):
        alignment = Alignment("siglip", learn_temperature=True, bias=-3.0)
        assert [name for name, _ in alignment.named_parameters()] == ["log_scale", "bias"]
        alignment(*batch()).backward()
        assert alignment.bias.grad.item() != 0.0
        assert not list(Alignment("siglip", bias=-3.0).parameters())

    @pytest.mark.parametrize(("pushed", "kept"), [(9.0, 0.01), (-9.0, 1.0)])
    def test_it_stays_in_its_range_and_finds_back(self, pushed, kept):
        alignment = Alignment(learn_temperature=True)
        alignment.log_scale.data.fill_(pushed)
        alignment(*batch()).backward()
        assert alignment.temperature.item() == pytest.approx(kept, rel=1e-6)
        assert alignment.log_scale.grad != 0.0

    def test_nothing_is_learned_otherwise(self):
        assert not Alignment().state_dict()


class TestPaperCompat:
    @pytest.mark.parametrize("loss", PAPER_LOSSES)
    def test_mixing_and_equal_texts_are_ignored(self, loss):
        mixing = 0.7 * torch.eye(SIZE) + 0.3 * torch.eye(SIZE).flip(0)
        ids = torch.zeros(SIZE, dtype=torch.int64)
        options = {"mixing": mixing, "text_ids": ids, "described": DESCRIBED}
        found = Alignment(loss, paper_compat=True)(*batch(), **options)
        torch.testing.assert_close(found, LOSSES[loss](*batch(), described=DESCRIBED))
        if loss != "cosine":
            assert found > Alignment(loss)(*batch(), text_ids=ids)  # where they are no negatives

    @pytest.mark.parametrize("processes", [2, 4])
    @pytest.mark.parametrize("loss", PAPER_LOSSES)
    def test_the_gradient_over_several_processes_is_the_official_one(self, loss, processes, monkeypatch):
        image_emb, text_emb = torch.randn(2, processes * 3, WIDTH, dtype=torch.float64)
        rows = [slice(3 * rank, 3 * rank + 3) for rank in range(processes)]
        mean_over_processes = []
        for own in rows:

            def gather(tensor, own=own):  # as processes.gather does it in the process that has these rows
                whole = image_emb if tensor.requires_grad else text_emb
                scaled = processes * tensor - (processes - 1) * tensor.detach()
                return torch.cat([whole[: own.start], scaled, whole[own.stop :]])

            monkeypatch.setattr("gpt4image.parallel.processes.count", lambda: processes)
            monkeypatch.setattr("gpt4image.parallel.processes.gather", gather)
            local = image_emb[own].clone().requires_grad_()
            Alignment(loss, paper_compat=True)(local, text_emb[own]).backward()
            mean_over_processes.append(local.grad / processes)
        found = torch.cat(mean_over_processes)
        whole = image_emb.clone().requires_grad_()
        if loss == "infonce":  # all rows are candidates, and the gradient is a W-th
            (info_nce(whole, text_emb) / processes).backward()
        else:  # each process has its own rows alone
            sum(LOSSES[loss](whole[own], text_emb[own]) / processes for own in rows).backward()
        torch.testing.assert_close(found, whole.grad)
        if loss == "infonce-one-way":
            assert not torch.allclose(found, torch.autograd.grad(info_nce_one_way(whole, text_emb), whole)[0])

    def test_what_the_paper_does_not_have_is_refused(self):
        for options in ({"loss": "siglip"}, {"learn_temperature": True}, {"normalise": False}):
            with pytest.raises(ConfigError, match="paper_compat is the official code"):
                Alignment(paper_compat=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "siglib"}, r"loss 'siglib'.*Did you mean 'siglip'"),
        ({"learn_temperature": True, "temperature": 2.0}, "temperature 2: a learned one"),
        ({"learn_temperature": True, "loss": "cosine"}, "cosine has no temperature to learn"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Alignment(**options)


def test_dot_products():
    image_emb, text_emb = batch()
    expected = F.cross_entropy(image_emb @ text_emb.T, torch.arange(SIZE))
    found = Alignment("infonce-one-way", normalise=False, temperature=1.0)(image_emb, text_emb)
    torch.testing.assert_close(found, expected)
    assert isinstance(Alignment(), nn.Module)
