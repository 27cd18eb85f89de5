"""What is timed does the same work: every contender's step runs and leaves the gradients of the definition."""

import pytest
from rrg_kernels.cross_attention import contenders


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.delenv("RRG_KERNELS", raising=False)
    monkeypatch.setattr(contenders, "DROPOUT", 0.0)
    monkeypatch.setattr(contenders, "_SMALL", (("tiny", (3, 5, 2, 8, 6), (contenders.torch.float32,)),))


def test_all_contenders_leave_the_same_gradients():
    (match,) = contenders.matches("cpu")
    assert list(match.contenders) == ["padded eager", "padded SDPA", "chunked"] and match.baseline == "padded eager"
    assert match.size == "tiny, 3 × 5 queries, 2 heads of 8, 9 context rows, longest 6, float32"
    found = {}
    for name, step in match.contenders.items():
        step()
        leaves = step.args[1].args[1] if name == "chunked" else step.args[1]
        found[name] = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
    for gradients in found.values():
        assert len(gradients) == 4
        for ours, theirs in zip(gradients, found["padded eager"], strict=True):
            contenders.torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
