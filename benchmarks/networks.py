"""QCFS networks with random weights, for measuring: built with onnx.helper alone.

A measurement needs realistic shapes and spike rates, not accuracy. Every builder tensor carries a sample of the values
that it takes, from which weights get the scale that keeps activations near a standard normal, and thresholds their
place at two standard deviations. About a fifth of the spikes that could be sent are sent, as in trained networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17

_SAMPLES = 4096


@dataclass(frozen=True)
class Tensor:
    """A tensor of the network: ``shape`` of one sample, ``values`` a sample of what it takes."""

    name: str
    shape: tuple[int, ...]
    values: NDArray[np.float64]


class Builder:
    """Writes a network node by node."""

    def __init__(self, levels: int, seed: int = 0) -> None:
        self.levels = levels
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(seed)
        self._half = self._initializer("half", np.float32(0.5))
        self._levels = self._initializer("levels", np.float32(levels))
        self._zero = self._initializer("zero", np.float32(0))
        self._one = self._initializer("one", np.float32(1))

    def input(self, *shape: int) -> Tensor:
        return Tensor("input", shape, self._rng.standard_normal(_SAMPLES))

    def conv(
        self, x: Tensor, channels: int, kernel: int, stride: int = 1, batch_norm: bool = False, gain: float = 1.0
    ) -> Tensor:
        """Conv of ``kernel`` x ``kernel``, padded to keep the size, and BatchNormalization where asked for."""
        name = f"conv{len(self.nodes)}"
        weight = self._weight(name, (channels, x.shape[0], kernel, kernel), x, gain)
        inputs = [x.name, weight] if batch_norm else [x.name, weight, self._bias(name, channels)]
        pad = kernel // 2
        size = [(s + 2 * pad - kernel) // stride + 1 for s in x.shape[1:]]
        out = self._node("Conv", name, inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
        if batch_norm:
            parameters = [
                self._initializer(f"{name}/gamma", self._rng.uniform(0.9, 1.1, channels).astype(np.float32)),
                self._bias(f"{name}/beta", channels),
                self._initializer(f"{name}/mean", self._rng.normal(0, 0.1, channels).astype(np.float32)),
                self._initializer(f"{name}/var", self._rng.uniform(0.9, 1.1, channels).astype(np.float32)),
            ]
            out = self._node("BatchNormalization", f"{name}/bn", [out, *parameters])
        return Tensor(out, (channels, *size), gain * self._rng.standard_normal(_SAMPLES))

    def linear(self, x: Tensor, features: int) -> Tensor:
        name = f"fc{len(self.nodes)}"
        weight = self._weight(name, (features, x.shape[0]), x, 1.0)
        out = self._node("Gemm", name, [x.name, weight, self._bias(name, features)], transB=1)
        return Tensor(out, (features,), self._rng.standard_normal(_SAMPLES))

    def qcfs(self, x: Tensor) -> Tensor:
        """theta * clip(floor(x/theta * L + 1/2)/L, 0, 1) in the form that PyTorch exports."""
        scope = f"act{len(self.nodes)}"
        theta = np.float32(2 * np.sqrt(np.mean(x.values**2)))
        threshold = self._initializer(f"{scope}/theta", np.array([theta], np.float32))
        name = x.name
        for number, (op, *operands) in enumerate(
            (
                ("Div", threshold),
                ("Clip", self._zero, self._one),
                ("Mul", self._levels),
                ("Add", self._half),
                ("Floor",),
                ("Div", self._levels),
                ("Mul", threshold),
            )
        ):
            name = self._node(op, f"{scope}/{op}_{number}", [name, *operands])
        count = np.clip(np.floor(x.values * self.levels / theta + 0.5), 0, self.levels)
        return Tensor(name, x.shape, count * theta / self.levels)

    def max_pool(self, x: Tensor, kernel: int = 2, stride: int = 2, pad: int = 0) -> Tensor:
        name = f"pool{len(self.nodes)}"
        out = self._node("MaxPool", name, [x.name], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
        size = [(s + 2 * pad - kernel) // stride + 1 for s in x.shape[1:]]
        values = self._rng.choice(x.values, (kernel * kernel, _SAMPLES)).max(axis=0)
        return Tensor(out, (x.shape[0], *size), values)

    def average(self, x: Tensor) -> Tensor:
        """The average over all positions, flattened."""
        name = f"average{len(self.nodes)}"
        out = self._flat(self._node("GlobalAveragePool", name, [x.name]))
        return Tensor(out, x.shape[:1], self._rng.choice(x.values, (int(np.prod(x.shape[1:])), _SAMPLES)).mean(axis=0))

    def flatten(self, x: Tensor) -> Tensor:
        return Tensor(self._flat(x.name), (int(np.prod(x.shape)),), x.values)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        out = self._node("Add", f"add{len(self.nodes)}", [x.name, y.name])
        return Tensor(out, x.shape, x.values + self._rng.permutation(y.values))

    def model(self, source: Tensor, result: Tensor) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "output"
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(source.name, TensorProto.FLOAT, ["batch", *source.shape])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", *result.shape])],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def _flat(self, name: str) -> str:
        return self._node("Flatten", f"flatten{len(self.nodes)}", [name])

    def _node(self, op: str, name: str, inputs: Sequence[str], **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{name}:out"], name, **attributes))
        return f"{name}:out"

    def _weight(self, name: str, shape: tuple[int, ...], x: Tensor, gain: float) -> str:
        scale = np.float32(gain / np.sqrt(np.prod(shape[1:]) * np.mean(x.values**2)))
        return self._initializer(f"{name}/weight", self._rng.standard_normal(shape, np.float32) * scale)

    def _bias(self, name: str, size: int) -> str:
        return self._initializer(f"{name}/bias", self._rng.normal(0, 0.1, size).astype(np.float32))

    def _initializer(self, name: str, values: NDArray[np.float32] | np.float32) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name


def vgg16(levels: int = 4, *, batch_norm: bool = False, pool_first: bool = True) -> onnx.ModelProto:
    """VGG-16 for 32 x 32 images: 13 convolutions, 512-4096-4096-10; 33.6M weights.

    ``pool_first`` places MaxPool before the activation, as in Conv-BN-pool-QCFS, else behind it.
    """
    build = Builder(levels)
    x = source = build.input(3, 32, 32)
    for channels, layers in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for layer in range(layers):
            x = build.conv(x, channels, 3, batch_norm=batch_norm)
            if layer == layers - 1 and pool_first:
                x = build.max_pool(x)
            x = build.qcfs(x)
        if not pool_first:
            x = build.max_pool(x)
    x = build.flatten(x)
    for features in (4096, 4096):
        x = build.qcfs(build.linear(x, features))
    return build.model(source, build.linear(x, 10))


#: Depth -> (blocks in each stage, whether blocks are bottlenecks, width of the first stage).
RESNETS = {
    18: ((2, 2, 2, 2), False, 64),
    20: ((3, 3, 3), False, 16),
    34: ((3, 4, 6, 3), False, 64),
    152: ((3, 8, 36, 3), True, 64),
}


def resnet(depth: int, levels: int = 4, *, batch_norm: bool = False) -> onnx.ModelProto:
    """ResNet-20 for 32 x 32 images; ResNet-18, -34 and -152 for 224 x 224 images."""
    stages, bottleneck, width = RESNETS[depth]
    small = len(stages) == 3
    build = Builder(levels)
    x = source = build.input(3, *([32, 32] if small else [224, 224]))
    if small:
        x = build.qcfs(build.conv(x, width, 3, batch_norm=batch_norm))
    else:
        x = build.qcfs(build.conv(x, width, 7, 2, batch_norm))
        x = build.max_pool(x, 3, 2, 1)
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            x = _residual(build, x, width << stage, stride, bottleneck, batch_norm)
    return build.model(source, build.linear(build.average(x), 10 if small else 1000))


def _residual(build: Builder, x: Tensor, width: int, stride: int, bottleneck: bool, batch_norm: bool) -> Tensor:
    half = 2**-0.5  # the two branches have half the variance each
    if bottleneck:
        y = build.qcfs(build.conv(x, width, 1, 1, batch_norm))
        y = build.qcfs(build.conv(y, width, 3, stride, batch_norm))
        y = build.conv(y, 4 * width, 1, 1, batch_norm, half)
    else:
        y = build.qcfs(build.conv(x, width, 3, stride, batch_norm))
        y = build.conv(y, width, 3, 1, batch_norm, half)
    if y.shape != x.shape:
        x = build.conv(x, y.shape[0], 1, stride, batch_norm, half)
    return build.qcfs(build.add(y, x))


def chain(blocks: int, levels: int = 4) -> onnx.ModelProto:
    """A long and narrow network: ``blocks`` times Conv-QCFS, 8 nodes each."""
    build = Builder(levels)
    x = source = build.input(4, 8, 8)
    for _ in range(blocks):
        x = build.qcfs(build.conv(x, 4, 3))
    return build.model(source, x)
