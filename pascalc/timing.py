"""What a tensor means over time, and what each operator does to that: its rule.

The time axis is folded into the batch, step by step: a train of T steps is ``[T*N, ...]``. So every standard operator
works unchanged on T*N samples, and unrolling a network in time is an analysis (this module) and a few insertions where
meanings change (the pass ``unroll-time``).

A rule looks at the types of a node's inputs and decides which types it wants instead, which of its constants are to be
divided by the number of steps, and what type comes out. It stands for operators that have a row in the operator table
(pascalc/operators.py), which says what else is known of them. An operator without a rule, or one whose rule declines
with a reason, gets the sums over time and is computed as in the source network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.activations import is_activation, theta
from pascalc.codes import THERMOMETER, UNIT, WEIGHTINGS, Code, Weighting
from pascalc.graph import BATCH, Array, Model, captured, has_tensor, is_constant, is_ours
from pascalc.linear import is_batched
from pascalc.operators import TABLE, Row


@dataclass(frozen=True)
class TimeType:
    """What a tensor means over time; ``steps`` is the length of its train (1 where there is none)."""

    @property
    def steps(self) -> int:
        return 1


@dataclass(frozen=True)
class Const(TimeType):
    """Does not depend on the network's input: weights, shapes."""


@dataclass(frozen=True)
class Analog(TimeType):
    """One real-valued tensor a sample, ``[N, ...]``: the input image, the result of an operator that cannot spike."""


@dataclass(frozen=True)
class Train(TimeType):
    """``[length*N, ...]``; the sum over time, weighted as ``weighting`` says, is the source network's tensor."""

    weighting: Weighting
    length: int

    @property
    def steps(self) -> int:
        return self.length

    @property
    def current(self) -> Current:
        """What a linear operator makes of it."""
        return Current(self.weighting, self.length)


@dataclass(frozen=True)
class Current(Train):
    """A real-valued train [PASCAL, Invariant 2]."""


@dataclass(frozen=True)
class Held(TimeType):
    """``[length*N, ...]``, the source network's tensor in every step: what a train is multiplied by. The weighted sum
    of the products is the product of the weighted sum, whatever the weighting."""

    length: int

    @property
    def steps(self) -> int:
        return self.length


#: Heights of spikes that depend on axis 1 alone, and such that depend on more or are not known.
PER_CHANNEL, MIXED = "per channel", "mixed"


@dataclass(frozen=True)
class Spikes(Train):
    """A binary train in a code.

    ``height`` is that of a spike, theta/L for PASC: a number where all neurons share it, else :data:`PER_CHANNEL` or
    :data:`MIXED`. The maximum over neurons is exact step by step only where their spikes have one height.
    """

    code: Code
    height: float | str

    @classmethod
    def of(cls, code: Code, length: int, height: float | str) -> Spikes:
        """A train in this code."""
        return cls(code.weighting, length, code, height)


class Declined(Exception):
    """The operator cannot work on trains here, and why; it is computed on the sums over time."""


@dataclass(frozen=True)
class Decision:
    """What a node wants on its inputs (in their order), the type of its outputs, and the indices of the additive
    constants among its inputs that are to be divided by the number of steps."""

    inputs: tuple[TimeType, ...]
    output: TimeType
    split: tuple[int, ...] = ()


Types = tuple[TimeType, ...]
Rule = Callable[[gs.Node, Types], Decision]


@dataclass(frozen=True)
class RuleInfo:
    """The rule of an operator, with the operator's row.

    Attributes:
        kind: "linear", "per-step monotone", "join" or "shape"; a linear one declines infinite weights.
        doc: what happens to a train, in words.
        more: why it is declined where another output than its first is used; empty where that is no reason.
    """

    operator: str
    row: Row
    kind: str
    doc: str
    rule: Rule
    more: str = ""


#: By the name of the operator; one without a row has no rule.
RULES: dict[str, RuleInfo] = {}


def _rule(kind: str, doc: str, *operators: str, more: str = "") -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = RuleInfo(operator, TABLE[operator], kind, doc, rule, more)
        return rule

    return register


def decide(model: Model, node: gs.Node, types: Types) -> Decision:
    """The decision for one node of the model, of the source's operators, given the types of its inputs.

    Raises:
        Declined: the node is to be computed on the sums over time.
    """
    if not any(isinstance(t, Train) for t in types):
        if any(isinstance(t, Held) for t in types):
            raise Declined("what is held meets no train")
        constant = all(isinstance(t, Const) for t in types)
        return Decision(types, Const() if constant else Analog())
    info = RULES.get(node.op) if (node.domain or "") == "" else None
    if info is None:
        raise Declined(f"{node.op} has no spiking form")
    if not is_batched(node.outputs[0]):
        raise Declined("the first axis of its result is not the batch")
    if info.more and model.uses_more(node):
        raise Declined(info.more)
    decision = info.rule(node, types)
    if info.kind == "linear" and any(is_constant(t) and not _is_finite(t.values) for t in node.inputs):
        raise Declined("an infinite weight makes NaN of a step without spikes")
    if not all(is_constant(node.inputs[index]) for index in decision.split):
        raise Declined("its additive constant is computed")
    return decision


def _is_finite(values: Array) -> bool:
    return values.dtype.kind != "f" or not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def own_output(node: gs.Node, data: TimeType) -> TimeType:
    """The type that an operator of the domain ``ai.pascalc`` gives for the type of its input X."""
    neuron = ops.spiking_neuron(node.op)
    if neuron is not None:
        return _spikes(neuron, node)
    if node.op == ops.ALIGN.name:
        length = node.attrs["steps_out"]
        return replace(data, length=length) if isinstance(data, Train) else Current(UNIT, length)
    if node.op == ops.SPREAD.name:
        return Current(UNIT, node.attrs["steps"])
    if node.op == ops.HOLD.name:
        return Held(node.attrs["steps"])
    if node.op == ops.BIAS.name and isinstance(data, Train):
        return data.current
    if node.op == ops.RETIME.name and node.attrs["weighting"] in WEIGHTINGS:
        length = node.attrs["steps_out"]
        weighting = WEIGHTINGS[node.attrs["weighting"]]
        return replace(data, length=length) if isinstance(data, Train) else Current(weighting, length)
    return Analog()  # Accumulate, and the neurons of collapsed networks


def _spikes(model: type[ops.NeuronModel], node: gs.Node) -> Spikes:
    """The train of a neuron."""
    threshold = theta(node)
    rank = len(node.inputs[0].shape or ())
    height: float | str = MIXED
    if threshold.size and np.all(threshold == threshold.flat[0]):
        height = float(threshold.flat[0]) / model.most(node.attrs["levels"], node.attrs["steps_out"])
    elif threshold.ndim == rank - 1 and threshold.shape[0] == threshold.size:
        height = PER_CHANNEL
    return Spikes.of(model.code, node.attrs["steps_out"], height)


def time_types(model: Model) -> dict[int, TimeType]:
    """What every computed tensor and input of a network means over time, by identity; what is missing is constant.

    In an unrolled network sums over time are explicit. The activations of a source, and the counts of a collapsed
    network, are taken as the trains that they stand for, and what cannot work on trains as analog.

    Args:
        model: a network with explicit neurons and shapes. In an unrolled one, the first axes of trains are named.
    """
    unrolled = any(is_ours(node, *ops.OPERATORS) and node.op not in ops.ACTIVATIONS for node in model.graph.nodes)
    types: dict[int, TimeType] = {id(t): Analog() for t in model.graph.inputs}
    for node in model.graph.nodes:
        given = tuple(types.get(id(t), Const()) for t in node.inputs)
        output: TimeType
        if is_activation(node):
            output = Analog() if unrolled else Spikes.of(THERMOMETER, node.attrs["levels"], 1.0)
        elif node.domain == ops.DOMAIN:
            output = own_output(node, given[0])
        elif captured(node):
            output = Analog()
        else:
            output = _followed(model, node, given, unrolled)
        if unrolled and isinstance(output, (Train, Held)):
            _name_first_axis(node, output.steps)
        types.update((id(t), output) for t in node.outputs)
    return types


def _followed(model: Model, node: gs.Node, given: Types, unrolled: bool) -> TimeType:
    """What a standard operator makes of its inputs."""
    longest = max((t for t in given if isinstance(t, Train)), key=lambda train: train.steps, default=None)
    if unrolled and longest:  # shape inference knows of no time, so it does not see that the batch is in this axis
        _name_first_axis(node, longest.steps)
    try:
        return decide(model, node, given).output
    except Declined:
        return longest.current if unrolled and longest else Analog()


def _name_first_axis(node: gs.Node, steps: int) -> None:
    for tensor in node.outputs:
        if tensor.shape and not isinstance(tensor.shape[0], int):
            tensor.shape = [f"{steps}*{BATCH}", *tensor.shape[1:]]


def own_steps_in(node: gs.Node) -> int:
    """The steps that an operator of the domain ``ai.pascalc`` declares for its input X."""
    if node.op in (ops.ACCUMULATE.name, ops.BIAS.name):
        return int(node.attrs["steps"])
    return int(node.attrs.get("steps_in", 1))


def _data_and_constants(types: Types) -> Train:
    """The train in input 0, where all else is constant."""
    data, *rest = types
    if not isinstance(data, Train) or not all(isinstance(t, Const) for t in rest):
        raise Declined("it multiplies or indexes by something that depends on the input")
    return data


def _train(kind: TimeType) -> Train:
    assert isinstance(kind, Train)
    return kind


def axes_of(node: gs.Node, index: int | None = None, attribute: str = "axes") -> list[int]:
    """Axes from an attribute or a constant input, counted from the front."""
    rank = len(node.inputs[0].shape or ())
    if index is not None and has_tensor(node, index):
        axes = _integers(node, index)
    else:
        axes = node.attrs.get(attribute, [])
        axes = [axes] if isinstance(axes, int) else list(axes)
    if not node.inputs[0].shape and any(a < 0 for a in axes):
        raise Declined("the rank of its input is not known")
    if rank and not all(-rank <= a < rank for a in axes):
        raise Declined("its input has no such axes")
    return [a + rank if a < 0 else a for a in axes]


@_rule("linear", "bias/T in each step", "Conv", "ConvTranspose")
def _convolution(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    return Decision(types, data.current, (2,) if has_tensor(node, 2) else ())


@_rule("linear", "C/T in each step; the data in A, not transposed", "Gemm")
def _gemm(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    if node.attrs.get("transA", 0):
        raise Declined("it contracts over the batch (transA)")
    if has_tensor(node, 2) and node.inputs[2].shape and len(node.inputs[2].shape) == 2 and node.inputs[2].shape[0] != 1:
        raise Declined("its C has a row for every sample")
    return Decision(types, data.current, (2,) if has_tensor(node, 2) else ())


@_rule(
    "linear",
    "by a constant matrix, from the left or the right; of two computed tensors, spikes by the other held",
    "MatMul",
)
def _matmul(node: gs.Node, types: Types) -> Decision:
    train = next(i for i, t in enumerate(types) if isinstance(t, Train))
    if not isinstance(types[1 - train], Const):
        if not all(len(t.shape or ()) > 2 for t in node.inputs):
            raise Declined("it contracts over the batch or broadcasts against it")
        if not any(isinstance(t, Spikes) for t in types):
            raise Declined("neither of its tensors is spikes, so that one product of their sums is less work")
        return _product(node, types)
    data, other = node.inputs[train], node.inputs[1 - train]
    rank = len(data.shape or ())
    if rank < (2 if train == 0 else 3) or len(other.shape or ()) > rank:
        raise Declined("it contracts over the batch or broadcasts against it")
    if not other.shape:
        raise Declined("the shape of its constant is not known")
    if len(other.shape) == rank and rank > 2 and other.shape[0] != 1:
        raise Declined("its constant has a matrix for every sample")
    return Decision(types, _train(types[train]).current)


@_rule("linear", "zero padding included; of one value each, it keeps spikes", "AveragePool", "GlobalAveragePool")
def _average(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    positions = list(node.inputs[0].shape or ())[2:] if node.op == "GlobalAveragePool" else node.attrs["kernel_shape"]
    single = bool(positions) and all(size == 1 for size in positions)
    return Decision(types, data if single else data.current)


@_rule("linear", "over axes other than the batch; over axes of size 1 it keeps spikes", "ReduceMean", "ReduceSum")
def _reduce(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    axes = axes_of(node, 1)
    if (not axes and not node.attrs.get("noop_with_empty_axes", 0)) or 0 in axes:
        raise Declined("it reduces over the batch")
    sizes = [(node.inputs[0].shape or ())[axis] for axis in axes] if node.inputs[0].shape else [None]
    # over axes of size 1, or over none, values only move
    return Decision(types, _moved(node, data) if all(size == 1 for size in sizes) else data.current)


@_rule("linear", "by a constant; Mul of two computed tensors: a train by the other held", "Mul", "Div")
def _scale(node: gs.Node, types: Types) -> Decision:
    if node.op == "Div" and not isinstance(types[1], Const):
        raise Declined("it divides by what depends on the input")
    train = next(i for i, t in enumerate(types) if isinstance(t, Train))
    if not isinstance(types[1 - train], Const):
        return _product(node, types)
    _check_broadcast(node.inputs[1 - train], node.inputs[train])
    return Decision(types, _train(types[train]).current)


def _product(node: gs.Node, types: Types) -> Decision:
    """A product of two computed tensors: of what stays a train, and of what is held for it.

    Spikes stay a train rather than currents; else the larger sample, so that a gate of one value a channel is held;
    else the shorter train; else the first.
    """
    shapes = [tensor.shape or () for tensor in node.inputs]
    if not all(is_batched(tensor) for tensor in node.inputs) or len(shapes[0]) != len(shapes[1]):
        raise Declined("one of its tensors broadcasts against the batch")
    sizes = [prod(size for size in shape[1:] if isinstance(size, int)) for shape in shapes]
    trains = [index for index, kind in enumerate(types) if isinstance(kind, Train)]
    kept = max(trains, key=lambda index: (isinstance(types[index], Spikes), sizes[index], -types[index].steps, -index))
    train = _train(types[kept])
    held = Held(train.steps)
    return Decision((train, held) if kept == 0 else (held, train), train.current)


@_rule("linear", "the sign of every step", "Neg")
def _negate(node: gs.Node, types: Types) -> Decision:
    return Decision(types, _train(types[0]).current)


@_rule("linear", "mean/T and beta/T in each step; gamma and variance as they are", "BatchNormalization")
def _batch_normalization(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    if node.attrs.get("training_mode", 0):
        raise Declined("in training mode it depends on the batch")
    return Decision(types, data.current, (2, 3))


@_rule("linear", "nearest keeps spikes; linear gives currents", "Resize")
def _resize(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    shape, out = node.inputs[0].shape, node.outputs[0].shape
    if len(shape or ()) != len(out or ()) or not is_batched(node.inputs[0]):
        raise Declined("it resizes the batch")
    mode = node.attrs.get("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise Declined(f"its mode {mode} is not known")
    if node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise Declined("it extrapolates by a constant")
    if has_tensor(node, 3):
        raise Declined("it resizes to fixed sizes, the batch included")
    return Decision(types, data if mode == "nearest" else data.current)


@_rule("linear", "zeros; other padding values are declined, reflected and edge padding copies", "Pad")
def _pad(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    axes = axes_of(node, 3) if has_tensor(node, 3) else list(range(len(node.inputs[0].shape or ())))
    pads = _integers(node, 1)
    if any(axis == 0 and (pads[i] or pads[i + len(axes)]) for i, axis in enumerate(axes)):
        raise Declined("it pads the batch")
    if node.attrs.get("mode", "constant") == "constant" and has_tensor(node, 2) and not _is_zero(node.inputs[2]):
        raise Declined("it pads with a value other than zero")
    return Decision(types, data)


@_rule(
    "per-step monotone",
    "an OR of spikes in each step; on currents it is computed on the sums",
    "MaxPool",
    "GlobalMaxPool",
    more="the indices of its maxima are used",
)
def _max_pool(node: gs.Node, types: Types) -> Decision:
    if not isinstance(types[0], Spikes):
        raise Declined("the maximum of a sum is not the sum of maxima")
    if not types[0].code.maximum_by_step:
        raise Declined(f"the maximum of trains in {types[0].code.name} code is not their maximum in every step")
    if types[0].height == MIXED:
        raise Declined("the spikes that it compares may have different heights")
    return Decision(types, types[0])


@_rule("join", "trains of unequal T are aligned to the larger by zero steps; Analog/T, Const/T", "Add", "Sub", "Sum")
def _join(node: gs.Node, types: Types) -> Decision:
    if len(types) == 1:
        return Decision(types, types[0])  # Sum of one tensor
    longest = _longest(types)
    reference = next(i for i, t in enumerate(types) if t is longest)
    wanted: list[TimeType] = []
    split = []
    for index, kind in enumerate(types):
        tensor = node.inputs[index]
        if isinstance(kind, Const):
            _check_broadcast(tensor, node.inputs[reference])
            split.append(index)
            wanted.append(kind)
        else:
            if not is_batched(tensor) or len(tensor.shape) != len(node.inputs[reference].shape or ()):
                raise Declined("it broadcasts against the batch")
            wanted.append(_prolonged(kind, longest))
    return Decision(tuple(wanted), longest.current, tuple(split))


@_rule("join", "over axes other than the batch; spikes stay spikes", "Concat")
def _concat(node: gs.Node, types: Types) -> Decision:
    rank = len(node.outputs[0].shape or ())
    if node.attrs.get("axis", 0) % max(rank, 1) == 0:
        raise Declined("it concatenates along the batch")
    if not all(isinstance(t, (Train, Analog)) for t in types) or not all(is_batched(t) for t in node.inputs):
        raise Declined("it concatenates with a constant")
    longest = _longest(types)
    wanted = tuple(_prolonged(t, longest) for t in types)
    spikes = [t for t in types if isinstance(t, Spikes)]
    codes, heights = {t.code for t in spikes}, {t.height for t in spikes}
    if len(spikes) < len(types) or len(codes) > 1:
        return Decision(wanted, longest.current)
    (code,) = codes
    if len(heights) == 1 and PER_CHANNEL not in heights:
        return Decision(wanted, Spikes.of(code, longest.steps, heights.pop()))
    by_channel = node.attrs["axis"] % rank == 1 and MIXED not in heights
    return Decision(wanted, Spikes.of(code, longest.steps, PER_CHANNEL if by_channel else MIXED))


@_rule("shape", "the same type", "Identity", "Dropout", more="its mask is used")
def _same(node: gs.Node, types: Types) -> Decision:
    data = types[0]
    if node.op == "Dropout" and has_tensor(node, 2) and not _is_zero(node.inputs[2]):
        raise Declined("in training mode it is random")
    return Decision(types, data)


def _is_zero(tensor: gs.Tensor) -> bool:
    return is_constant(tensor) and not np.any(tensor.values)


@_rule("shape", "samples stay whole: axis 1", "Flatten")
def _flatten(node: gs.Node, types: Types) -> Decision:
    rank = len(node.inputs[0].shape or ())
    if node.attrs.get("axis", 1) not in (1, 1 - rank):
        raise Declined("it flattens more than a sample")
    return Decision(types, _moved(node, types[0]))


@_rule("shape", "samples stay whole; a baked-in or computed batch size was replaced by infer-shapes", "Reshape")
def _reshape(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    target = _integers(node, 1)
    whole = is_batched(node.inputs[0]) and is_batched(node.outputs[0])
    copies = bool(target) and target[0] == 0 and not node.attrs.get("allowzero", 0)
    if not whole or not (copies or (target and target[0] == -1)):
        raise Declined("it moves values between the samples of a batch, or has a batch size baked in")
    return Decision(types, _moved(node, data))


@_rule("shape", "the batch stays in front", "Transpose")
def _transpose(node: gs.Node, types: Types) -> Decision:
    rank = len(node.inputs[0].shape or ())
    order = list(node.attrs.get("perm", range(rank - 1, -1, -1)))
    if order[:1] != [0]:
        raise Declined("it moves the batch axis")
    return Decision(types, types[0] if order[:2] == [0, 1] else _mixed(types[0]))


@_rule("shape", "axes other than the batch", "Squeeze", "Unsqueeze")
def _squeeze(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    if not is_batched(node.inputs[0]):
        raise Declined("the first axis of its input is not the batch")
    if node.op == "Squeeze" and not has_tensor(node, 1):
        raise Declined("it may squeeze the batch")
    return Decision(types, _moved(node, data))


@_rule("shape", "axes other than the batch", "Slice")
def _slice(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    if not has_tensor(node, 3) or 0 in axes_of(node, 3):
        raise Declined("it slices the batch")
    return Decision(types, data)


@_rule("shape", "axes other than the batch", "Split", "Gather")
def _split(node: gs.Node, types: Types) -> Decision:
    data = _data_and_constants(types)
    axes = axes_of(node, attribute="axis") or [0]
    if 0 in axes:
        raise Declined("it works along the batch")
    if node.op == "Gather" and axes == [1] and len(node.outputs[0].shape) != len(node.inputs[0].shape or ()):
        return Decision(types, _mixed(data))  # axis 1 is gone, or has become several
    return Decision(types, data)


@_rule("shape", "the same type", "DepthToSpace", "SpaceToDepth")
def _rearrange(node: gs.Node, types: Types) -> Decision:
    return Decision(types, _moved(node, types[0]))


def _moved(node: gs.Node, data: TimeType) -> TimeType:
    """The type behind an operator that keeps samples whole and their values in order."""
    before, after = list(node.inputs[0].shape or ()), list(node.outputs[0].shape or ())
    kept = len(before) > 1 and len(after) > 1 and isinstance(before[1], int) and before[1] == after[1]
    return data if kept else _mixed(data)


def _mixed(data: TimeType) -> TimeType:
    """The type where axis 1 is no longer the channel of the neuron."""
    return replace(data, height=MIXED) if isinstance(data, Spikes) and data.height == PER_CHANNEL else data


def _longest(types: Types) -> Train:
    """The longest of the trains among these types, the first of equals.

    Raises:
        Declined: their steps count differently.
    """
    trains = [t for t in types if isinstance(t, Train)]
    if len({train.weighting for train in trains}) > 1:
        raise Declined("the steps of its trains count differently")
    return max(trains, key=lambda train: train.steps)


def _prolonged(kind: TimeType, longest: Train) -> Train:
    """The type at the length of the longest train: zero steps keep every code."""
    return replace(kind, length=longest.steps) if isinstance(kind, Train) else longest.current


def _integers(node: gs.Node, index: int) -> list[int]:
    """The values of a constant input."""
    if not is_constant(node.inputs[index]):
        raise Declined(f"its input {index} is computed")
    return [int(v) for v in np.atleast_1d(node.inputs[index].values)]


def _check_broadcast(constant: gs.Tensor, train: gs.Tensor) -> None:
    """A constant may broadcast against samples, not against the batch."""
    if constant.shape is None:
        raise Declined("the shape of its constant is not known")
    rank, own = len(train.shape or ()), len(constant.shape)
    if not train.shape or own > rank or (own == rank and constant.shape[0] != 1):
        raise Declined("its constant has a value for every sample of a batch")
