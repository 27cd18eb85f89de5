"""DeepSpeed ZeRO-2 and ZeRO-3 through Accelerate.

ZeRO-2 spreads gradients and the optimizer's state, ZeRO-3 the weights too, frozen ones included. Weights keep the dtype they were
loaded in: nothing is configured as bf16 or fp16, the step's own autocast sets the precision. State goes in and out by the names
of parameters, so that checkpoints are those of every other strategy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rrg.language.causal import CausalLanguage
from rrg.strategy.moments import moments_of, named_parameters
from rrg.strategy.replicas import Replicas
from rrg.strategy.root import Root
from rrg.strategy.staging import Staging
from rrg.strategy.units import ends

T = TypeVar("T")
NEGLIGIBLE = 1e-5  # part of a model that one parameter may be to be kept gathered


class Zero2(Replicas):
    """Gradients and optimizer state of what is trained, spread over all processes; the model whole on each."""

    name = "zero2"
    stage = 2

    def _prepare(self) -> None:
        self._named = list(named_parameters(self.optimizer))
        moments = {key: value.clone() for key, value in moments_of(self.optimizer).items()}
        self.optimizer.state.clear()  # it belongs to parameters that DeepSpeed replaces by pieces of flat ones
        self._shard()
        self._accelerator.deepspeed_engine_wrapped = None  # of a stage before this one
        with _left_alone(self.model):
            self._engine: Any = self._accelerator.prepare(Root(self.model), self.optimizer)[0]
        self._zero: Any = self._engine.optimizer
        if moments:
            self._set_moments(moments)

    def _shard(self) -> None:
        """Before DeepSpeed sees the model."""

    # -- a step ---------------------------------------------------------------------------------------------------------------

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        self._engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def forward(self, batch: Any) -> Any:
        return self._engine(lambda: self.model(batch))

    def backward(self, loss: Tensor, last: bool) -> None:
        self._engine.backward(loss)

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> float:
        pieces = list(self._gradients(parameters))
        squares = torch.zeros((), dtype=torch.float64, device=self._accelerator.device)
        for piece in pieces:
            squares += piece.detach().double().square().sum()
        dist.all_reduce(squares)
        norm = math.sqrt(float(squares)) if math.isfinite(float(squares)) else math.nan
        if limit and norm > limit:
            for piece in pieces:
                piece.mul_(limit / (norm + 1e-6))  # as torch's clip_grad_norm_
        return norm

    def clip_values(self, limit: float) -> None:
        for piece in self._gradients(self._parameters):
            piece.clamp_(-limit, limit)

    def _gradients(self, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
        """This process's pieces of the averaged gradients: to be changed in place."""
        for parameter in parameters:
            address: Any = parameter._hp_mapping  # type: ignore[attr-defined]
            if address is not None:
                yield address.get_lp_grad_fragment(parameter._index_in_param_group)  # type: ignore[attr-defined]

    def step(self) -> None:
        self._engine.step()

    def take_in(self, parameters: Sequence[nn.Parameter]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        for parameter in parameters:
            safe_set_full_fp32_param(parameter, parameter.detach())

    def discard(self) -> None:
        """DeepSpeed skips an update whose gradient is not finite, and tidies up after it."""
        for piece in self._gradients(self._parameters):
            piece.fill_(math.nan)
        self._engine.step()

    def call(self, work: Callable[[], T]) -> T:
        return self._engine.module(work)

    # -- state ----------------------------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(parameter).view(_shape(parameter)) for name, parameter in self._named}

    def moments(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        state: dict[str, Any] = next(iter(self.optimizer.state.values()), {})
        found = {}
        for name, parameter in self._named if state else ():
            for moment in state:
                if moment == "step":
                    found[f"step:{name}"] = state["step"]
                else:
                    found[f"{moment}:{name}"] = safe_get_full_optimizer_state(parameter, moment).view(_shape(parameter))
        return found

    def _flat(self) -> list[Tensor]:
        """The flat pieces that the optimizer moves here."""
        return list(self._zero.single_partition_of_fp32_groups)

    def _set_moments(self, moments: dict[str, Tensor]) -> None:
        """All parameters were moved equally often under every strategy that spreads the optimizer."""
        kinds = {key.partition(":")[0] for key in moments} - {"step"}
        steps = max(float(value) for key, value in moments.items() if key.startswith("step:"))
        for piece in self._flat():
            self.optimizer.state[piece] = {"step": torch.tensor(steps), **{kind: torch.zeros_like(piece) for kind in kinds}}
        self._link()
        for name, parameter in self._named:
            for kind in kinds:
                if f"{kind}:{name}" in moments:
                    self._set_moment(parameter, kind, moments[f"{kind}:{name}"])

    def _link(self) -> None:
        """Let parameters find their part of a state that was not made by a step."""
        self._zero._lazy_init_hp_params_optimizer_state()

    def _set_moment(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(parameter, value.to(self._accelerator.device), kind)

    def is_active(self) -> bool:
        return int(self._engine.zero_optimization_stage()) == self.stage and self._engine.dp_world_size == self.world


class Zero3(Zero2):
    """Weights, gradients and optimizer state spread over all processes. What is trained and small is kept gathered."""

    name = "zero3"
    stage = 3
    shards = True

    def _prepare(self) -> None:
        super()._prepare()
        self._keep_gathered()
        self.model.language.synced = True

    def _shard(self) -> None:
        """Module by module, each from a copy of its weights: DeepSpeed writes into what it is given, and those are pages of the
        weight files that all processes of a machine share. On a GPU the copy is the one there."""
        import deepspeed

        config = self._accelerator.state.deepspeed_plugin.deepspeed_config
        # Vectors (norms, biases) are not worth a message each time they are used; DeepSpeed's own bound is a number of elements.
        vectors = int(sum(parameter.numel() for parameter in self.model.parameters()) * NEGLIGIBLE)
        config["zero_optimization"].setdefault("stage3_param_persistence_threshold", vectors)
        modules = list(_own_parameters(self.model))
        staging = Staging(modules) if self._accelerator.device.type == "cpu" else None
        for own in modules:
            if staging is not None:
                staging.move_in(own)
            deepspeed.zero.Init(module=nn.ParameterList(own), config_dict_or_path=config)

    def _keep_gathered(self) -> None:
        """What is read outside the forward pass of its own module must never be away; so must what is trained, for its gradient
        to have a shape. A language model that is trained itself is too large for that but for its table and head."""
        head, embedding = ends(self.model)
        language = set(self.model.language.parameters()) if head is not None else set()
        inside = {*language, *(() if self.model.vision is None else self.model.vision.parameters())}
        large = language - {head.weight, embedding.weight} if _trains_all(self.model) else set()
        wanted = [p for p in self.model.parameters() if p not in large and (p.requires_grad or p not in inside)]
        held = self._zero.persistent_parameters
        for parameter in wanted:
            if not parameter.ds_persist:  # type: ignore[attr-defined]
                parameter.ds_persist = True  # type: ignore[attr-defined]
                held.append(parameter)
        self._gather_held()

    def _gather_held(self) -> None:
        held = self._zero.persistent_parameters
        if held:
            held[0].all_gather(held)

    # -- a step ---------------------------------------------------------------------------------------------------------------

    def _gradients(self, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
        from deepspeed.utils import safe_get_local_grad, safe_set_local_grad

        for parameter in parameters:
            piece = safe_get_local_grad(parameter)
            yield piece
            safe_set_local_grad(parameter, piece)

    def take_in(self, parameters: Sequence[nn.Parameter]) -> None:
        from deepspeed.utils import safe_set_local_fp32_param

        for parameter in parameters:
            safe_set_local_fp32_param(parameter, self._piece(parameter, parameter.detach()))

    def discard(self) -> None:
        super().discard()
        self._gather_held()

    # -- state ----------------------------------------------------------------------------------------------------------------

    def _flat(self) -> list[Tensor]:
        return list(self._zero.fp32_partitioned_groups_flat)

    def _link(self) -> None:
        """Pieces of parameters are found by their place."""

    def _set_moment(self, parameter: nn.Parameter, kind: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        safe_set_local_optimizer_state(parameter, self._piece(parameter, value), kind)

    def _piece(self, parameter: nn.Parameter, value: Tensor) -> Tensor:
        """This process's part of a whole tensor, as DeepSpeed cuts it: flat, in equal pieces, the last ones filled with zeros."""
        length = int(parameter.ds_tensor.numel())  # type: ignore[attr-defined]
        padded = value.new_zeros(length * self.world)
        padded[: value.numel()] = value.reshape(-1)
        return padded[length * dist.get_rank() :][:length].to(self._accelerator.device)

    def most_here(self) -> int:
        return sum(self._at_most(parameter) for parameter in self.model.parameters() if not parameter.requires_grad)

    def _at_most(self, parameter: Any) -> int:
        kept = parameter.ds_numel if parameter.ds_persist else 0
        return int(kept + -(-parameter.ds_numel // self.world)) * int(parameter.element_size())


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """Let DeepSpeed send no frozen weights from rank 0 to all when it starts, as with DDP.

    It leaves out what bears the mark of its own quantised layers.
    """
    frozen: list[Any] = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.ds_optim_param = True
    try:
        yield
    finally:
        for parameter in frozen:
            del parameter.ds_optim_param


def _own_parameters(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The parameters of each module without those of modules inside it, last module first; a shared one comes up once."""
    seen: set[nn.Parameter] = set()
    for module in reversed(list(model.modules())):
        own = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]
        seen.update(own)
        if own:
            yield own


def _trains_all(model: Any) -> bool:
    return isinstance(model.language, CausalLanguage) and model.language.options.train == "full"


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)
