"""Random small QCFS networks whose every float32 sum is exact.

Weights, biases and inputs are multiples of a power of two, thresholds and levels powers of two. For every tensor the
builder keeps its grid (values are multiples of ``2**-grid``) and a bound on its size; an operator whose result, divided
by the longest train, would need more than float32's 24 bits is followed by a neuron instead. So the order of summation
does not matter, and a compiled network must give exactly the source's outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log2, prod
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.helpers import constant, model_of

LEVELS = (1, 2, 4, 8, 16)
THETAS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Bits that float32 holds, that a split over the longest train (16 steps) adds, and that one operator may add.
BITS = 23
SPLIT = 4
HEADROOM = 10

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the network: shape of a sample, grid and bound."""

    name: str
    shape: tuple[int, ...]
    grid: int
    bound: float

    @property
    def bits(self) -> int:
        """Bits that its values take."""
        return self.grid + ceil(log2(max(self.bound, 1)))

    @property
    def fits(self) -> bool:
        """Whether every partial sum is exact in float32, also after division by the number of steps."""
        return self.bits + SPLIT + 1 <= BITS


@dataclass
class Builder:
    """The network so far."""

    draw: Draw
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    def name(self) -> str:
        return f"t{len(self.nodes)}_{len(self.constants)}"

    def const(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(constant(name, values, dtype))
        return name

    def weight(self, *shape: int) -> np.ndarray[Any, Any]:
        """Multiples of 1/4 from -1 to 1."""
        return self.rng.integers(-4, 5, shape) / 4

    def apply(self, op: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        name = self.name()
        self.nodes.append(onnx.helper.make_node(op, inputs, [name], name=f"/{name}/{op}", domain=domain, **attributes))
        return name

    def keep(self, name: str, shape: tuple[int, ...], grid: int, bound: float) -> Tensor:
        """Take the tensor into the network, behind a neuron where its numbers have grown too long."""
        tensor = Tensor(name, shape, grid, bound)
        if not tensor.fits:
            assert tensor.bits <= BITS  # the source itself is exact
            tensor = self.neuron(tensor)
        self.tensors.append(tensor)
        return tensor

    def neuron(self, x: Tensor) -> Tensor:
        levels = self.draw(st.sampled_from(LEVELS))
        theta = self.draw(st.sampled_from(THETAS))
        values: Any = np.float32(theta)
        if self.draw(st.booleans()):
            values = theta * 2.0 ** self.rng.integers(0, 2, (x.shape[0], *[1] * (len(x.shape) - 1)))
        if self.draw(st.booleans()):
            inputs = [x.name, self.const(values)]
            label = f"neuron{len(self.nodes)}"
            name = self.apply("QCFS", inputs, "ai.pascalc", levels=levels, phi=0.5, label=label)
        else:
            name = self.decomposed(x.name, levels, self.const(np.asarray(values)[None] if np.ndim(values) else values))
        bound = float(np.max(values))
        return Tensor(name, x.shape, max(0, ceil(log2(levels / float(np.min(values))))), bound)

    def spikes(self, x: Tensor) -> bool:
        """Whether the tensor depends on a neuron."""
        wanted = {x.name}
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                if node.op_type in ("QCFS", "Floor"):
                    return True
                wanted |= set(node.input)
        return False

    def decomposed(self, x: str, levels: int, theta: str) -> str:
        """The two usual modules."""
        count, half, zero, one = (self.const(v) for v in (levels, 0.5, 0, 1))
        first = self.draw(st.booleans())
        y = self.apply("Div", [x, theta])
        y = self.apply("Clip", [y, zero, one]) if first else y
        y = self.apply("Add", [self.apply("Mul", [y, count]), half])
        y = self.apply("Div", [self.apply("Floor", [y]), count])
        y = y if first else self.apply("Clip", [y, zero, one])
        return self.apply("Mul", [y, theta])


Operator = Callable[[Builder, Tensor], "Tensor | None"]


def neuron(b: Builder, x: Tensor) -> Tensor:
    tensor = b.neuron(x)
    b.tensors.append(tensor)
    return tensor


def row(b: Builder, x: Tensor) -> Tensor:
    """Neurons one behind the other."""
    for _ in range(b.draw(st.integers(2, 3))):
        x = b.neuron(x)
    b.tensors.append(x)
    return x


def conv(b: Builder, x: Tensor) -> Tensor | None:
    if len(x.shape) != 3:
        return None
    channels, height, width = x.shape
    group = b.draw(st.sampled_from([1, 2])) if channels % 2 == 0 else 1
    out = 2 * b.draw(st.integers(1, 2))
    size = b.draw(st.sampled_from([1, 3]))
    weight = b.weight(out, channels // group, size, size)
    inputs = [x.name, b.const(weight)]
    bound = x.bound * float(np.abs(weight).sum((1, 2, 3)).max())
    if b.draw(st.booleans()):
        inputs.append(b.const(2 * b.weight(out)))
        bound += 2
    name = b.apply("Conv", inputs, group=group, pads=[size // 2] * 4)
    return b.keep(name, (out, height, width), x.grid + 2, bound)


def conv_transpose(b: Builder, x: Tensor) -> Tensor | None:
    if len(x.shape) != 3 or x.shape[1] > 2:
        return None
    weight = b.weight(x.shape[0], 2, 2, 2)
    name = b.apply("ConvTranspose", [x.name, b.const(weight), b.const(b.weight(2))], strides=[2, 2])
    bound = x.bound * float(np.abs(weight).sum(0).max()) + 1
    return b.keep(name, (2, 2 * x.shape[1], 2 * x.shape[2]), x.grid + 2, bound)


def normalisation(b: Builder, x: Tensor) -> Tensor:
    channels = x.shape[0]
    gamma, beta, mean = (b.const(b.weight(channels)) for _ in range(3))
    var = b.const(4.0 ** b.rng.integers(-1, 2, channels))
    name = b.apply("BatchNormalization", [x.name, gamma, beta, mean, var], epsilon=0.0)
    return b.keep(name, x.shape, x.grid + 5, 2 * x.bound + 3)


def pool(b: Builder, x: Tensor) -> Tensor | None:
    if len(x.shape) != 3 or x.shape[1] < 2 or x.shape[2] < 2:
        return None
    if b.draw(st.booleans()):
        return ceil_pool(b, x)
    op = b.draw(st.sampled_from(["MaxPool", "MaxPool", "AveragePool"]))
    name = b.apply(op, [x.name], kernel_shape=[2, 2], strides=[2, 2])
    shape = (x.shape[0], x.shape[1] // 2, x.shape[2] // 2)
    return b.keep(name, shape, x.grid + 2 * (op == "AveragePool"), x.bound)


def ceil_pool(b: Builder, x: Tensor) -> Tensor:
    """A MaxPool with windows of 2 that rounds its size up; one that begins in the padding is left out."""
    stride = b.draw(st.integers(1, 3))
    pads = b.draw(st.lists(st.integers(0, 1), min_size=4, max_size=4))
    name = b.apply("MaxPool", [x.name], kernel_shape=[2, 2], strides=[stride] * 2, pads=pads, ceil_mode=1)
    sizes = []
    for size, before, behind in zip(x.shape[1:], pads[:2], pads[2:], strict=True):
        windows = ceil((size + before + behind - 2) / stride) + 1
        sizes.append(windows - ((windows - 1) * stride >= size + before))
    return b.keep(name, (x.shape[0], *sizes), x.grid, x.bound)


def global_pool(b: Builder, x: Tensor) -> Tensor | None:
    if len(x.shape) != 3 or prod(x.shape[1:]) not in (1, 2, 4, 8, 16):
        return None
    op = b.draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool", "ReduceMean"]))
    inputs = [x.name] if op != "ReduceMean" else [x.name, b.const([2, 3], np.int64)]
    name = b.apply(op, inputs)
    return b.keep(name, (x.shape[0], 1, 1), x.grid + 4 * (op != "GlobalMaxPool"), x.bound)


def matrix(b: Builder, x: Tensor) -> Tensor | None:
    if len(x.shape) != 1:
        return None
    out = b.draw(st.integers(1, 4))
    weight = b.weight(x.shape[0], out)
    bound = x.bound * float(np.abs(weight).sum(0).max())
    form = b.draw(st.sampled_from(["MatMul", "Gemm", "Gemm with all attributes"]))
    if form == "MatMul":
        return b.keep(b.apply("MatMul", [x.name, b.const(weight)]), (out,), x.grid + 2, bound)
    if form == "Gemm":
        name = b.apply("Gemm", [x.name, b.const(weight), b.const(b.weight(out))])
        return b.keep(name, (out,), x.grid + 2, bound + 1)
    inputs = [x.name, b.const(weight.T), b.const(b.weight(1, out))]
    name = b.apply("Gemm", inputs, alpha=0.5, beta=2.0, transB=1)
    return b.keep(name, (out,), x.grid + 3, bound + 2)


def flatten(b: Builder, x: Tensor) -> Tensor | None:
    if len(x.shape) != 3 or prod(x.shape) > 64:
        return None
    if b.draw(st.booleans()):
        name = b.apply("Flatten", [x.name])
    else:
        name = b.apply("Reshape", [x.name, b.const([-1, prod(x.shape)], np.int64)])
    return b.keep(name, (prod(x.shape),), x.grid, x.bound)


def affine(b: Builder, x: Tensor) -> Tensor:
    shape = (x.shape[0], *[1] * (len(x.shape) - 1))
    op = b.draw(st.sampled_from(["Mul", "Add", "Sub", "Neg"]))
    if op == "Neg":
        return b.keep(b.apply("Neg", [x.name]), x.shape, x.grid, x.bound)
    inputs = [x.name, b.const(b.weight(*shape))]
    if b.draw(st.booleans()):
        inputs.reverse()
    grid, bound = (x.grid + 2, x.bound) if op == "Mul" else (max(x.grid, 2), x.bound + 1)
    return b.keep(b.apply(op, inputs), x.shape, grid, bound)


def join(b: Builder, x: Tensor) -> Tensor:
    other = b.draw(st.sampled_from([t for t in b.tensors if t.shape == x.shape]))
    op = b.draw(st.sampled_from(["Add", "Add", "Sub", "Concat", "Mul"]))
    grid = max(x.grid, other.grid)
    if op == "Concat" and x.shape[0] <= 4:
        name = b.apply("Concat", [x.name, other.name], axis=1)
        return b.keep(name, (2 * x.shape[0], *x.shape[1:]), grid, max(x.bound, other.bound))
    if op == "Mul":
        product = Tensor("", x.shape, x.grid + other.grid, x.bound * other.bound)
        if product.fits:
            return b.keep(b.apply("Mul", [x.name, other.name]), x.shape, product.grid, product.bound)
    op = "Sub" if op == "Sub" else "Add"
    return b.keep(b.apply(op, [x.name, other.name]), x.shape, grid, x.bound + other.bound)


def gate(b: Builder, x: Tensor) -> Tensor | None:
    """A product with something smaller: a value for a channel, or for a place."""
    if len(x.shape) != 3:
        return None
    axes = b.draw(st.sampled_from([[1], [2, 3]]))
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape, 1))
    total = b.apply("ReduceSum", [x.name, b.const(axes, np.int64)])
    small = Tensor(total, shape, x.grid, x.bound * prod(x.shape) / prod(shape))
    if small.bits > BITS:
        return None
    other = b.neuron(small)
    product = Tensor("", x.shape, x.grid + other.grid, x.bound * other.bound)
    if not product.fits:
        return None
    inputs = [x.name, other.name]
    if b.draw(st.booleans()):
        inputs.reverse()
    return b.keep(b.apply("Mul", inputs), x.shape, product.grid, product.bound)


def attention(b: Builder, x: Tensor) -> Tensor | None:
    """A product of matrices: of rows of a tensor with those of one of its size."""
    if len(x.shape) != 3:
        return None
    other = b.draw(st.sampled_from([t for t in b.tensors if t.shape == x.shape]))
    channels, rows, width = x.shape
    product = Tensor("", (channels, rows, rows), x.grid + other.grid, x.bound * other.bound * width)
    if not product.fits:
        return None
    turned = b.apply("Transpose", [other.name], perm=[0, 1, 3, 2])
    return b.keep(b.apply("MatMul", [x.name, turned]), product.shape, product.grid, product.bound)


def pointwise(b: Builder, x: Tensor) -> Tensor:
    """Operators that cannot spike, and one that changes nothing."""
    op = b.draw(st.sampled_from(["Relu", "Abs", "Identity"]))
    return b.keep(b.apply(op, [x.name]), x.shape, x.grid, x.bound)


def movement(b: Builder, x: Tensor) -> Tensor | None:
    if len(x.shape) != 3:
        return None
    channels, height, width = x.shape
    op = b.draw(st.sampled_from(["Transpose", "Pad", "Resize", "Slice", "DepthToSpace"]))
    if op == "Transpose":
        perm = b.draw(st.permutations([1, 2, 3]))
        name = b.apply("Transpose", [x.name], perm=[0, *perm])
        return b.keep(name, tuple(x.shape[p - 1] for p in perm), x.grid, x.bound)
    if op == "DepthToSpace" and channels % 4 == 0 and height <= 2:
        name = b.apply("DepthToSpace", [x.name], blocksize=2)
        return b.keep(name, (channels // 4, 2 * height, 2 * width), x.grid, x.bound)
    if op == "Resize" and height <= 2 and width <= 2:
        name = b.apply("Resize", [x.name, "", b.const([1, 1, 2, 2])], mode="nearest")
        return b.keep(name, (channels, 2 * height, 2 * width), x.grid, x.bound)
    if op == "Slice" and height > 1:
        name = b.apply("Slice", [x.name, *(b.const([v], np.int64) for v in (1, height, 2))])
        return b.keep(name, (channels, height - 1, width), x.grid, x.bound)
    if height > 3:
        return None
    mode = b.draw(st.sampled_from(["constant", "constant", "edge"]))
    name = b.apply("Pad", [x.name, b.const([0, 0, 1, 0, 0, 0, 0, 0], np.int64)], mode=mode)
    padded = Tensor(name, (channels, height + 1, width), x.grid, x.bound)
    then = b.draw(st.sampled_from(["", "Reshape", "MaxPool"]))
    if then == "Reshape":  # two that onnxruntime removes
        name = b.apply("Reshape", [name, b.const([-1, prod(padded.shape)], np.int64)])
        name = b.apply("Reshape", [name, b.const([-1, *padded.shape], np.int64)])
    if then and width > 1:
        name = b.apply("MaxPool", [name], kernel_shape=[2, 2], pads=[0, 0, 1, 1])
    return b.keep(name, padded.shape, x.grid, x.bound)


def tokens(b: Builder, x: Tensor) -> Tensor | None:
    """Positions as samples of their own, a linear layer on each, and back."""
    if len(x.shape) != 3:
        return None
    channels, height, width = x.shape
    name = b.apply("Transpose", [x.name], perm=[0, 2, 3, 1])
    name = b.apply("Reshape", [name, b.const([-1, channels], np.int64)])
    weight = b.weight(channels, 2)
    name = b.apply("Gemm", [name, b.const(weight), b.const(b.weight(2))])
    bound = x.bound * float(np.abs(weight).sum(0).max()) + 1
    if b.draw(st.booleans()):
        layer = b.neuron(Tensor(name, (2,), x.grid + 2, bound))
        name, grid, bound = layer.name, layer.grid, layer.bound
    else:
        grid = x.grid + 2
    name = b.apply("Reshape", [name, b.const([-1, height, width, 2], np.int64)])
    return b.keep(b.apply("Transpose", [name], perm=[0, 3, 1, 2]), (2, height, width), grid, bound)


OPERATORS: tuple[Operator, ...] = (
    *(neuron, neuron, neuron, row, conv, conv, conv_transpose, normalisation, pool, pool, global_pool, matrix, matrix),
    *(flatten, affine, join, join, gate, attention, pointwise, movement, movement),
)


@dataclass(frozen=True)
class Result:
    """An output of a network that is no float: its element type, and the shape of a sample."""

    name: str
    shape: tuple[int, ...]
    kind: int


def tail(b: Builder, x: Tensor) -> Result:
    """The class or a decision instead of the numbers."""
    kind = onnx.TensorProto
    op = b.draw(st.sampled_from(["ArgMax", "TopK", "Greater"]))
    if op == "Greater":
        return Result(b.apply("Greater", [x.name, b.const(np.float32(0.25))]), x.shape, kind.BOOL)
    if op == "TopK":
        b.nodes.append(
            onnx.helper.make_node("TopK", [x.name, b.const([1], np.int64)], ["best", "place"], axis=1, name="/top")
        )
        return Result("place", (1, *x.shape[1:]), kind.INT64)
    name, shape = b.apply("ArgMax", [x.name], axis=1, keepdims=0), x.shape[1:]
    then = b.draw(st.sampled_from(["", "Add", "Cast", "Equal"]))
    if then == "Add":
        return Result(b.apply("Add", [name, b.const(1, np.int64)]), shape, kind.INT64)
    if then == "Cast":
        return Result(b.apply("Cast", [name], to=kind.FLOAT), shape, kind.FLOAT)
    if then == "Equal":
        return Result(b.apply("Equal", [name, b.const(0, np.int64)]), shape, kind.BOOL)
    return Result(name, shape, kind.INT64)


def preprocessing(b: Builder, shape: tuple[int, ...], is_bytes: bool) -> tuple[Tensor, tuple[int, ...]]:
    """What is computed of pixels [height, width, channels]; and the shape of these."""
    name, bound, grid = "x", 4.0, 2
    if is_bytes:
        name, bound, grid = b.apply("Cast", [name], to=onnx.TensorProto.FLOAT), 255.0, 0
    if b.draw(st.booleans()):
        mean = 8 * b.weight(shape[0])
        name, bound, grid = b.apply("Sub", [name, b.const(mean)]), bound + 8, max(grid, 1)
    if is_bytes or b.draw(st.booleans()):
        power = 6 if is_bytes else 1
        name, bound, grid = b.apply("Div", [name, b.const(np.float32(2**power))]), bound / 2**power, grid + power
    return Tensor(b.apply("Transpose", [name], perm=[0, 3, 1, 2]), shape, grid, bound), (*shape[1:], shape[0])


@st.composite
def networks(draw: Draw, operators: int = 10, *, odd: bool = False) -> onnx.ModelProto:
    """A network of up to about ``operators`` random operators with at least one neuron; inputs are those of
    :func:`tests.helpers.grid_inputs`. Some ``odd`` ones have several inputs, take bytes or compute their preprocessing,
    fold positions into the batch, or answer in integers or booleans."""
    b = Builder(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    shape: tuple[int, ...] = draw(st.sampled_from([(2, 4, 4), (1, 4, 4), (4, 2, 2), (3,)]))
    inputs, types = {"x": shape}, {}
    if odd and len(shape) == 3 and draw(st.booleans()):
        is_bytes = draw(st.booleans())
        first, inputs["x"] = preprocessing(b, shape, is_bytes)
        types["x"] = onnx.TensorProto.UINT8 if is_bytes else onnx.TensorProto.FLOAT
        b.tensors.append(first)
    else:
        b.tensors.append(Tensor("x", shape, 2, 4.0))
    if odd and draw(st.booleans()):
        inputs["second"] = shape
        b.tensors.append(Tensor("second", shape, 2, 4.0))
        join(b, b.tensors[0])
    for step in range(draw(st.integers(2, operators))):
        # mostly onwards from the last tensor, sometimes from an earlier one
        x = b.tensors[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(b.tensors))
        operator = neuron if step == 0 and draw(st.booleans()) else draw(st.sampled_from(OPERATORS))
        if odd and not draw(st.integers(0, 7)):
            operator = tokens
        operator(b, x if x.bits + HEADROOM <= BITS else neuron(b, x))
    if b.tensors[-1].name in inputs or not b.spikes(b.tensors[-1]):
        neuron(b, b.tensors[-1])
    computed = [t for t in b.tensors if t.name not in inputs]
    outputs: list[Tensor | Result] = [computed[-1]]
    if len(computed) > 1 and draw(st.booleans()):
        outputs.append(draw(st.sampled_from(computed[:-1])))
    if odd and draw(st.booleans()):
        outputs[0] = tail(b, computed[-1])
    batch = draw(st.sampled_from(["N", "N", 1]))
    return model_of(
        b.nodes,
        {name: [batch, *sample] for name, sample in inputs.items()},
        {t.name: [batch, *t.shape] for t in outputs},
        b.constants,
        types={**types, **{t.name: t.kind for t in outputs if isinstance(t, Result)}},
    )
