"""Strided depthwise convolutions that learn in float32 on a CPU, whatever the rest learns in.

In bfloat16 their gradients are left to oneDNN's reference code there: of MobileNetV2's last stages two such layers took half of
a training step, sixteen times as long as in float32 and more (LOG.md, 2026-11-22).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn


def strided_in_float32(network: nn.Module) -> int:
    """Let the strided depthwise convolutions that learn compute in float32 under autocast too; how many there are.

    Weights, their names and what float32 gives stay as they were.
    """
    found = [
        module
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
        and module.weight.requires_grad
        and module.groups == module.in_channels > 1
        and max(module.stride) > 1
    ]
    for module in found:
        # Copied and pickled along with the module.
        module.forward = partial(_in_float32, module)  # type: ignore[method-assign]
    return len(found)


def _in_float32(module: nn.Conv2d, planes: Tensor) -> Tensor:
    with torch.autocast(planes.device.type, enabled=False):
        given: Tensor = type(module).forward(module, planes.float())
        return given
