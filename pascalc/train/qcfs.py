"""QCFS, the activation that a spiking neuron can compute exactly: quantise, clip, floor, shift.

Formula: Bu et al., "Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks",
ICLR 2022, with the shift phi = 1/2 that the paper shows to be the best one:

    h(z) = theta * floor(clip(z / theta, 0, 1) * L + 1/2) / L

(The paper prints floor before clip; both orders give the same bits.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pascalc.errors import CompileError
from pascalc.ops import MAX_LEVELS

THETA_FLOOR = 2.0**-10
"""The smallest theta that a QCFS computes with (see :class:`QCFS`)."""


class _FloorStraightThrough(torch.autograd.Function):
    """floor whose gradient is 1, so that training sees through the staircase. Exports as a plain Floor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.floor(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _AtLeast(torch.autograd.Function):
    """max(theta, floor) whose gradient still raises a theta that lies below the floor, and never lowers it further."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, floor: float) -> Tensor:
        ctx.save_for_backward(theta > floor)
        return torch.clamp(theta, min=floor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        # Descent goes against the gradient: a negative one raises theta.
        return torch.where(above, grads[0], grads[0].clamp(max=0.0)), None


def quantise(x: Tensor, theta: Tensor, levels: int) -> Tensor:
    """QCFS as a function; the formula and its source are at the top of this module.

    Args:
        x: float, any shape.
        theta: float, broadcastable to x, all positive.
        levels: L, the number of steps of the staircase.

    Returns:
        The same shape as x; every value is theta * k / L with an integer k in 0..L.
    """
    u = torch.clamp(x / theta, 0.0, 1.0)
    count: Tensor = _FloorStraightThrough.apply(u * levels + 0.5)  # type: ignore[no-untyped-call]
    return count / levels * theta


class QCFS(nn.Module):
    """The QCFS activation with a learned threshold: a drop-in replacement for ReLU.

    Args:
        levels: L, 1 to 255. The compiled network spikes for L time steps.
        theta: the initial threshold, positive and finite. 4 to 8 is a good start: theta shrinks in training.
        channels: None for one theta per layer; otherwise the number of channels, for one theta per channel.

    Attributes:
        theta: the parameter, float32, shape ``[1]``, or ``[channels]`` where they were given.
        levels: L; may be changed between two forward passes.
        channels: as given.

    Input and output: float, the same shape ``[N, ...]``; per channel, axis 1 is the channel axis.

    Raises:
        CompileError: levels, theta or channels out of range.

    A theta of zero or less has no meaning and divides by zero, and gradient descent does take it there. So the module
    computes with ``max(theta, THETA_FLOOR)``, the *effective* theta, in training, in evaluation and in the exported
    file. Below the floor only a gradient that raises theta passes, so a theta that fell below it comes back as soon as
    the loss wants it larger. A theta that is NaN stays NaN, since that training has diverged and hiding it helps
    nobody; the export refuses it.
    """

    theta: nn.Parameter

    def __init__(self, levels: int = 4, theta: float = 8.0, channels: int | None = None) -> None:
        super().__init__()
        check_levels(levels)
        if not (math.isfinite(theta) and theta > 0):
            raise CompileError(f"theta must be a positive number, not {theta}", hint="Start from 4 to 8.")
        if channels is not None and channels < 1:
            raise CompileError(f"channels must be 1 or more, not {channels}")
        self.levels = levels
        self.channels = channels
        self.theta = nn.Parameter(torch.full((1 if channels is None else channels,), float(theta)))

    def effective_theta(self) -> Tensor:
        """The theta that the module computes with: the shape of the parameter, never below THETA_FLOOR."""
        effective: Tensor = _AtLeast.apply(self.theta, THETA_FLOOR)  # type: ignore[no-untyped-call]
        return effective

    def forward(self, x: Tensor) -> Tensor:
        theta = self.effective_theta()
        return quantise(x, theta if self.channels is None else along_channels(theta, x), self.levels)

    def extra_repr(self) -> str:
        theta = f"theta={self.theta.item():g}" if self.channels is None else f"channels={self.channels}"
        return f"levels={self.levels}, {theta}"


def along_channels(theta: Tensor, x: Tensor) -> Tensor:
    """A theta of C values as ``[C, 1, ...]``, which broadcasts along axis 1 of x ``[N, C, ...]``."""
    return theta.reshape(-1, *(1,) * (x.dim() - 2))


def check_levels(levels: object) -> int:
    """``levels`` itself where it is an int from 1 to 255.

    Raises:
        CompileError: it is anything else.
    """
    if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= MAX_LEVELS:
        raise CompileError(f"levels must be a whole number from 1 to {MAX_LEVELS}, not {levels!r}")
    return levels
