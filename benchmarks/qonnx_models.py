"""The real QONNX files that the ``qonnx`` package carries as data: compiled in both schedules, and verified.

    pip install --no-deps qonnx
    python benchmarks/qonnx_models.py

ESPCN, the super-resolution network, has quantisers of 8 bits, so trains of 255 steps: unrolled it is verified on
images of 24 x 24, which it takes as well, being convolutional. Files without a quantiser have nothing that could spike.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

import pascalc
from pascalc.modelfile import load

#: Height and width in place of larger ones, in the unrolled schedule.
SIDE = 24
QUANTISERS = ("Quant", "IntQuant")


def smaller(source: Path, folder: Path) -> Path:
    """The file with images of SIDE x SIDE at most."""
    model = onnx.load(source)
    weights = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim[2:]:
            if value.name not in weights and dim.dim_value > SIDE:
                dim.dim_value = SIDE
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.Clear()
    del model.graph.value_info[:]
    onnx.save(model, folder / source.name)
    return folder / source.name


def row(source: Path, schedule: str, folder: Path) -> str:
    """A line of the table."""
    output, data = folder / "out.onnx", folder / "data.npz"
    pascalc.compile(source, output, schedule=schedule)
    rng = np.random.default_rng(0)
    inputs = {}
    for value in load(source).interface_inputs:
        shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
        inputs[value.name] = rng.random(shape, np.float32)
    np.savez(data, **inputs)
    result = pascalc.verify(source, output, data)
    levels = sorted({layer.levels for layer in result.layers})
    shapes = ", ".join("x".join(map(str, x.shape)) for x in inputs.values())
    half_points = sum(layer.half_points for layer in result.layers)
    verdict = "equivalent" if result.equivalent else "; ".join(result.findings())
    neurons = sum(layer.neurons for layer in result.layers)
    roots = sum(layer.root_mismatches for layer in result.layers)
    return f"{shapes} | {schedule} | {levels} | {neurons:,} | {roots} | {half_points} | {verdict} |"


def main() -> None:
    found = importlib.util.find_spec("qonnx")
    if found is None or not found.submodule_search_locations:
        sys.exit("the qonnx package is not installed: pip install --no-deps qonnx")
    root = Path(found.submodule_search_locations[0])
    print("| file | input | schedule | L | neurons | roots | at half points | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for source in sorted(root.rglob("*.onnx")):
        if any(node.op_type in QUANTISERS for node in onnx.load(source).graph.node):
            with tempfile.TemporaryDirectory() as folder:
                name = "/".join(source.relative_to(root / "data" / "onnx").parts)
                print(f"| {name} | {row(source, 'collapsed', Path(folder))}")
                print(f"| {name} | {row(smaller(source, Path(folder)), 'unrolled', Path(folder))}")


if __name__ == "__main__":
    main()
