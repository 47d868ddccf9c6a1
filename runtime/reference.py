"""The NumPy kernels under the ONNX reference evaluator."""

from __future__ import annotations

from typing import Any

from onnx.reference.op_run import OpRun

from pascalc.ops import DOMAIN
from pascalc.runtime.kernels import FloatArray, pasc_if, pasc_if_staged, qcfs


def reference_ops(staged: bool = False) -> list[type[OpRun]]:
    """The neurons as operators for ``onnx.reference.ReferenceEvaluator(model, new_ops=reference_ops())``.

    They take the place of the function bodies that the model carries. Without them the evaluator runs those bodies on
    NumPy's einsum, which adds the steps in another order where a layer is a single neuron and the batch one sample;
    then a current on a half point may be rounded the other way. Everywhere else all executors agree bit for bit.

    Args:
        staged: run the neurons step by step instead of in closed form; the spikes are the same.
    """

    class PascIF(OpRun):
        op_domain = DOMAIN

        def _run(self, x: FloatArray, threshold: FloatArray, *, label: str, **attributes: Any) -> tuple[FloatArray]:
            if staged:
                return (pasc_if_staged(x, threshold, **attributes)[0],)
            return (pasc_if(x, threshold, **attributes),)

    class QCFS(OpRun):
        op_domain = DOMAIN

        def _run(self, x: FloatArray, threshold: FloatArray, *, label: str, **attributes: Any) -> tuple[FloatArray]:
            return (qcfs(x, threshold, **attributes),)

    return [PascIF, QCFS]
