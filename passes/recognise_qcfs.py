"""QCFS activations, found by algebra.

Whatever an exporter or optimiser made of ``theta * clip(floor(z*L/theta + phi)/L, 0, 1)`` [QCFS, Bu et al. 2022], there
is one Floor in it, and around it only elementwise affine maps and bounds. From the Floor outwards these are collected,
and solved for theta, L and phi (pascalc/qcfs_algebra.py). Between two Floors in a row each map is taken by one of them
at most, and the cuts are such that as many Floors as possible are QCFS.

Uniform quantisers have another rounding in the place of the Floor, which is a Floor save at the points between two
levels, where it may go the other way:

    round(v) = floor(v + 1/2), half to even        ceil(v) = floor(v + 1)
    QuantizeLinear, DequantizeLinear = (min(max(round(x/scale) + zero point, low), high) - zero point) * scale

So an unsigned quantiser of b bits is QCFS with L = 2^b - 1 and theta = L*scale, but for these points. It becomes a
MultiThreshold, whose thresholds are the very floats at which the quantiser goes to the next level
(pascalc/step_functions.py), so that it is exact there, too. A quantiser whose lowest level is below zero is not one,
unless a Relu before it keeps its input from there. Monotone operators before a quantiser or a Floor, such as
HardSigmoid, are taken into the neuron in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.activations import has_thresholds, is_activation
from pascalc.errors import CompileError
from pascalc.graph import (
    Array,
    Model,
    NoteKind,
    has_tensor,
    is_constant,
    is_operator,
    is_ours,
    producer,
    set_input,
    sort,
    sweep,
)
from pascalc.passes.base import Pass
from pascalc.passes.facts import CONSTANTS, QCFS, SHAPES, Fact
from pascalc.protos import unused
from pascalc.qcfs_algebra import Broken, NotQcfs, Reading, Step, Values, Worth, readings
from pascalc.step_functions import Link, monotone, monotone_before, thresholds

_MAX_CHAIN = 16


#: A tensor of the chain and the steps between it and the next tensor nearer to the Floor.
Place = tuple[gs.Tensor, list[Step]]


@dataclass(frozen=True)
class RecogniseQcfs(Pass):
    """Replace every form of the QCFS activation by one explicit operator: QCFS, or MultiThreshold where it rounds."""

    requires: ClassVar[frozenset[Fact]] = frozenset({SHAPES, CONSTANTS})
    provides: ClassVar[frozenset[Fact]] = frozenset({QCFS})

    def run(self, model: Model) -> int:
        labels: set[str] = set()
        count = 0
        readings: dict[int, _Match | NotQcfs] = {}
        for node in list(model.graph.nodes):
            if is_activation(node):
                _check_explicit(model, node, labels)
                count += 1
            elif is_ours(node, *ops.OPERATORS):
                raise CompileError(
                    f"the network has the operator {node.op}: it is a spiking network already",
                    file=model.file,
                    node=node.name or node.outputs[0].name,
                    hint="Compile the network that it was made from.",
                )
            elif _is_rounding(node):
                if id(node) not in readings:
                    readings.update(_read_row(model, node))
                try:
                    match = _settled(node, readings[id(node)])
                except Broken as error:
                    raise CompileError(
                        f"an activation has the form of QCFS, but {error}",
                        file=model.file,
                        node=node.name or node.outputs[0].name,
                        hint="Check the trained thresholds and levels; a larger initial threshold (4 to 8) keeps them "
                        "positive in training.",
                    ) from error
                except NotQcfs as error:
                    name = node.name or node.outputs[0].name
                    model.note(self.name(), name, f"not QCFS: {error}", NoteKind.NEAR_MISS)
                    continue
                label, exact = _replace(model, match, labels)
                if not exact:
                    model.note(self.name(), label, _HALF_POINTS.format(op=node.op), NoteKind.WARNING)
                count += 1
        for node in model.graph.nodes:
            if is_activation(node):
                _check_precision(model, node)
        sort(model)
        sweep(model)
        return count


#: What is added to the operator's input so that it is a Floor.
_ROUNDINGS = {"Floor": 0.0, "Round": 0.5, "Ceil": 1.0}
#: Said where its own thresholds could not be found.
_HALF_POINTS = "{op} may round down a value half way between two levels, which a spiking neuron rounds up"


def _is_rounding(node: gs.Node) -> bool:
    return is_operator(node, *_ROUNDINGS, "QuantizeLinear")


def _settled(rounding: gs.Node, reading: _Match | NotQcfs) -> _Match:
    """What the rounding operator was read as; raised where it is not QCFS."""
    if isinstance(reading, _Match):
        return reading
    if isinstance(reading, Broken) and not reading.surely and not is_operator(rounding, "Floor"):
        raise NotQcfs(str(reading)) from reading  # a quantiser of another kind
    raise reading


@dataclass(frozen=True)
class _Rounding:
    """A rounding operator between the chains before and behind it."""

    node: gs.Node
    before: list[Place]
    after: list[Place]

    @property
    def is_floor(self) -> bool:
        return is_operator(self.node, "Floor")

    def matches(self) -> Iterator[_Match]:
        """The ways to read it as QCFS, the best first."""
        before, after = ([steps for _, steps in links] for links in (self.before, self.after))
        for reading in readings(before, after, self.is_floor, self.before[0][0].dtype):
            yield _Match(self, reading)

    def within(self, tensor: gs.Tensor) -> int:
        """How many links of the chain before it remain behind the tensor."""
        return next((i for i, (link, _) in enumerate(self.before) if link is tensor), len(self.before) - 1)


@dataclass(frozen=True)
class _Match:
    """A rounding operator that is read as QCFS."""

    rounding: _Rounding
    reading: Reading

    @property
    def source(self) -> gs.Tensor:
        return self.rounding.before[self.reading.ahead][0]

    @property
    def target(self) -> gs.Tensor:
        return self.rounding.after[self.reading.behind][0]


def _read_row(model: Model, first: gs.Node) -> dict[int, _Match | NotQcfs]:
    """The rounding operator, and those that follow it in one chain of elementwise maps, read as QCFS."""
    found: dict[int, _Match | NotQcfs] = {}
    row: list[_Rounding] = []
    node: gs.Node | None = first
    while node is not None:
        try:
            ahead, behind = _centre(model, node)
        except NotQcfs as refusal:
            found[id(node)] = refusal
            break
        row.append(_Rounding(node, _chain_before(ahead), _chain_after(behind)))
        node = _next_rounding(row[-1].after[-1][0])
    with np.errstate(all="ignore"):  # infinite bounds are bounds
        return found | _share(row)


def _next_rounding(tensor: gs.Tensor) -> gs.Node | None:
    """The rounding operator at the end of a chain of elementwise maps."""
    while len(links := _chain_after((tensor, []))) > 1:
        tensor = links[-1][0]
    users = list(tensor.outputs)
    return users[0] if len(users) == 1 and _is_rounding(users[0]) and users[0].inputs[0] is tensor else None


def _share(row: Sequence[_Rounding]) -> dict[int, _Match | NotQcfs]:
    """The row read such that no two roundings take the same map, as many as possible are QCFS, and little is left over.

    What a rounding leaves of the chain before the next one decides what can follow. So from the last to the first, for
    every length of the chain that a rounding may be left: its best reading, and the worth of all from there on.
    """
    tables: list[list[tuple[Worth, _Match | NotQcfs]]] = []
    for rounding, following in zip(reversed(row), (None, *reversed(row)), strict=False):
        options: list[tuple[int, Worth, _Match]] = []
        refusal = NotQcfs("its steps belong to the roundings around it")
        try:
            for match in islice(rounding.matches(), 1 if len(row) == 1 else None):
                worth = match.reading.worth
                if following is not None:
                    worth = worth + tables[-1][following.within(match.target)][0]
                options.append((match.reading.ahead, worth, match))
        except NotQcfs as error:
            refusal = error
        none: tuple[Worth, _Match | NotQcfs] = (tables[-1][-1][0] if tables else Worth(), refusal)
        tables.append([])
        for left in range(len(rounding.before)):
            usable = [(worth, match) for length, worth, match in options if length <= left]
            tables[-1].append(max([none, *usable], key=lambda option: option[0]))
    found: dict[int, _Match | NotQcfs] = {}
    left = -1
    for index, (rounding, table) in enumerate(zip(row, reversed(tables), strict=True)):
        reading = table[left][1]
        found[id(rounding.node)] = reading
        if index + 1 < len(row):
            left = row[index + 1].within(reading.target if isinstance(reading, _Match) else rounding.node.outputs[0])
    return found


def _centre(model: Model, node: gs.Node) -> tuple[Place, Place]:
    """The rounding operator as a Floor: what comes before that Floor, and what behind it."""
    if not is_operator(node, "QuantizeLinear"):
        shift = _ROUNDINGS[node.op]
        return (node.inputs[0], [Step("shift", np.asarray(shift))] if shift else []), (node.outputs[0], [])
    back = _dequantised(model, node)
    scale, zero = _quantisation(node)
    low, high = _limits(node.outputs[0])
    own_scale, own_zero = _quantisation(back)
    if not np.all(np.isfinite(scale)) or not np.all(scale > 0):
        raise Broken("the scale of its quantiser is zero, negative or NaN", surely=True)
    return (node.inputs[0], [Step("scale", 1 / scale), Step("shift", np.asarray(0.5))]), (
        back.outputs[0],
        [
            Step("shift", zero),
            Step("low", low),
            Step("high", high),
            Step("shift", -own_zero),
            Step("scale", own_scale),
        ],
    )


def _dequantised(model: Model, node: gs.Node) -> gs.Node:
    """The DequantizeLinear behind a QuantizeLinear. Several that do the same become one."""
    integers = node.outputs[0]
    users = list(integers.outputs)
    if not users or model.is_output(integers) or not all(is_operator(user, "DequantizeLinear") for user in users):
        raise NotQcfs("its integers are used")
    first, *others = users
    for other in others:
        same = all(np.array_equal(a, b) for a, b in zip(_quantisation(first), _quantisation(other), strict=True))
        if not same or model.is_output(other.outputs[0]):
            raise NotQcfs("its integers are used in several ways")
    for other in others:
        merged = other.outputs[0]
        for user in list(merged.outputs):
            for index, tensor in enumerate(user.inputs):
                if tensor is merged:
                    user.inputs[index] = first.outputs[0]
    return first


def _limits(integers: gs.Tensor) -> tuple[Values, Values]:
    """The smallest and the largest value of an integer type, those of four bits and fewer included."""
    kind = re.fullmatch(r"(u?)int(\d+)", np.dtype(integers.dtype).name)
    if kind is None:
        raise NotQcfs("it quantises to something else than integers")
    unsigned, bits = bool(kind[1]), int(kind[2])
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return np.asarray(float(low)), np.asarray(float(high))


def _quantisation(node: gs.Node) -> tuple[Values, Values]:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear, shaped to broadcast against its input."""
    given = [t for t in node.inputs[1:] if not t.is_empty()]
    if not all(is_constant(t) for t in given):
        raise NotQcfs("its scale or zero point is computed")
    rank = len(node.inputs[0].shape or ())
    axis = node.attrs.get("axis", 1)
    axis += rank if axis < 0 else 0
    values = []
    for tensor in given:
        value = np.asarray(tensor.values).astype(np.float64)
        if value.size == 1:
            value = value.reshape(())
        elif value.ndim != 1 or node.attrs.get("block_size", 0) or not 0 < axis < rank:
            raise NotQcfs("its scale is neither one number nor one a channel")
        else:
            value = value.reshape(-1, *[1] * (rank - axis - 1))
        values.append(value)
    return values[0], values[1] if len(values) > 1 else np.asarray(0.0)


def _chain_before(nearest: Place) -> list[Place]:
    """The tensors before the Floor, nearest first, each with the steps from it to the next nearer one."""
    links = [nearest]
    while len(links) < _MAX_CHAIN:
        node = producer(links[-1][0])
        step = _steps(node)
        if node is None or step is None:
            break
        links.append(step)
    tensor, steps = links[-1]
    form = monotone(producer(tensor))
    bounds = [] if form is None else [("low", form.low), ("high", form.high)]
    links[-1] = (tensor, [*(Step(kind, np.asarray(v)) for kind, v in bounds if np.isfinite(v)), *steps])
    return links


def _chain_after(nearest: Place) -> list[Place]:
    """The tensors behind the Floor, nearest first, each with the steps from the next nearer one to it."""
    links = [nearest]
    while len(links) < _MAX_CHAIN:
        tensor = links[-1][0]
        through = _straight_through(tensor)
        if through is not None:
            links.append((through, []))
            continue
        if len(tensor.outputs) != 1:
            break
        node = tensor.outputs[0]
        found = _steps(node)
        if found is None or found[0] is not tensor:
            break
        links.append((node.outputs[0], found[1]))
    return links


def _straight_through(tensor: gs.Tensor) -> gs.Tensor | None:
    """Straight-through estimators by detach leave ``(a - b) + b``, which is a."""
    for sub in tensor.outputs:
        if is_operator(sub, "Sub") and sub.inputs[0] is tensor and len(sub.outputs[0].outputs) == 1:
            add = sub.outputs[0].outputs[0]
            others = [t for t in add.inputs if t is not sub.outputs[0]]
            if is_operator(add, "Add") and len(others) == 1 and others[0] is sub.inputs[1]:
                return add.outputs[0]
    return None


def _steps(node: gs.Node | None) -> Place | None:
    """The one variable input of an elementwise node and the node's steps; None where it is something else."""
    if node is None or (node.domain or "") != "":
        return None
    if node.op in ("Identity", "Relu", "Clip"):
        bounds: list[Step] = [Step("low", np.asarray(0.0))] if node.op == "Relu" else []
        for index, kind in ((1, "low"), (2, "high")) if node.op == "Clip" else ():
            if has_tensor(node, index):
                if not is_constant(node.inputs[index]):
                    return None
                bounds.append(Step(kind, _number(node.inputs[index])))
        return node.inputs[0], bounds
    if node.op not in ("Mul", "Div", "Add", "Sub", "Min", "Max") or len(node.inputs) != 2:
        return None
    constants = [t for t in node.inputs if is_constant(t)]
    variables = [t for t in node.inputs if not is_constant(t)]
    if len(constants) != 1 or not np.issubdtype(constants[0].dtype, np.floating):
        return None
    value, tensor = _number(constants[0]), variables[0]
    if tensor is node.inputs[1] and node.op in ("Div", "Sub"):
        return None
    if value.ndim and not _is_one_a_channel(value, tensor, node.outputs[0]):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        step = {
            "Mul": lambda: Step("scale", value),
            "Div": lambda: Step("scale", 1 / value),
            "Add": lambda: Step("shift", value),
            "Sub": lambda: Step("shift", -value),
            "Min": lambda: Step("high", value),
            "Max": lambda: Step("low", value),
        }[node.op]()
    return tensor, [step]


def _is_one_a_channel(value: Values, tensor: gs.Tensor, out: gs.Tensor) -> bool:
    """Whether the value broadcasts against a sample: it neither enlarges the tensor nor differs by batch index."""
    if not tensor.shape or tensor.shape != out.shape or value.ndim > len(tensor.shape):
        return False
    return value.ndim < len(tensor.shape) or value.shape[0] == 1


def _number(tensor: gs.Constant) -> Values:
    values = np.asarray(tensor.values, np.float64)
    return values.reshape(()) if values.size == 1 else values


def _replace(model: Model, match: _Match, labels: set[str]) -> tuple[str, bool]:
    """Put an operator in the place of what was matched; returns its label, and whether it is exact at half points."""
    rounding, reading, target = match.rounding.node, match.reading, match.target
    _check_type(model, rounding, target)
    label = unused(_scope(rounding.name.removesuffix("_QuantizeLinear") or target.name), labels)
    dtype = target.dtype
    taken = monotone_before(match.source)  # operators that the neuron stands for, too
    steps = _thresholds(model, match, taken) if taken else None
    source = match.source if steps is None else taken[0].data
    if steps is None and not match.rounding.is_floor:
        steps = _thresholds(model, match, [])
    with np.errstate(over="ignore"):  # check-thresholds says so
        if steps is None:
            threshold = _for_sample(reading.threshold, match.source).astype(dtype)
            parameters = [model.constant(f"{label}/threshold", threshold)]
        else:
            unit = reading.threshold / reading.levels if reading.rank[0] else reading.height
            parameters = [
                model.constant(f"{label}/thresholds", steps),
                model.constant(f"{label}/unit", _for_sample(unit, match.source).astype(dtype)),
            ]
    operator = ops.QCFS if steps is None else ops.MULTI_THRESHOLD
    target.inputs.clear()
    out = target
    if reading.rank[0]:
        out = model.variable(f"{label}/levels", target)
        with np.errstate(over="ignore"):
            scale = model.constant(f"{label}/scale", _for_sample(reading.rest, match.source).astype(dtype))
        model.graph.nodes.append(
            gs.Node("Mul", model.unique_name(f"{label}/Scale"), inputs=[out, scale], outputs=[target])
        )
    model.graph.nodes.append(
        gs.Node(
            operator.name,
            model.unique_name(f"{label}/{operator.name}"),
            attrs={"levels": reading.levels, "phi": reading.phi, "label": label},
            inputs=[source, *parameters],
            outputs=[out],
            domain=ops.DOMAIN,
        )
    )
    return label, steps is not None or match.rounding.is_floor


def _thresholds(model: Model, match: _Match, taken: Sequence[Link]) -> Array | None:
    """The thresholds of what was matched, behind the operators taken in; None where they are not found."""
    rank, dtype = len(match.source.shape or ()), match.target.dtype
    if rank < 1 or match.source.dtype != dtype:
        return None
    reading, rounding = match.reading, match.rounding
    before = [tensor for tensor, _ in reversed(rounding.before[: reading.ahead + 1])]
    after = [tensor for tensor, _ in rounding.after[: reading.behind + 1]]
    operators = list(taken)
    for data, result in pairwise([*before, rounding.node.outputs[0], *after]):
        node = producer(result)
        if node is not None and any(t is data for t in node.inputs):  # else straight through, or the same tensor
            operators.append(Link(node, data))
    shape = reading.shape[1:] if len(reading.shape) == rank else reading.shape
    sample = (*(1 for _ in range(rank - 1 - len(shape))), *shape)
    height = _for_sample(reading.height, match.source)
    return thresholds(model, operators, reading.levels, height, sample, np.dtype(dtype))


def _for_sample(values: Array, tensor: gs.Tensor) -> Array:
    """Per-channel values without the batch axis."""
    return values[0] if values.ndim == len(tensor.shape or ()) and values.ndim > 0 else values


def _scope(name: str) -> str:
    """'/features/act.1/Floor' is the Floor of the module 'features/act.1'."""
    scope = name.rpartition("/")[0] if "/" in name else name
    return scope.strip("/") or name


def _check_explicit(model: Model, node: gs.Node, labels: set[str]) -> None:
    name = node.name or node.outputs[0].name
    levels, phi = node.attrs.get("levels"), node.attrs.get("phi", 0.5)
    if not isinstance(levels, int) or not 1 <= levels <= ops.MAX_LEVELS:
        raise CompileError(
            f"levels of {node.op} must be an integer from 1 to {ops.MAX_LEVELS}, not {levels}",
            file=model.file,
            node=name,
        )
    if not isinstance(phi, float) or not 0 <= phi < 1:
        raise CompileError(f"phi of {node.op} must be in [0, 1), not {phi}", file=model.file, node=name)
    stepped = has_thresholds(node)
    what, index = ("unit", 2) if stepped else ("threshold", 1)
    if stepped:
        _check_steps(model, node, name)
    if not has_tensor(node, index) or not is_constant(node.inputs[index]):
        raise CompileError(f"the {what} of {node.op} must be an initializer", file=model.file, node=name)
    height = np.asarray(node.inputs[index].values)
    if not np.all(np.isfinite(height)) or not np.all(height > 0):
        raise CompileError(
            f"the {what} of {node.op} is zero, negative or NaN",
            file=model.file,
            node=name,
            hint="" if stepped else "A larger initial threshold (4 to 8) keeps it positive in training.",
        )
    normal = _by_sample(height, node.inputs[0])
    if normal is None:
        raise CompileError(
            f"the {what} of {node.op} has the shape {list(height.shape)}, which does not broadcast against one sample",
            file=model.file,
            node=name,
            hint="Give it one value, or one a channel: [C, 1, 1] for [N, C, H, W].",
        )
    if normal.shape != height.shape:
        set_input(node, index, model.constant(node.inputs[index].name, normal))
    node.attrs["phi"] = phi
    node.attrs["label"] = unused(node.attrs.get("label") or _scope(name), labels)


def _check_steps(model: Model, node: gs.Node, name: str) -> None:
    """The thresholds of an explicit MultiThreshold."""
    levels, current = node.attrs["levels"], node.inputs[0]
    if not has_tensor(node, 1) or not is_constant(node.inputs[1]):
        raise CompileError(f"the thresholds of {node.op} must be an initializer", file=model.file, node=name)
    steps = np.asarray(node.inputs[1].values)
    rank = len(current.shape) if current.shape else steps.ndim - 1
    sizes = list(current.shape or [None] * rank)[1:]
    if (
        steps.shape[:2] != (levels, 1)
        or steps.ndim != rank + 1
        or not all(a == 1 or a == b or not isinstance(b, int) for a, b in zip(steps.shape[2:], sizes, strict=True))
    ):
        raise CompileError(
            f"the thresholds of {node.op} have the shape {list(steps.shape)}, which is not one row for each of "
            f"{levels} levels that broadcasts against one sample",
            file=model.file,
            node=name,
            hint="Give them one value a level, or one a level and channel: [L, 1, C, 1, 1] for [N, C, H, W].",
        )
    if not np.all(steps[1:] >= steps[:-1]) or np.isnan(steps).any():
        raise CompileError(f"the thresholds of {node.op} do not ascend", file=model.file, node=name)


def _check_type(model: Model, rounding: gs.Node, tensor: gs.Tensor) -> None:
    if tensor.dtype is None:
        raise CompileError(
            f"an activation has the form of QCFS, but the type of its result '{tensor.name}' is not known: an operator "
            "before it is known neither to onnx nor to onnxruntime",
            file=model.file,
            node=rounding.name or rounding.outputs[0].name,
            hint="Export with standard operators, or declare the tensor's type in the file (value_info).",
        )


def _check_precision(model: Model, node: gs.Node) -> None:
    """Files of mixed precision keep float32 inputs and compute in half precision behind a Cast."""
    dtype = node.inputs[0].dtype or node.inputs[1].dtype
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise CompileError(
            f"an activation computes in {np.dtype(dtype).name}, in which a sum of currents cannot be told from its "
            "neighbours at the half points that decide a spike",
            file=model.file,
            node=node.attrs["label"],
            hint="Export it in float32.",
        )


def _by_sample(threshold: Array, tensor: gs.Tensor) -> Array | None:
    """The threshold as a scalar, or shaped to broadcast against a sample; None where it does not."""
    if threshold.size == 1:
        return threshold.reshape(())
    sample = (tensor.shape or [None])[1:]
    if threshold.ndim == len(sample) + 1 and threshold.shape[0] == 1:
        threshold = threshold[0]
    sizes = sample[len(sample) - threshold.ndim :]
    fits = threshold.ndim <= len(sample) and all(a in (1, b) for a, b in zip(threshold.shape, sizes, strict=True))
    return threshold if fits else None
