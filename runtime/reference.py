"""The NumPy kernels under the ONNX reference evaluator."""

from __future__ import annotations

from typing import Any

from onnx.reference.op_run import OpRun

from pascalc.ops import DOMAIN
from pascalc.runtime.kernels import KERNELS, FloatArray, Kernel


def reference_ops(staged: bool = False) -> list[type[OpRun]]:
    """The neurons as operators for ``onnx.reference.ReferenceEvaluator(model, new_ops=reference_ops())``.

    They take the place of the function bodies that the model carries. Without them the evaluator runs those bodies on
    NumPy's einsum, which adds the steps in another order where a layer is a single neuron and the batch one sample;
    then a current on a half point may be rounded the other way. Everywhere else all executors agree bit for bit.

    Args:
        staged: run the neurons step by step instead of in closed form; the spikes are the same.
    """

    return [_operator(kernel, staged) for kernel in KERNELS.values()]


def _operator(kernel: Kernel, staged: bool) -> type[OpRun]:
    def run(self: OpRun, *inputs: FloatArray, label: str, **attributes: Any) -> tuple[FloatArray]:
        if staged and kernel.staged is not None:
            return (kernel.staged(*inputs, **attributes)[0],)
        return (kernel.run(*inputs, **attributes),)

    return type(kernel.operator.name, (OpRun,), {"op_domain": DOMAIN, "_run": run})
