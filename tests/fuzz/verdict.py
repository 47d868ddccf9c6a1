"""Is what came out the network that went in? Asked of files that may be damaged."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as runtime

from pascalc.compiler import default_output
from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.verifier import verify
from tests.helpers import run, with_bodies

#: Samples of each case, the size of other dynamic dimensions, and the most numbers of an input.
SAMPLES, DYNAMIC, LARGEST = 4, 8, 2**22

#: What verify says of sources that are neither right nor wrong.
_NOTHING_TO_VERIFY = ("the source network computes NaN", "Failed to allocate memory", "rounding alone can move")
VERIFIED, NOT_RUNNABLE = "verified", "not runnable"
RUNTIME_ERRORS = tuple(v for v in vars(runtime).values() if isinstance(v, type) and issubclass(v, Exception))


def _inputs(path: Path) -> dict[str, np.ndarray] | None:
    """Random inputs; None where one is too large."""
    rng = np.random.default_rng(0)
    feeds = {}
    for value in load(path).interface_inputs:
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.dim_value > 0 else DYNAMIC for d in tensor.shape.dim]
        if not tensor.shape.dim[0].dim_value:
            dims[0] = SAMPLES
        if prod(dims) > LARGEST:
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        pixels = dtype == np.uint8
        feeds[value.name] = rng.integers(0, 256, dims).astype(dtype) if pixels else rng.normal(0, 1, dims).astype(dtype)
    return feeds


def check(path: Path) -> str:
    """Whether the network compiled from the file verifies against it: VERIFIED, or NOT_RUNNABLE where there is
    nothing to verify against: onnxruntime cannot run the source, onnx finds its shapes contradictory, what it computes
    is not finite, or it takes more memory than there is.

    Raises:
        AssertionError: it is not equivalent, and why.
    """
    inputs = _inputs(path)
    if inputs is None:
        return NOT_RUNNABLE
    try:
        onnx.shape_inference.infer_shapes(with_bodies(onnx.load(path)), strict_mode=True)
        outputs = run(with_bodies(onnx.load(path)), inputs)
    except (onnx.shape_inference.InferenceError, *RUNTIME_ERRORS):
        return NOT_RUNNABLE
    if not all(np.isfinite(o).all() for o in outputs if o.dtype.kind == "f"):
        return NOT_RUNNABLE
    data = path.with_name("data.npz")
    np.savez(data, **({"x": next(iter(inputs.values()))} if len(inputs) == 1 else inputs))
    try:
        result = verify(path, default_output(path), data, threads=1)
    except CompileError as error:
        if any(text in error.message for text in _NOTHING_TO_VERIFY):
            return NOT_RUNNABLE
        raise
    if not result.equivalent:
        raise AssertionError("; ".join(result.findings()))
    return VERIFIED
