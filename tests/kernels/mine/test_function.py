"""The operators under PyTorch's own checks, and the path they take."""

import itertools

import pytest
import torch
from rrg_kernels.dispatch import KernelError, choices
from rrg_kernels.mine import Marginal, fresh_averages, mine_information
from rrg_kernels.mine.function import mine_choice, mine_gradients, mine_statistics
from rrg_kernels.mine.plan import WIDEST, rectangles, refusal
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.kernels.mine.oracle import draw_critic, draw_operands, draw_pairs

PAIRS = pytest.mark.parametrize("permutations,with_joint,bound", [(0, False, 10.0), (2, False, 0.0), (0, True, 3.0)])


@PAIRS
def test_pytorch_finds_no_fault_with_the_operators(permutations, with_joint, bound):
    operands, pairs = draw_operands(0, 6, 5, 7), draw_pairs(6, permutations, with_joint, bound)
    leaves = [tensor.requires_grad_() for tensor in operands]
    torch.library.opcheck(mine_statistics, (*leaves, *pairs, True))
    torch.library.opcheck(mine_statistics, (*leaves, *pairs, False), test_utils=("test_schema", "test_faketensor"))
    _, marginal, scores = (tensor.detach() for tensor in mine_statistics(*operands, *pairs, True))
    fixed = [tensor.detach() for tensor in operands]
    torch.library.opcheck(mine_gradients, (*fixed, *pairs, marginal, scores, torch.ones(2), -torch.ones(2)))


@PAIRS
def test_gradients_stand_up_to_finite_differences(permutations, with_joint, bound):
    operands = draw_operands(1, 5, 4, 6, dtype=torch.float64)
    pairs = draw_pairs(5, permutations, with_joint, bound)
    leaves = tuple(tensor.requires_grad_() for tensor in operands)
    assert torch.autograd.gradcheck(lambda *given: mine_statistics(*given, *pairs, True)[:2], leaves)


def loss(image, text, critic, marginal, averages):
    estimate = mine_information([image, text], image + text, critic, marginal, averages)
    return -estimate.information.sum(), estimate.log_average


@pytest.mark.parametrize("marginal", [Marginal.shifts(6, 2), Marginal.all_pairs()], ids=["listed", "all"])
def test_compiled_whole_it_gives_the_same(marginal):
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(6, 5, generator=generator).requires_grad_() for _ in range(2))
    critic = draw_critic(0, 10)
    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        value, averages = function(image, text, critic, marginal, fresh_averages(2))
        results.append([value.detach(), averages, *torch.autograd.grad(value, [image, text, *critic])])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled)


@pytest.mark.slow
def test_compiled_by_inductor_it_gives_the_same():
    image = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    arguments = (image, image.detach() * 2, draw_critic(0, 10), Marginal.all_pairs(), fresh_averages(2))
    results = [
        torch.autograd.grad(function(*arguments)[0], [image])[0] for function in (loss, torch.compile(loss, fullgraph=True))
    ]
    torch.testing.assert_close(*results)


def test_shapes_are_known_without_data():
    with FakeTensorMode():
        image, text = (torch.empty(32, 256, requires_grad=True) for _ in range(2))
        critic = draw_critic_shapes(512, 256, 256)
        value, averages = loss(image, text, critic, Marginal.all_pairs(), torch.empty(2))
        value.backward()
    assert (value.shape, averages.shape, image.grad.shape) == ((), (2,), (32, 256))


def draw_critic_shapes(width, first, second):
    from rrg_kernels.mine import Critic

    shapes = ((first, width), (first,), (second, first), (second,), (1, second), (1,))
    return Critic(*(torch.empty(shape, requires_grad=True) for shape in shapes))


def test_a_sharded_critic_is_gathered():
    import torch.distributed as dist
    from rrg_kernels.mine import Critic
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        image, text = (torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
        whole = draw_critic(0, 10)
        sharded = Critic(*(distribute_tensor(p.detach(), mesh, [Shard(0)]).requires_grad_() for p in whole))
        values = [loss(image, text, critic, Marginal.all_pairs(), fresh_averages(2))[0] for critic in (whole, sharded)]
        gradients = [torch.autograd.grad(value, list(c)) for value, c in zip(values, (whole, sharded), strict=True)]
        assert torch.equal(*values)
        assert all(torch.equal(one, other.full_tensor()) for one, other in zip(*gradients, strict=True))
    finally:
        dist.destroy_process_group()


def test_an_operator_that_kept_nothing_says_so():
    operands = [tensor.requires_grad_() for tensor in draw_operands(2, 4, 3, 3)]
    joint, _, _ = mine_statistics(*operands, *draw_pairs(4), False)
    with pytest.raises(RuntimeError, match="keep=False"):
        joint.sum().backward()


def test_the_choice_is_told(monkeypatch):
    operands = draw_operands(3, 4, 8, 8)
    monkeypatch.delenv("RRG_KERNELS", raising=False)
    assert mine_choice(operands.u, operands.weight) == ("chunked", "the tensors are on the CPU")
    assert choices(torch.device("cpu"))["mine"].path == "chunked"
    monkeypatch.setenv("RRG_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelError, match="TRITON_INTERPRET is not set"):
        mine_statistics(*operands, *draw_pairs(4), True)


def test_a_wide_critic_is_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.delenv("RRG_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    from rrg_kernels.dispatch import choose

    why = refusal(torch.empty(8, WIDEST + 1, device="meta"))
    assert choose("mine", torch.device("cuda"), torch.float32, why) == (
        "chunked",
        "a hidden layer of 513 units is wider than 512",
    )
    assert refusal(torch.empty(WIDEST, WIDEST, device="meta")) is None


@pytest.mark.parametrize("down,across", [(1, 1), (1, 9), (3, 2), (32, 32), (33, 65), (1000, 7)])
def test_rectangles_cover_every_tile_once(down, across):
    for sources, listed in itertools.product((1, 2, 3, 200), (False, True)):
        rows, programs_down, columns, programs_across = rectangles(down, across, sources, listed)
        assert (programs_down - 1) * rows < down <= programs_down * rows
        assert (programs_across - 1) * columns < across <= programs_across * columns
        assert programs_across == 1 or not listed
        assert programs_down * programs_across * sources <= max(128, sources)
