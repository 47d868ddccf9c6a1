"""NumPy kernels of the neurons, a file a neuron, as pure functions on arrays of float32, or of float64 in networks that
compute in it.

Each kernel keeps the float semantics of its operator in :mod:`pascalc.ops` bit for bit, so that its spikes are those
of the ONNX function body in any runtime. The time axis is folded into the batch, step by step: ``[T*N, d...]``
reshapes to ``[T, N, d...]``.

The kernel of a model that is defined in ``pascalc/ops/<file>.py`` is the KERNEL of ``runtime/kernels/<file>.py``.
"""

from __future__ import annotations

from importlib import import_module

from pascalc.ops import NEURON_MODELS
from pascalc.runtime.kernels import multi_threshold, qcfs
from pascalc.runtime.kernels.common import Events, FloatArray, Kernel

#: The kernel of every neuron, by its operator.
KERNELS: dict[str, Kernel] = {
    kernel.operator.name: kernel for kernel in (qcfs.KERNEL, multi_threshold.KERNEL, multi_threshold.SPIKING_KERNEL)
} | {
    model.operator.name: import_module(f"{__name__}.{model.__module__.rpartition('.')[2]}").KERNEL
    for model in NEURON_MODELS.values()
}

__all__ = ["KERNELS", "Events", "FloatArray", "Kernel"]
