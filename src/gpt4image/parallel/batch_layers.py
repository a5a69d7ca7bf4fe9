"""Layers that see the batch of all processes as one: batch norm and stochastic depth.

Statistics of a part of a batch are not those of the batch, so the same run on more processes would train another model.
The layers here take the place of a model's own when several processes share a run; weights keep their names.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import DropPath, convert_sync_batchnorm  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from gpt4image.parallel import processes


def see_whole_batch(model: nn.Module, device: torch.device, total: int, rows: NDArray[np.int64]) -> None:
    """Replace batch norm and stochastic depth inside ``model``, where several processes share a run."""
    if processes.count() == 1:
        return
    if device.type == "cuda":
        convert_sync_batchnorm(model)  # torch's own, fused; it takes no CPU tensors
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is DropPath:
                module.add_module(name, SharedDropPath(child, total, rows))
            elif isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
                module.add_module(name, SharedBatchNorm(child))


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a layer of ``module`` normalises over batches."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


class SharedDropPath(DropPath):
    """Stochastic depth (arXiv 1603.09382) that drops the same images on any number of processes."""

    def __init__(self, layer: DropPath, total: int, rows: NDArray[np.int64]) -> None:
        super().__init__(layer.drop_prob, layer.scale_by_keep)
        self.total = total
        self.rows = torch.from_numpy(rows)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with some rows set to 0: (B, ...), or (B * P, ...) where a model takes its P patches for images."""
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep, patches = 1.0 - self.drop_prob, len(x) // len(self.rows)
        drawn = x.new_empty((self.total, patches) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        kept = drawn[self.rows.to(x.device)].flatten(0, 1)
        return x * (kept / keep if self.scale_by_keep and keep > 0.0 else kept)


class SharedBatchNorm(_BatchNorm):
    """Batch norm (arXiv 1502.03167) over the batch of all processes, in place of a ``layer``, with its gradient."""

    def __init__(self, layer: _BatchNorm) -> None:
        self.__dict__.update(layer.__dict__)

    def forward(self, input: Tensor) -> Tensor:
        """Return the input (B, C, ...) normalised over all but its second dimension, in its dtype."""
        use_batch = self.training or self.running_mean is None
        normal = self._by_batch(input) if use_batch else super().forward(input)
        for after in self.children():  # of timm's BatchNormAct2d
            normal = after(normal)
        return normal

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""

    def _by_batch(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        per_channel = (1, -1) + (1,) * (x.ndim - 2)
        mean, variance, count = self._moments(values)
        if self.running_mean is not None and self.training:
            self._track(mean.detach(), variance.detach() * (count / (count - 1).clamp(min=1)))
        normal = (values - mean.view(per_channel)) * (variance + self.eps).rsqrt().view(per_channel)
        if self.affine:
            normal = normal * self.weight.view(per_channel) + self.bias.view(per_channel)
        return normal.to(x.dtype)

    @staticmethod
    def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean (C,), biased variance (C,) and number of values a channel over all processes."""
        dims = [dim for dim in range(x.ndim) if dim != 1]
        variance, mean = torch.var_mean(x, dims, correction=0)
        own = torch.zeros(processes.count(), 1, 1, dtype=x.dtype, device=x.device)
        own[processes.rank()] = 1.0
        counts = torch.full_like(mean, x.numel() // x.shape[1])
        means, variances, counts = processes.sum_over(own * torch.stack([mean, variance, counts])).unbind(1)
        share, count = counts / counts.sum(0), counts[:, 0].sum()
        mean = (share * means).sum(0)
        return mean, (share * (variances + (means - mean) ** 2)).sum(0), count.detach()

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)  # pyright: ignore[reportOptionalMemberAccess]
        weight = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)  # pyright: ignore
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)  # pyright: ignore
        self.running_var.lerp_(variance.to(self.running_var.dtype), weight)  # pyright: ignore
