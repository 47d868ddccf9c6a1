"""Is what came out the network that went in? Asked of files that may be damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from pascalc.compiler import default_output
from pascalc.modelfile import load
from pascalc.verifier import verify
from tests.helpers import run, with_bodies

#: Samples of each case, and the size of other dynamic dimensions.
SAMPLES, DYNAMIC = 4, 8


def _inputs(path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in load(path).interface_inputs:
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.dim_value > 0 else DYNAMIC for d in tensor.shape.dim]
        if not tensor.shape.dim[0].dim_value:
            dims[0] = SAMPLES
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[value.name] = rng.normal(0, 1, dims).astype(dtype)
    return feeds


def run_source(path: Path) -> str:
    """Run the source in onnxruntime; raises where that cannot, or onnx finds its shapes contradictory."""
    onnx.shape_inference.infer_shapes(with_bodies(onnx.load(path)), strict_mode=True)
    with np.errstate(all="ignore"):
        outputs = run(with_bodies(onnx.load(path)), _inputs(path))
    if not all(np.isfinite(o).all() for o in outputs if o.dtype.kind == "f"):
        raise FloatingPointError("the source network's outputs are not finite")
    return ""


def verify_compiled(path: Path) -> str:
    """Verify the network compiled from the file; raises where it is not equivalent."""
    data = path.with_name("data.npz")
    inputs = _inputs(path)
    np.savez(data, **({"x": next(iter(inputs.values()))} if len(inputs) == 1 else inputs))
    result = verify(path, default_output(path), data, threads=1)
    if not result.equivalent:
        raise AssertionError("; ".join(result.findings()))
    return ""
