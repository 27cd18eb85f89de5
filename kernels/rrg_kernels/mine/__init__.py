"""Mutual information by a neural critic (MINE): all pairs of a batch without their activations in memory."""

from rrg_kernels.mine.critic import Critic
from rrg_kernels.mine.estimate import MineEstimate, fresh_averages, mine_information
from rrg_kernels.mine.marginal import Marginal

__all__ = ["Critic", "Marginal", "MineEstimate", "fresh_averages", "mine_information"]
