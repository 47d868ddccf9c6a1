"""The paper's networks as ONNX graphs, read by pascalc's own analysis.

Only shapes matter here, so all weights lie in one sparse file of zeros, which the compiler maps and nobody reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from pascalc import pipeline
from pascalc.energy import ASSUMED_SPIKE_RATE, Layer
from pascalc.modelfile import load
from pascalc.network import layout
from pascalc.ops import DOMAIN, DOMAIN_VERSION
from pascalc.passes import ANALYSIS

_ZEROS = "zeros.data"


class _Graph:
    """A network in the making; ``x`` is the tensor that the next node reads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.nodes: list[onnx.NodeProto] = []
        self.weights = [helper.make_tensor("theta", TensorProto.FLOAT, [], [1.0])]
        self.x = "image"

    def conv(self, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        attributes = {"strides": [stride] * 2, "pads": [kernel // 2] * 4}
        self._node("Conv", name, [self.x, self._weight(name, outputs, inputs, kernel, kernel)], **attributes)

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self._node("Gemm", name, [self.x, self._weight(name, outputs, inputs)], transB=1)

    def qcfs(self, name: str) -> None:
        self._node("QCFS", name, [self.x, "theta"], domain=DOMAIN, levels=1, phi=0.5, label=name)

    def max_pool(self, name: str, kernel: int, stride: int) -> None:
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [(kernel - 1) // 2] * 4}
        self._node("MaxPool", name, [self.x], **attributes)

    def average(self, name: str) -> None:
        self._node("GlobalAveragePool", name, [self.x])

    def flatten(self, name: str) -> None:
        self._node("Flatten", name, [self.x])

    def add(self, name: str, other: str) -> None:
        self._node("Add", name, [self.x, other])

    def model(self, classes: int) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "network",
            [value("image", TensorProto.FLOAT, ["batch", 3, self.size, self.size])],
            [value(self.x, TensorProto.FLOAT, ["batch", classes])],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def _node(self, op: str, name: str, inputs: Sequence[str], **attributes: object) -> None:
        self.x = f"{name}:{op}"
        self.nodes.append(helper.make_node(op, inputs, [self.x], name, **attributes))

    def _weight(self, name: str, *shape: int) -> str:
        tensor = TensorProto(name=f"{name}.weight", data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=_ZEROS)
        self.weights.append(tensor)
        return tensor.name


def vgg16(size: int, classes: int) -> onnx.ModelProto:
    """VGG-16: 13 convolutions and 3 linear layers, 15 of them with QCFS; 2x2 pooling after each of five stages."""
    graph = _Graph(size)
    inputs = 3
    for stage, (channels, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        for index in range(1, depth + 1):
            graph.conv(f"conv{stage}_{index}", inputs, channels, 3)
            graph.qcfs(f"act{stage}_{index}")
            inputs = channels
        graph.max_pool(f"pool{stage}", 2, 2)
    graph.flatten("flatten")
    graph.linear("fc1", 512 * (size // 32) ** 2, 4096)
    graph.qcfs("act_fc1")
    graph.linear("fc2", 4096, 4096)
    graph.qcfs("act_fc2")
    graph.linear("fc3", 4096, classes)
    return graph.model(classes)


def resnet(depths: Sequence[int], size: int, classes: int) -> onnx.ModelProto:
    """ResNet of basic blocks: for 32 x 32 images a 3x3 stem, for larger ones 7x7 of stride 2 and pooling."""
    graph = _Graph(size)
    if size == 32:
        graph.conv("conv1", 3, 64, 3)
        graph.qcfs("act1")
    else:
        graph.conv("conv1", 3, 64, 7, stride=2)
        graph.qcfs("act1")
        graph.max_pool("pool1", 3, 2)
    inputs = 64
    for stage, depth in enumerate(depths):
        channels = 64 << stage
        for index in range(depth):
            name = f"stage{stage + 1}_block{index + 1}"
            stride = 2 if stage and not index else 1
            shortcut = block = graph.x
            if inputs != channels:
                graph.conv(f"{name}_shortcut", inputs, channels, 1, stride)
                shortcut, graph.x = graph.x, block
            graph.conv(f"{name}_a", inputs, channels, 3, stride)
            graph.qcfs(f"{name}_act_a")
            graph.conv(f"{name}_b", channels, channels, 3)
            graph.add(f"{name}_add", shortcut)
            graph.qcfs(f"{name}_act_b")
            inputs = channels
    graph.average("average")
    graph.flatten("flatten")
    graph.linear("fc", inputs, classes)
    return graph.model(classes)


def analyse(model: onnx.ModelProto) -> list[Layer]:
    """The linear layers of a network, as pascalc reads them from its file.

    Levels are 1, and inputs that are not analog spike at the paper's assumed rate.
    """
    with tempfile.TemporaryDirectory() as folder:
        largest = max(prod(tensor.dims) for tensor in model.graph.initializer)
        with (Path(folder) / _ZEROS).open("wb") as zeros:
            zeros.truncate(4 * largest)
        file = Path(folder) / "network.onnx"
        file.write_bytes(model.SerializeToString())
        network = load(file)
        pipeline.run(network, ANALYSIS)
        # steps follow from the levels that a table gives the layers
        return [replace(x.energy_layer(ASSUMED_SPIKE_RATE), steps_read=None) for x in layout(network).layers]
