"""The alignment loss with its options: policies, further texts, what it learns, and the official behaviour."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gpt4image.base.errors import ConfigError
from gpt4image.models.alignment import PAPER_LOSSES, Alignment, FurtherTexts
from gpt4image.models.alignment_losses import LOSSES, WITH_NEGATIVES, info_nce, info_nce_one_way

SIZE, FURTHER, WIDTH = 6, 5, 4


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, SIZE, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind()


def further_texts(seed: int = 1, labels: list[int] | None = None) -> FurtherTexts:
    embeddings = torch.randn(FURTHER, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return FurtherTexts(embeddings, torch.arange(100, 100 + FURTHER), torch.tensor(labels or [-1] * FURTHER))


LABELS = torch.tensor([0, 1, 0, -1, -1, 1])
SAME_CLASS = (LABELS[:, None] == LABELS) & (LABELS >= 0)


POLICIES = [(loss, policy) for loss in LOSSES for policy in ("negative", "masked", "positive")]
POLICIES.remove(("supcon", "masked"))


class TestSameClass:
    @pytest.mark.parametrize(("loss", "policy"), POLICIES)
    def test_policies_are_arguments_of_the_losses(self, loss, policy):
        expected = LOSSES[loss](
            *batch(),
            exclude=SAME_CLASS if policy == "masked" else None,
            positive=SAME_CLASS if policy == "positive" or loss == "supcon" else None,
        )
        torch.testing.assert_close(Alignment(loss, same_class=policy)(*batch(), labels=LABELS), expected)

    @pytest.mark.parametrize(("loss", "policy"), [pair for pair in POLICIES if pair[1] != "negative"])
    @pytest.mark.parametrize("labels", [None, torch.full((SIZE,), -1)])
    def test_without_labels_own_texts_alone_are_right(self, loss, policy, labels):
        expected = LOSSES[loss](*batch())
        torch.testing.assert_close(Alignment(loss, same_class=policy)(*batch(), labels=labels), expected)

    def test_masking_is_added_to_equal_texts(self):
        ids = torch.tensor([0, 1, 2, 3, 3, 5])
        expected = info_nce(*batch(), exclude=SAME_CLASS | (ids[:, None] == ids))
        torch.testing.assert_close(Alignment(same_class="masked")(*batch(), labels=LABELS, text_ids=ids), expected)

    def test_texts_are_the_same_by_either_of_two_numbers(self):
        ids = torch.tensor([[0, 9], [0, 8], [2, 7], [3, 7], [4, 6], [5, 5]])
        same = torch.eye(SIZE, dtype=torch.bool)
        same[0, 1] = same[1, 0] = same[2, 3] = same[3, 2] = True
        torch.testing.assert_close(Alignment()(*batch(), text_ids=ids), info_nce(*batch(), exclude=same))

    @pytest.mark.parametrize("loss", sorted(LOSSES))
    @pytest.mark.parametrize("columns", [1, 2])
    def test_images_without_a_text_share_none(self, loss, columns):
        described = torch.tensor([True, False, True, False, True, True])
        mixing = 0.7 * torch.eye(SIZE) + 0.3 * torch.eye(SIZE).flip(0)
        ids = torch.where(described, torch.arange(SIZE), -1)
        options = {"mixing": mixing, "described": described}
        found = Alignment(loss)(*batch(), text_ids=torch.stack([ids] * columns, dim=1).squeeze(1), **options)
        torch.testing.assert_close(found, Alignment(loss)(*batch(), text_ids=torch.arange(SIZE), **options))

    def test_a_mixed_image_finds_the_texts_of_both_classes(self):
        labels = torch.tensor([0, 0, 1, 1])
        mixing = 0.75 * torch.eye(4) + 0.25 * torch.eye(4).flip(0)
        class_emb = torch.eye(2)[labels]
        image_emb = torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
        logits = F.normalize(image_emb, dim=1) @ class_emb.T / 0.2
        weights = torch.tensor([[0.375, 0.375, 0.125, 0.125]] * 2 + [[0.125, 0.125, 0.375, 0.375]] * 2)
        loss = Alignment("supcon")(image_emb, class_emb, labels=labels, mixing=mixing)
        torch.testing.assert_close(loss, F.cross_entropy(logits, weights))


class TestFurtherTexts:
    @pytest.mark.parametrize("loss", sorted(WITH_NEGATIVES))
    @settings(deadline=None, max_examples=10)
    @given(shared=st.sets(st.integers(0, SIZE - 1)), undescribed=st.sets(st.integers(0, SIZE - 1)))
    def test_each_text_counts_once(self, loss, shared, undescribed):
        image_emb, text_emb = batch()
        described = torch.tensor([i not in undescribed for i in range(SIZE)])
        ids, further = torch.arange(SIZE), further_texts()
        table = FurtherTexts(
            torch.cat([further.embeddings, text_emb[sorted(shared)]]),
            torch.cat([further.ids, ids[sorted(shared)]]),
            torch.full((FURTHER + len(shared),), -1),
        )
        expected = LOSSES[loss](
            image_emb,
            torch.cat([text_emb, further.embeddings]),
            described=torch.cat([described, torch.ones(FURTHER, dtype=torch.bool)]),
        )
        found = Alignment(loss)(image_emb, text_emb, described=described, text_ids=ids, further=table)
        torch.testing.assert_close(found, expected)

    def test_they_take_part_in_the_policy_of_classes(self):
        further = further_texts(labels=[0, 1, 2, -1, 0])
        options = {"labels": LABELS, "text_ids": torch.arange(SIZE), "further": further}
        all_labels = torch.cat([LABELS, further.labels])
        alike = (LABELS[:, None] == all_labels) & (all_labels >= 0)
        texts = torch.cat([batch()[1], further.embeddings])
        equal = torch.eye(SIZE, SIZE + FURTHER, dtype=torch.bool)
        masked, positive = Alignment(same_class="masked"), Alignment(same_class="positive")
        torch.testing.assert_close(masked(*batch(), **options), info_nce(batch()[0], texts, exclude=alike | equal))
        torch.testing.assert_close(
            positive(*batch(), **options), info_nce(batch()[0], texts, exclude=equal, positive=alike)
        )

    @pytest.mark.parametrize("loss", sorted(WITH_NEGATIVES))
    def test_a_text_that_was_drawn_in_the_batch_is_no_candidate_again(self, loss):
        further = further_texts()
        ids = torch.arange(SIZE)
        drawn = ids.clone()
        drawn[2] = further.ids[1]  # one of the texts of image 2, and the only one of an image outside the batch
        left = torch.arange(FURTHER) != 1
        found = Alignment(loss)(*batch(), text_ids=torch.stack([ids, drawn], dim=1), further=further)
        others = FurtherTexts(further.embeddings[left], further.ids[left], further.labels[left])
        torch.testing.assert_close(found, Alignment(loss)(*batch(), text_ids=ids, further=others))

    @pytest.mark.parametrize("loss", sorted(WITH_NEGATIVES))
    def test_images_without_a_text_leave_them_to_the_others(self, loss):
        described = torch.tensor([True, False, True, False, True, True])
        mixing = 0.7 * torch.eye(SIZE) + 0.3 * torch.eye(SIZE).flip(0)
        ids = torch.where(described, torch.arange(SIZE), -1)
        options = {"mixing": mixing, "described": described, "further": further_texts()}
        found = Alignment(loss)(*batch(), text_ids=torch.stack([ids, ids], dim=1), **options)
        torch.testing.assert_close(found, Alignment(loss)(*batch(), text_ids=torch.arange(SIZE), **options))

    def test_they_need_numbers(self):
        with pytest.raises(ConfigError, match="text_ids"):
            Alignment()(*batch(), further=further_texts())


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
        options = {"mixing": mixing, "text_ids": ids, "labels": LABELS, "described": LABELS >= 0}
        found = Alignment(loss, paper_compat=True)(*batch(), **options)
        torch.testing.assert_close(found, LOSSES[loss](*batch(), described=LABELS >= 0))
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
        for options in (
            {"loss": "siglip"},
            {"learn_temperature": True},
            {"normalise": False},
            {"same_class": "masked"},
        ):
            with pytest.raises(ConfigError, match="paper_compat is the official code"):
                Alignment(paper_compat=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "siglib"}, r"loss 'siglib'.*Did you mean 'siglip'"),
        ({"same_class": "maskd"}, r"same_class 'maskd'.*Did you mean 'masked'"),
        ({"learn_temperature": True, "temperature": 2.0}, "temperature 2: one that is learned"),
        ({"loss": "supcon", "same_class": "masked"}, "supcon has texts of the same class as positives"),
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
