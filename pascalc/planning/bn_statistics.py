"""Level histograms without data: what the BatchNormalization parameters in a file say of the activations behind them.

Behind a BatchNormalization channel c is about N(beta_c, gamma_c^2 var_c/(var_c + eps)), whatever the weights are, since
that is what its statistics were taken for. From there distributions are pushed through the network, channel by channel:

- a QCFS turns one into level probabilities, and its output has the values k*theta/L with these probabilities;
- an addition adds independent terms, so a residual sum is a mixture of Gaussians about the levels of its shortcut;
- the maximum over a window of k values has the distribution function F^k, its values taken as independent;
- an average over k values has the variance divided by k;
- a linear layer without BatchNormalization sums its inputs as independent ones, to a Gaussian.

A layer's level probabilities are the mean over its channels: all have the same number of positions. These are
approximations (neighbouring values, and a shortcut and its branch, are not independent), good enough to rank layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from pascalc.activations import is_activation, theta
from pascalc.al.histograms import Histograms
from pascalc.al.metrics import Histogram
from pascalc.errors import CompileError
from pascalc.graph import Array, Model, has_tensor, is_constant, is_operator, sort
from pascalc.linear import is_layer

Values = npt.NDArray[np.float64]

TOTAL = 1_000_000
"""The sum of the entries of every histogram made from probabilities."""

#: More components a channel than this are replaced by the Gaussian of the same mean and variance.
_MOST_COMPONENTS = 256
#: Intervals that the distribution of a maximum is cut into.
_INTERVALS = 256

_erfc = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True)
class Mixture:
    """A distribution for each channel: a mixture of Gaussians, of which those of variance 0 are single values.

    Attributes:
        weights: float64 ``[C, J]``, rows that sum to 1.
        means: float64 ``[C, J]``.
        variances: float64 ``[C, J]``.
    """

    weights: Values
    means: Values
    variances: Values

    @classmethod
    def gaussian(cls, mean: Values, variance: Values) -> Mixture:
        """One Gaussian a channel, from arrays ``[C]``."""
        return cls(np.ones((len(mean), 1)), mean[:, None], variance[:, None])

    @property
    def channels(self) -> int:
        return len(self.weights)

    @property
    def mean(self) -> Values:
        """``[C]``."""
        return np.asarray((self.weights * self.means).sum(1))

    @property
    def variance(self) -> Values:
        """``[C]``."""
        second = (self.weights * (self.variances + self.means**2)).sum(1)
        return np.asarray(np.maximum(second - self.mean**2, 0))

    def reaching(self, bounds: Values) -> Values:
        """P(z >= bound), float64 ``[C, K]``, for bounds ``[C, K]`` or ``[1, K]``."""
        distance = bounds[:, None, :] - self.means[:, :, None]
        deviation = np.sqrt(self.variances)[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            upper = 0.5 * np.asarray(_erfc(distance / deviation / math.sqrt(2)), np.float64)
        # a half point that an exact value meets up to rounding is reached: QCFS rounds up there
        single = distance <= 1e-9 * np.maximum(np.abs(bounds[:, None, :]), 1)
        probabilities = np.where(deviation > 0, upper, single)
        return np.asarray((self.weights[:, :, None] * probabilities).sum(1))

    def plus(self, other: Mixture) -> Mixture:
        """The sum of independent terms."""
        if self.weights.shape[1] * other.weights.shape[1] > _MOST_COMPONENTS:
            return Mixture.gaussian(self.mean + other.mean, self.variance + other.variance)
        shape = (self.channels, -1)
        return Mixture(
            (self.weights[:, :, None] * other.weights[:, None, :]).reshape(shape),
            (self.means[:, :, None] + other.means[:, None, :]).reshape(shape),
            (self.variances[:, :, None] + other.variances[:, None, :]).reshape(shape),
        )

    def times(self, factor: Values) -> Mixture:
        """The distribution of ``factor`` (a scalar, or ``[C]``) times the variable."""
        factor = factor.reshape(-1, 1)
        return Mixture(self.weights, self.means * factor, self.variances * factor**2)

    def maximum(self, count: int) -> Mixture:
        """The largest of ``count`` independent values: the distribution function to the power of ``count``."""
        if not self.variances.any():
            order = np.argsort(self.means, 1)
            below = np.cumsum(np.take_along_axis(self.weights, order, 1), 1) ** count
            values = np.take_along_axis(self.means, order, 1)
            return Mixture(np.diff(below, axis=1, prepend=0), values, np.zeros_like(values))
        deviation = np.sqrt(self.variances)
        low, high = (self.means - 6 * deviation).min(1), (self.means + 6 * deviation).max(1)
        edges = np.linspace(low, high, _INTERVALS + 1, axis=1)
        below = (1 - self.reaching(edges)) ** count
        below[:, 0], below[:, -1] = 0, 1
        width = (high - low)[:, None] / _INTERVALS
        middle = (edges[:, 1:] + edges[:, :-1]) / 2
        return Mixture(np.diff(below, axis=1), middle, np.broadcast_to(width**2 / 12, middle.shape))

    def average(self, count: int) -> Mixture:
        """The mean of ``count`` independent values, as a Gaussian."""
        return Mixture.gaussian(self.mean, self.variance / count)

    def repeated(self, times: int) -> Mixture:
        """Every channel ``times`` times in a row, as flattening makes it."""
        return Mixture(*(np.repeat(a, times, 0) for a in (self.weights, self.means, self.variances)))


def has_statistics(model: Model) -> bool:
    """Whether the network has a BatchNormalization whose parameters are constants."""
    return any(_has_parameters(node) for node in model.graph.nodes)


def estimate(model: Model) -> Histograms:
    """Level histograms of all QCFS layers from the BatchNormalization parameters of the network.

    Args:
        model: a network with explicit QCFS activations and shapes, whose BatchNormalizations are not folded.

    Returns:
        Histograms by label, in the network's order, each of `TOTAL` counts.

    Raises:
        CompileError: no BatchNormalization says anything about a layer's pre-activation.
    """
    sort(model)
    known: dict[int, Mixture] = {}
    found: Histograms = {}
    for node in model.graph.nodes:
        if is_activation(node):
            if id(node.inputs[0]) not in known:
                raise CompileError(
                    "the BatchNormalizations in this network do not reach this activation",
                    file=model.file,
                    node=node.attrs["label"],
                    hint="Give calibration data: --calib DATA.npz.",
                )
            probabilities, output = _quantised(node, known[id(node.inputs[0])])
            found[node.attrs["label"]] = to_histogram(probabilities)
            known[id(node.outputs[0])] = output
        elif node.outputs:
            result = _propagated(node, known)
            if result is not None:
                known[id(node.outputs[0])] = result
    return found


def to_histogram(probabilities: Values, total: int = TOTAL) -> Histogram:
    """Integer counts that sum to ``total``: probabilities times ``total`` rounded by the largest remainders.

    Args:
        probabilities: float64 ``[L + 1]``, non-negative, summing to 1.
        total: the sum of the counts.
    """
    exact = probabilities / probabilities.sum() * total
    counts = np.floor(exact).astype(np.int64)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return Histogram(counts)


def _quantised(node: gs.Node, z: Mixture) -> tuple[Values, Mixture]:
    """Level probabilities of a QCFS over all channels, and the distribution of its output."""
    levels, phi = node.attrs["levels"], node.attrs["phi"]
    unit = np.asarray(theta(node), np.float64).reshape(-1, 1) / levels
    if len(unit) not in (1, z.channels):  # a theta for every neuron: its mean stands for all
        unit = unit.mean(keepdims=True)
    reaching = z.reaching((np.arange(1, levels + 1) - phi)[None] * unit)
    probabilities = -np.diff(reaching, axis=1, prepend=1, append=0)
    probabilities = np.maximum(probabilities, 0)
    values = np.broadcast_to(np.arange(levels + 1) * unit, probabilities.shape)
    return probabilities.mean(0), Mixture(probabilities, values, np.zeros_like(values))


def _propagated(node: gs.Node, known: dict[int, Mixture]) -> Mixture | None:
    """The distribution of a node's first output; None where nothing is known."""
    if _has_parameters(node):
        scale, bias, _, var = (np.asarray(t.values, np.float64) for t in node.inputs[1:5])
        return Mixture.gaussian(bias, scale**2 * var / (var + node.attrs.get("epsilon", 1e-5)))
    data = [known.get(id(t)) for t in node.inputs if not is_constant(t) and not t.is_empty()]
    if not data or any(d is None for d in data):
        return None
    inputs = [d for d in data if d is not None]
    x = inputs[0]
    if is_layer(node):
        return _linear(node, x)
    if is_operator(node, "Add", "Sum", "Sub"):
        return _sum(node, inputs)
    if is_operator(node, "Mul", "Div") and len(inputs) == 1 and is_constant(node.inputs[1]):
        factor = _by_channel(node.inputs[1], x.channels)
        return None if factor is None else x.times(1 / factor if node.op == "Div" else factor)
    if is_operator(node, "MaxPool"):
        return x.maximum(math.prod(node.attrs["kernel_shape"]))
    if is_operator(node, "AveragePool"):
        return x.average(math.prod(node.attrs["kernel_shape"]))
    if is_operator(node, "GlobalAveragePool", "GlobalMaxPool"):
        size = _positions(node.inputs[0])
        return None if size is None else x.average(size) if node.op == "GlobalAveragePool" else x.maximum(size)
    if is_operator(node, "Identity", "Dropout"):
        return x
    if is_operator(node, "Flatten", "Reshape"):
        return _flattened(node, x)
    return _joined(inputs) if is_operator(node, "Concat") and node.attrs["axis"] == 1 else None


def _has_parameters(node: gs.Node) -> bool:
    return is_operator(node, "BatchNormalization") and all(is_constant(t) for t in node.inputs[1:5])


def _linear(node: gs.Node, x: Mixture) -> Mixture | None:
    weight = np.asarray(node.inputs[1].values, np.float64)
    if is_operator(node, "Conv"):
        weight = weight.reshape(*weight.shape[:2], -1)  # [out, in/group, window]
        by_window = weight.sum(2), (weight**2).sum(2)
        group = node.attrs.get("group", 1)
    elif is_operator(node, "Gemm", "MatMul"):
        weight = weight if node.attrs.get("transB", 0) else weight.T
        weight = weight * node.attrs.get("alpha", 1.0)
        by_window, group = (weight, weight**2), 1
    else:
        return None
    outputs, inputs = by_window[0].shape
    if x.channels != inputs * group:
        return None
    mean, variance = (
        (w.reshape(group, -1, inputs) @ m.reshape(group, inputs, 1)).reshape(outputs)
        for w, m in zip(by_window, (x.mean, x.variance), strict=True)
    )
    if has_tensor(node, 2):
        bias = _by_channel(node.inputs[2], outputs) if is_constant(node.inputs[2]) else None
        if bias is None:
            return None
        mean = mean + bias * (node.attrs.get("beta", 1.0) if is_operator(node, "Gemm") else 1.0)
    return Mixture.gaussian(mean, variance)


def _sum(node: gs.Node, inputs: list[Mixture]) -> Mixture | None:
    """An addition or subtraction of tensors and constants."""
    total: Mixture | None = None
    waiting = iter(inputs)
    for index, tensor in enumerate(node.inputs):
        sign = np.asarray(-1.0 if node.op == "Sub" and index == 1 else 1.0)
        if is_constant(tensor):
            shift = _by_channel(tensor, inputs[0].channels)
            if shift is None:
                return None
            zero = np.zeros(inputs[0].channels)
            term = Mixture.gaussian(zero + sign * shift, zero)
        else:
            term = next(waiting).times(sign)
        if total is not None and total.channels != term.channels:
            return None
        total = term if total is None else total.plus(term)
    return total


def _by_channel(tensor: gs.Tensor, channels: int) -> Values | None:
    """A constant as one value, or one a channel; None where it differs within a channel."""
    values = np.asarray(tensor.values, np.float64).reshape(-1)
    return values if values.size in (1, channels) else None


def _positions(tensor: gs.Tensor) -> int | None:
    sizes = list(tensor.shape or ())[2:]
    return math.prod(sizes) if sizes and all(isinstance(d, int) for d in sizes) else None


def _flattened(node: gs.Node, x: Mixture) -> Mixture | None:
    """``[N, C, ...]`` to ``[N, C*...]``, where a channel becomes so many features."""
    shape = list(node.outputs[0].shape or ())
    if len(shape) < 2 or not isinstance(shape[1], int) or shape[1] % x.channels:
        return None
    repeats = shape[1] // x.channels
    return x.repeated(repeats) if len(shape) == 2 or repeats == 1 else None


def _joined(inputs: list[Mixture]) -> Mixture:
    """Channels behind one another."""
    most = max(x.weights.shape[1] for x in inputs)

    def stacked(arrays: list[Array]) -> Values:
        return np.concatenate([np.pad(a, ((0, 0), (0, most - a.shape[1]))) for a in arrays])

    return Mixture(
        stacked([x.weights for x in inputs]),
        stacked([x.means for x in inputs]),
        stacked([x.variances for x in inputs]),
    )
