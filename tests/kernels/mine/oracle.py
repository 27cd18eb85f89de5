"""What the kernels and the chunked path are held against: everything concatenated, in float64, by autograd."""

import math

import torch
from rrg_kernels.mine import Critic, Marginal
from rrg_kernels.mine.critic import concatenated_scores
from rrg_kernels.mine.reference import Operands, Pairs
from torch.nn import functional as F


def draw_operands(seed, batch, first, second, sources=2, dtype=torch.float32, loud=1.0):
    """Activations and parameters that make scores of order `loud`."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((sources, batch, first), (batch, first), (second, first), (second,), (second,), (1,))
    scales = (0.7, 0.7, 1.4 * first**-0.5, 0.2, loud * second**-0.5, 0.1)
    drawn = (torch.randn(shape, generator=generator) * scale for shape, scale in zip(shapes, scales, strict=True))
    return Operands(*(tensor.to(dtype) for tensor in drawn))


def draw_pairs(batch, permutations=0, with_joint=False, bound=10.0, seed=0):
    """All pairs, or so many derangements: shifts of the rows renamed by a drawn permutation."""
    if not permutations:
        return Pairs(None, with_joint, bound)
    names = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    shifts = Marginal.shifts(batch, [1 + p % (batch - 1) for p in range(permutations)]).partners
    table = torch.empty_like(shifts)
    table[:, names] = names[shifts]
    return Pairs(Marginal.permutations(table).partners, False, bound)


def loop_statistics(operands, pairs, rounded_to=None):
    """Both statistics in float64, pair by pair as the definition reads; products of the second layer take hidden values
    rounded to `rounded_to`, whose gradient is that of the unrounded ones."""
    u, v, weight, bias, last, last_bias = (tensor.double() for tensor in operands)
    batch = v.shape[0]
    listed = [(i, i) for i in range(batch)]
    if pairs.partners is not None:
        marginal = [(i, int(row[i])) for row in pairs.partners for i in range(batch)]
    else:
        marginal = [(i, j) for i in range(batch) for j in range(batch) if pairs.with_joint or i != j]

    def scores(places):
        i, j = (torch.tensor(side) for side in zip(*places, strict=True))
        hidden = F.relu(u[:, i] + v[j])
        if rounded_to is not None:
            hidden = hidden + (hidden.to(rounded_to).double() - hidden).detach()
        score = F.linear(F.relu(F.linear(hidden, weight, bias)), last[None], last_bias).squeeze(-1)
        return pairs.bound * torch.tanh(score / pairs.bound) if pairs.bound else score

    return scores(listed).mean(1), scores(marginal).logsumexp(1) - math.log(len(marginal))


def oracle(operands, pairs, grad_joint, grad_marginal, rounded_to=None):
    """(joint, marginal, gradients) in float64."""
    leaves = Operands(*(tensor.detach().double().requires_grad_() for tensor in operands))
    joint, marginal = loop_statistics(leaves, pairs, rounded_to)
    total = (joint * grad_joint.double() + marginal * grad_marginal.double()).sum()
    return joint.detach(), marginal.detach(), Operands(*torch.autograd.grad(total, leaves))


def distance(ours, theirs):
    """Relative norm of the difference."""
    difference = (ours.detach().double() - theirs.double()).norm()
    return float(difference / theirs.double().norm().clamp_min(1e-12))


def draw_critic(seed, width, first=12, second=7, dtype=torch.float32, loud=1.0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((first, width), (first,), (second, first), (second,), (1, second), (1,))
    parameters = (torch.randn(shape, generator=generator).to(dtype) * loud / shape[-1] ** 0.5 for shape in shapes)
    return Critic(*(parameter.requires_grad_() for parameter in parameters))


def published_estimate(sources, fused, critic, marginal, averages, bound=10.0, rate=0.01):
    """The estimator as its papers write it, averages in plain numbers (0: not begun): values, a loss whose gradient is the
    bias-corrected one, and the new averages."""
    batch, values, losses, renewed = len(fused), [], [], []
    if marginal.partners is None:
        rows = torch.arange(batch).repeat_interleave(batch)
        columns = torch.arange(batch).repeat(batch)
        chosen = slice(None) if marginal.with_joint else rows != columns
        rows, columns = rows[chosen], columns[chosen]
    else:
        rows = torch.arange(batch).repeat(len(marginal.partners))
        columns = marginal.partners.flatten()
    for source, average in zip(sources, averages, strict=True):
        joint = concatenated_scores(source, fused, critic, bound).mean()
        exponentials = concatenated_scores(source[rows], fused[columns], critic, bound).exp()
        mean = exponentials.mean().item()
        average = mean if average == 0 else rate * mean + (1 - rate) * average
        values.append(joint.item() - math.log(mean))
        losses.append(exponentials.mean() / (average + 1e-6) - joint)
        renewed.append(average)
    return values, sum(losses), renewed
