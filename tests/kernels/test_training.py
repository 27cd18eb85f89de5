"""The training step with all three kernels, and without them."""

import pytest
import torch

from tests.ngram_inputs import ngram_overrides


@pytest.mark.interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_turning_the_kernels_off_changes_a_steps_losses_and_gradients_within_tolerance(drawn_shards, tmp_path, monkeypatch):
    """CmEAA's step in float32: enhancement by n-grams (cross_attention), alignment (mine), report (report_ce)."""
    from rrg.batching.feed import SplitFeed
    from rrg.recipe import load_recipe
    from rrg.system import System, open_split

    words = [f"data.shards={drawn_shards}", "data.workers=0", *ngram_overrides(tmp_path, drawn_shards)]
    recipe = load_recipe("tiny/cmeaa_iu", words).value
    split = open_split(recipe, "train")
    built = System.build(recipe, None, split)
    model = built.model.train()
    batch = SplitFeed(built.films(split), built.tokeniser, [[0, 1, 2, 3]])[0].batches[0]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    paths, found = watched(monkeypatch), {}
    for setting in ("off", "triton"):
        monkeypatch.setenv("RRG_KERNELS", setting)
        model.zero_grad()
        model.load_state_dict(buffers, strict=False)  # the averages of the estimate start alike
        torch.manual_seed(7)
        losses = {name: value for name, (value, _) in model(batch).items()}
        sum(losses.values()).backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
        found[setting] = {name: value.detach() for name, value in losses.items()}, gradients
    assert paths["off"] == {(name, "chunked") for name in ("report_ce", "mine", "cross_attention")}
    assert paths["triton"] == {(name, "triton") for name in ("report_ce", "mine", "cross_attention")}
    (losses, gradients), (with_kernels, their_gradients) = found["off"], found["triton"]
    assert set(losses) == {"report", "mine"} and gradients.keys() == their_gradients.keys()
    for name, value in losses.items():
        torch.testing.assert_close(with_kernels[name], value, rtol=1e-5, atol=1e-5)
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():  # a bias that cancels has no gradient but rounding
        assert (their_gradients[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6 * largest, name


def watched(monkeypatch):
    """Which kernel took which path, by setting."""
    import os

    from rrg_kernels.cross_attention import function as attention
    from rrg_kernels.dispatch import choose
    from rrg_kernels.mine import function as mine
    from rrg_kernels.report_ce import function as report

    paths = {"off": set(), "triton": set()}

    def noted(kernel, *rest):
        choice = choose(kernel, *rest)
        paths[os.environ["RRG_KERNELS"]].add((kernel, choice.path))
        return choice

    for module in (attention, mine, report):
        monkeypatch.setattr(module, "choose", noted)
    return paths
