"""The alignment loss of a run, one of ``alignment_losses`` with its options, over all processes of a batch."""

from __future__ import annotations

import math
from typing import TypedDict

import torch
from torch import Tensor, nn

from gpt4image.config.alignment import TEMPERATURES, check_alignment
from gpt4image.models.alignment_losses import LOSSES
from gpt4image.parallel import processes


class AlignmentOptions(TypedDict, total=False):
    """Arguments of ``Alignment``."""

    loss: str
    temperature: float
    learn_temperature: bool
    bias: float
    normalise: bool
    paper_compat: bool


class Alignment(nn.Module):
    """A loss of ``LOSSES`` with its options and what it learns.

    Args:
        loss: name in ``LOSSES``.
        temperature: of the losses with negatives.
        learn_temperature: learn it, as the parameter ``log_scale`` = log(1 / temperature), within TEMPERATURES (CLIP,
            arXiv 2103.00020, section 2.5); siglip learns its ``bias`` too.
        bias: of siglip; minus the logarithm of the number of texts that an image is compared to is a good start.
        normalise: if False, losses with negatives take dot products in place of cosines.
        paper_compat: compute what the official code of the paper does, for reproduction: text targets stay as they are
            where images are mixed; texts of one image are negatives of each other; over W processes the gradient of
            infonce is 1 / W of what it should be, and the other losses see only the rows of one process.

    Raises:
        ConfigError: an unknown loss, or options that exclude each other.
    """

    log_scale: Tensor | None
    bias: float | Tensor

    def __init__(
        self,
        loss: str = "infonce",
        temperature: float = 0.2,
        learn_temperature: bool = False,
        bias: float = -10.0,
        normalise: bool = True,
        paper_compat: bool = False,
    ) -> None:
        super().__init__()
        check_alignment(
            loss,
            temperature,
            learn_temperature=learn_temperature,
            normalise=normalise,
            paper_compat=paper_compat,
        )
        self.loss, self.normalise, self.paper_compat = loss, normalise, paper_compat
        self._temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature))) if learn_temperature else None
        self.bias = nn.Parameter(torch.tensor(bias)) if learn_temperature and loss == "siglip" else bias

    @property
    def temperature(self) -> float | Tensor:
        """The temperature: a number, or a scalar tensor with a gradient where it is learned."""
        return self._temperature if self.log_scale is None else (-self.log_scale).exp()

    def forward(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        *,
        mixing: Tensor | None = None,
        described: Tensor | None = None,
        text_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the rows of all processes, a scalar: see ``Aligner.alignment_loss``."""
        if self.paper_compat:
            return self._of_the_paper(image_emb, text_emb, described)
        image_emb, text_emb = processes.gather(image_emb), processes.gather(text_emb)
        described, text_ids = (None if part is None else processes.gather(part) for part in (described, text_ids))
        # A negative number is no text, and the same as none.
        exclude = None if text_ids is None else (text_ids[:, None] == text_ids) & (text_ids >= 0)
        if self.log_scale is not None:
            with torch.no_grad():
                self.log_scale.clamp_(-math.log(TEMPERATURES[1]), -math.log(TEMPERATURES[0]))
        return LOSSES[self.loss](
            image_emb,
            text_emb,
            target=None if mixing is None else processes.gather_square(mixing),
            described=described,
            exclude=exclude,
            temperature=self.temperature,
            bias=self.bias,
            normalise=self.normalise,
        )

    def _of_the_paper(self, image_emb: Tensor, text_emb: Tensor, described: Tensor | None) -> Tensor:
        """Return what the official code computes, with its gradient over several processes."""
        if self.loss == "infonce":
            # Its gathered rows keep only the gradient of the local ones, which is then averaged over the processes.
            fixed = image_emb.detach()
            image_emb = processes.gather(fixed + (image_emb - fixed) / processes.count())
            text_emb = processes.gather(text_emb)
            described = None if described is None else processes.gather(described)
        return LOSSES[self.loss](image_emb, text_emb, described=described, temperature=self.temperature)
