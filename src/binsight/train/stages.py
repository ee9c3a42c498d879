"""A backbone cut where its learning part begins: the frozen stages in float32, and what follows them.

What frozen stages compute in bfloat16 is wrong in the same way for every picture (their weights are rounded), what learns on
top of it learns that error too, and counts worse where photos are answered in float32 (LOG.md, 2026-11-21). So they run in
float32 here, and what they compute can be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

_TOLERANCE = 1e-4  # of the largest feature: both halves one after the other compute what the whole does


class _Reached(Exception):  # no error: it leaves a forward pass half-way
    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps


@final
class FrozenStages:
    """The two halves of a backbone. It holds its modules and no weights of its own, so it may be copied along with them."""

    def __init__(self, backbone: nn.Module, frozen: list[nn.Module], cut: nn.Module) -> None:
        self._backbone, self._frozen, self._cut = backbone, frozen, cut

    def maps(self, planes: Tensor) -> Tensor:
        """What the frozen stages compute of planes (n, 3, h, w), in float32 and without gradients: (n, channels, h', w')."""
        hook = self._cut.register_forward_pre_hook(_stop)
        try:
            with torch.no_grad(), torch.autocast(planes.device.type, enabled=False):
                self._backbone(planes.float())
        except _Reached as reached:
            return reached.maps
        finally:
            hook.remove()
        raise AssertionError("the first learning module was not reached")

    def features(self, maps: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Pooled features float32 (n, dim) of `maps`, as the learning part computes them. run: the backbone, compiled."""
        with _passed_over(self._frozen):
            pooled = (self._backbone if run is None else run)(maps)
        return pooled.float()


def cut(backbone: nn.Module, planes: Tensor) -> FrozenStages | None:
    """The backbone's halves, found by one pass of planes (n, 3, h, w); None where nothing is frozen or nothing learns.

    None too where one tensor does not say all that the learning part has to know: the halves are run and compared with the
    whole.
    """
    if all(value.requires_grad for value in backbone.parameters()) or not any(
        value.requires_grad for value in backbone.parameters()
    ):
        return None
    was_training = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        with torch.no_grad(), torch.autocast(planes.device.type, enabled=False):
            begun, ended, whole = _followed(backbone, planes)
            halves = _halves(backbone, begun, ended)
            if halves is None:
                return None
            try:
                parts = halves.features(halves.maps(planes))
            except (RuntimeError, ValueError, TypeError, AssertionError):  # its halves do not fit together
                return None
        fits = parts.shape == whole.shape and bool((parts - whole).abs().max() <= _TOLERANCE * whole.abs().max())
        return halves if fits else None
    finally:
        for module, mode in was_training.items():
            module.training = mode


def _followed(backbone: nn.Module, planes: Tensor) -> tuple[dict[nn.Module, int], dict[nn.Module, int], Tensor]:
    """When each module began and ended in one pass, as numbers that grow, and what came of the pass."""
    begun: dict[nn.Module, int] = {}
    ended: dict[nn.Module, int] = {}

    def begins(module: nn.Module, _: Any) -> None:  # its input
        begun.setdefault(module, len(begun) + len(ended))

    def ends(module: nn.Module, _: Any, __: Any) -> None:  # its input and output
        ended[module] = len(begun) + len(ended)

    hooks = [hook for module in backbone.modules() for hook in (
        module.register_forward_pre_hook(begins), module.register_forward_hook(ends),
    )]  # fmt: skip
    try:
        whole: Tensor = backbone(planes)
    finally:
        for hook in hooks:
            hook.remove()
    return begun, ended, whole


def _halves(backbone: nn.Module, begun: dict[nn.Module, int], ended: dict[nn.Module, int]) -> FrozenStages | None:
    learning = [module for module in begun if any(value.requires_grad for value in module.parameters())]
    whole = [module for module in learning if all(value.requires_grad for value in module.parameters())]
    if not whole:
        return None
    first = min(whole, key=lambda module: begun[module])  # of modules that hold each other the outer one begins first
    before = [module for module in ended if ended[module] < begun[first]]
    if any(not value.requires_grad for module in begun if begun[module] > begun[first] for value in module.parameters()):
        return None  # what learns is followed by what does not
    inner = {child for module in before for child in module.modules() if child is not module}
    return FrozenStages(backbone, [module for module in before if module not in inner], first)


def _stop(_: nn.Module, given: tuple[Tensor, ...]) -> None:
    raise _Reached(given[0])


def _same(value: Tensor) -> Tensor:
    return value


@contextmanager
def _passed_over(modules: list[nn.Module]) -> Iterator[None]:
    """Calls of these modules give back what they were given."""
    for module in modules:
        module.forward = _same  # of this object alone, and only here
    try:
        yield
    finally:
        for module in modules:
            del module.forward
