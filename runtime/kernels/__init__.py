"""NumPy kernels of the neurons, a file a neuron, as pure functions on arrays of float32, or of float64 in networks that
compute in it.

Each kernel keeps the float semantics of its operator in :mod:`pascalc.ops` bit for bit, so that its spikes are those
of the ONNX function body in any runtime. The time axis is folded into the batch, step by step: ``[T*N, d...]``
reshapes to ``[T, N, d...]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pascalc.ops import MULTI_THRESHOLD, MULTI_THRESHOLD_IF, PASC_IF, QCFS, IntegrateAndFire, Operator
from pascalc.runtime.kernels.common import Events, FloatArray
from pascalc.runtime.kernels.integrate_and_fire import integrate_and_fire, integrate_and_fire_counted
from pascalc.runtime.kernels.multi_threshold import multi_threshold, multi_threshold_if, multi_threshold_if_staged
from pascalc.runtime.kernels.pasc import pasc_if, pasc_if_staged
from pascalc.runtime.kernels.qcfs import qcfs


@dataclass(frozen=True)
class Kernel:
    """What computes an operator.

    Attributes:
        operator: the operator.
        run: takes the inputs and, by name, the attributes save the label; gives Y.
        staged: the same step by step, with the events inside; None where nothing happens over time.
    """

    operator: Operator
    run: Callable[..., FloatArray]
    staged: Callable[..., tuple[FloatArray, Events]] | None = None

    @property
    def attributes(self) -> list[str]:
        """The names of the attributes that it takes."""
        return [attribute.name for attribute in self.operator.attributes if attribute.name != "label"]


#: The kernel of every neuron, by its operator.
KERNELS: Mapping[str, Kernel] = {
    kernel.operator.name: kernel
    for kernel in (
        Kernel(QCFS, qcfs),
        Kernel(PASC_IF, pasc_if, pasc_if_staged),
        Kernel(MULTI_THRESHOLD, multi_threshold),
        Kernel(MULTI_THRESHOLD_IF, multi_threshold_if, multi_threshold_if_staged),
        Kernel(IntegrateAndFire.operator, integrate_and_fire, integrate_and_fire_counted),
    )
}

__all__ = ["KERNELS", "Events", "FloatArray", "Kernel"]
