"""Residual networks as encoders: normalisation that does not depend on who else is in the batch.

Batch statistics would make a film's tokens depend on how the batch was dealt to processes, and running statistics are state of
each process. So a network built from scratch gets group normalisation (Wu & He 2018), and a pretrained one keeps the statistics
it came with, also while it is trained.
"""

from __future__ import annotations

from torch import nn

GROUPS = 8


class StillBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that always uses the statistics it was loaded with."""

    def train(self, mode: bool = True) -> StillBatchNorm:
        """Evaluation mode, whatever the parent asks for."""
        super().train(False)
        return self


def keep_statistics(network: nn.Module) -> nn.Module:
    """Every batch normalisation of a pretrained network keeps its statistics. In place."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = StillBatchNorm
            module.train(False)
    return network


def group_normalised(network: nn.Module) -> nn.Module:
    """Every batch normalisation becomes a group normalisation of at most eight groups. In place."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            groups = next(g for g in range(GROUPS, 0, -1) if child.num_features % g == 0)
            replacement = nn.GroupNorm(groups, child.num_features)
            setattr(network, name, replacement.to(child.weight.device))
        else:
            group_normalised(child)
    return network
