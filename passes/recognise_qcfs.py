"""QCFS activations, found by algebra.

Whatever an exporter or optimiser made of ``theta * clip(floor(z*L/theta + phi)/L, 0, 1)`` [QCFS, Bu et al. 2022], there
is one Floor in it, and around it only elementwise affine maps and bounds. From the Floor outwards these are collected:

    y = min(max(a*x + b, lo), hi)       before the Floor
    h = min(max(p*k + q, LO), HI)       behind it, k = floor(y)

``floor(min(max(v, lo), hi)) = min(max(floor(v), floor(lo)), floor(hi))``, so h is QCFS exactly if q = 0, the count is
bounded by 0 and an integer L, and 0 <= b < 1; then theta = L/a and phi = b. Where p*a is not 1 (an optimiser moved a
scale into a neighbour) a multiplication by p*a is left behind the neuron. Where to cut the chain is free as well; the
longest cut that gives p*a = 1 and phi = 1/2 wins, else the shortest that is QCFS. Between two Floors in a row each map
is taken by one of them at most, and the cuts are such that as many Floors as possible are QCFS.

Uniform quantisers have another rounding in the place of the Floor, which is a Floor save at the points between two
levels, where it may go the other way:

    round(v) = floor(v + 1/2), half to even        ceil(v) = floor(v + 1)
    QuantizeLinear, DequantizeLinear = (min(max(round(x/scale) + zero point, low), high) - zero point) * scale

So an unsigned quantiser of b bits is QCFS with L = 2^b - 1 and theta = L*scale, but for these points. It becomes a
MultiThreshold, whose thresholds are the very floats at which the quantiser goes to the next level
(pascalc/step_functions.py), so that it is exact there, too. A quantiser whose lowest level is below zero is not one,
unless a Relu before it keeps its input from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice, pairwise
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

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
from pascalc.step_functions import Link, thresholds

Values = NDArray[np.float64]

#: How far the algebra may be off for constants that went through float32 arithmetic a few times.
_TOLERANCE = 1e-6
_MAX_CHAIN = 16


class _Refusal(Exception):
    """This is not QCFS, and why."""


class _Broken(_Refusal):
    """This is meant to be QCFS, but its parameters are not valid; ``surely`` so where no other reading may overrule."""

    def __init__(self, reason: str, surely: bool = False) -> None:
        super().__init__(reason)
        self.surely = surely


@dataclass(frozen=True)
class _Bounded:
    """The function min(max(scale*x + shift, low), high) with scale > 0; every value a scalar or one a channel.

    ``positive`` is False once a scale was zero, negative or NaN; its absolute value (or 1) stands in for it, so that
    the rest of the form can still be told.
    """

    scale: Values
    shift: Values
    low: Values
    high: Values
    positive: bool = True

    @staticmethod
    def identity() -> _Bounded:
        return _Bounded(np.asarray(1.0), np.asarray(0.0), np.asarray(-np.inf), np.asarray(np.inf))

    def then(self, step: _Step) -> _Bounded:
        if step.kind == "scale":
            usable = np.isfinite(step.value) & (step.value != 0)
            factor = np.where(usable, np.abs(step.value), 1.0)
            positive = self.positive and bool(np.all(usable & (step.value > 0)))
            scaled = (self.scale * factor, self.shift * factor, self.low * factor, self.high * factor)
            return _Bounded(*scaled, positive)
        if step.kind == "shift":
            shifted = (self.shift + step.value, self.low + step.value, self.high + step.value)
            return _Bounded(self.scale, *shifted, self.positive)
        bound = np.maximum if step.kind == "low" else np.minimum
        return replace(self, low=bound(self.low, step.value), high=bound(self.high, step.value))


@dataclass(frozen=True)
class _Step:
    """One elementwise map: ``kind`` is scale, shift, low (a lower bound) or high (an upper bound)."""

    kind: str
    value: Values


#: A tensor of the chain and the steps between it and the next tensor nearer to the Floor.
Place = tuple[gs.Tensor, list[_Step]]


@dataclass(frozen=True)
class _Match:
    before: list[Place]  # the part of the chain that it takes
    after: list[Place]
    threshold: Values
    levels: int
    phi: float
    height: Values  # of a level, behind the chain
    rest: Values  # what remains to be multiplied behind the neuron
    shape: tuple[int, ...]  # of all its parameters

    BEST_RANK: ClassVar[tuple[bool, bool]] = (False, False)

    @property
    def source(self) -> gs.Tensor:
        return self.before[-1][0]

    @property
    def target(self) -> gs.Tensor:
        return self.after[-1][0]

    @property
    def length(self) -> int:
        """How many links of the chain it takes."""
        return len(self.before) + len(self.after) - 2

    @cached_property
    def rank(self) -> tuple[bool, bool]:
        """Smaller is better: whether something remains behind the neuron, and whether phi is not 1/2."""
        return (not np.allclose(self.rest, 1, rtol=_TOLERANCE), self.phi != 0.5)

    @property
    def worth(self) -> _Worth:
        """What it adds to the reading of a row."""
        remains, odd = self.rank
        return _Worth(1, -remains, -odd, -self.length if remains else self.length)


@dataclass(frozen=True, order=True)
class _Worth:
    """How good a reading of roundings in a row is: neurons, those with nothing behind them, those with phi = 1/2, and
    how much of the chain they take."""

    neurons: int = 0
    complete: int = 0
    centred: int = 0
    length: int = 0

    def __add__(self, other: _Worth) -> _Worth:
        return _Worth(
            self.neurons + other.neurons,
            self.complete + other.complete,
            self.centred + other.centred,
            self.length + other.length,
        )


@dataclass(frozen=True)
class RecogniseQcfs(Pass):
    """Replace every form of the QCFS activation by one explicit operator: QCFS, or MultiThreshold where it rounds."""

    requires: ClassVar[frozenset[Fact]] = frozenset({SHAPES, CONSTANTS})
    provides: ClassVar[frozenset[Fact]] = frozenset({QCFS})

    def run(self, model: Model) -> int:
        labels: set[str] = set()
        count = 0
        readings: dict[int, _Match | _Refusal] = {}
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
                except _Broken as error:
                    raise CompileError(
                        f"an activation has the form of QCFS, but {error}",
                        file=model.file,
                        node=node.name or node.outputs[0].name,
                        hint="Check the trained thresholds and levels; a larger initial threshold (4 to 8) keeps them "
                        "positive in training.",
                    ) from error
                except _Refusal as error:
                    name = node.name or node.outputs[0].name
                    model.note(self.name(), name, f"not QCFS: {error}", NoteKind.NEAR_MISS)
                    continue
                label, exact = _replace(model, node, match, labels)
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


def _settled(rounding: gs.Node, reading: _Match | _Refusal) -> _Match:
    """What the rounding operator was read as; raised where it is not QCFS."""
    if isinstance(reading, _Match):
        return reading
    if isinstance(reading, _Broken) and not reading.surely and not is_operator(rounding, "Floor"):
        raise _Refusal(str(reading)) from reading  # a quantiser of another kind
    raise reading


@dataclass(frozen=True)
class _Rounding:
    """A rounding operator between the chains before and behind it."""

    node: gs.Node
    before: list[Place]
    after: list[Place]

    def readings(self) -> Iterator[_Match]:
        """The ways to read it as QCFS, the best first."""
        return _by_rank(self.before, self.after, is_operator(self.node, "Floor"))

    def within(self, tensor: gs.Tensor) -> int:
        """How many links of the chain before it remain behind the tensor."""
        return next((i for i, (link, _) in enumerate(self.before) if link is tensor), len(self.before) - 1)


def _read_row(model: Model, first: gs.Node) -> dict[int, _Match | _Refusal]:
    """The rounding operator, and those that follow it in one chain of elementwise maps, read as QCFS."""
    found: dict[int, _Match | _Refusal] = {}
    row: list[_Rounding] = []
    node: gs.Node | None = first
    while node is not None:
        try:
            ahead, behind = _centre(model, node)
        except _Refusal as refusal:
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


def _share(row: Sequence[_Rounding]) -> dict[int, _Match | _Refusal]:
    """The row read such that no two roundings take the same map, as many as possible are QCFS, and little is left over.

    What a rounding leaves of the chain before the next one decides what can follow. So from the last to the first, for
    every length of the chain that a rounding may be left: its best reading, and the worth of all from there on.
    """
    tables: list[list[tuple[_Worth, _Match | _Refusal]]] = []
    for rounding, following in zip(reversed(row), (None, *reversed(row)), strict=False):
        options: list[tuple[int, _Worth, _Match]] = []
        refusal = _Refusal("its steps belong to the roundings around it")
        try:
            for match in islice(rounding.readings(), 1 if len(row) == 1 else None):
                worth = match.worth
                if following is not None:
                    worth = worth + tables[-1][following.within(match.target)][0]
                options.append((rounding.within(match.source), worth, match))
        except _Refusal as error:
            refusal = error
        none: tuple[_Worth, _Match | _Refusal] = (tables[-1][-1][0] if tables else _Worth(), refusal)
        tables.append([])
        for left in range(len(rounding.before)):
            usable = [(worth, match) for length, worth, match in options if length <= left]
            tables[-1].append(max([none, *usable], key=lambda option: option[0]))
    found: dict[int, _Match | _Refusal] = {}
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
        return (node.inputs[0], [_Step("shift", np.asarray(shift))] if shift else []), (node.outputs[0], [])
    back = _dequantised(model, node)
    scale, zero = _quantisation(node)
    low, high = _limits(node.outputs[0])
    own_scale, own_zero = _quantisation(back)
    if not np.all(np.isfinite(scale)) or not np.all(scale > 0):
        raise _Broken("the scale of its quantiser is zero, negative or NaN", surely=True)
    return (node.inputs[0], [_Step("scale", 1 / scale), _Step("shift", np.asarray(0.5))]), (
        back.outputs[0],
        [
            _Step("shift", zero),
            _Step("low", low),
            _Step("high", high),
            _Step("shift", -own_zero),
            _Step("scale", own_scale),
        ],
    )


def _dequantised(model: Model, node: gs.Node) -> gs.Node:
    """The DequantizeLinear behind a QuantizeLinear. Several that do the same become one."""
    integers = node.outputs[0]
    users = list(integers.outputs)
    if not users or model.is_output(integers) or not all(is_operator(user, "DequantizeLinear") for user in users):
        raise _Refusal("its integers are used")
    first, *others = users
    for other in others:
        same = all(np.array_equal(a, b) for a, b in zip(_quantisation(first), _quantisation(other), strict=True))
        if not same or model.is_output(other.outputs[0]):
            raise _Refusal("its integers are used in several ways")
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
        raise _Refusal("it quantises to something else than integers")
    unsigned, bits = bool(kind[1]), int(kind[2])
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return np.asarray(float(low)), np.asarray(float(high))


def _quantisation(node: gs.Node) -> tuple[Values, Values]:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear, shaped to broadcast against its input."""
    given = [t for t in node.inputs[1:] if not t.is_empty()]
    if not all(is_constant(t) for t in given):
        raise _Refusal("its scale or zero point is computed")
    rank = len(node.inputs[0].shape or ())
    axis = node.attrs.get("axis", 1)
    axis += rank if axis < 0 else 0
    values = []
    for tensor in given:
        value = np.asarray(tensor.values).astype(np.float64)
        if value.size == 1:
            value = value.reshape(())
        elif value.ndim != 1 or node.attrs.get("block_size", 0) or not 0 < axis < rank:
            raise _Refusal("its scale is neither one number nor one a channel")
        else:
            value = value.reshape(-1, *[1] * (rank - axis - 1))
        values.append(value)
    return values[0], values[1] if len(values) > 1 else np.asarray(0.0)


def _by_rank(before: list[Place], after: list[Place], is_floor: bool) -> Iterator[_Match]:
    """The cuts that are QCFS: first those that leave nothing behind the neuron, with phi = 1/2 before another, the
    longest first; then the others, the shortest first.

    Raises:
        _Refusal: there is none, and why.
    """
    others: list[_Match] = []
    refusals: list[_Refusal] = []
    any_best = False
    aheads = [_composed([steps for _, steps in reversed(before[: n + 1])]) for n in range(len(before))]
    behinds = [_composed([steps for _, steps in after[: n + 1]]) for n in range(len(after))]
    for length in range(len(before) + len(after) - 2, -1, -1):
        for behind in range(min(length, len(after) - 1), -1, -1):
            ahead = length - behind
            if ahead >= len(before):
                continue
            try:
                match = _solve(before[: ahead + 1], aheads[ahead], after[: behind + 1], behinds[behind], is_floor)
            except _Refusal as error:
                if isinstance(error, _Broken) and error.surely:
                    raise
                refusals.append(error)
                continue
            if match.rank == _Match.BEST_RANK:
                any_best = True
                yield match
            else:
                others.append(match)
    yield from sorted((m for m in others if not m.rank[0]), key=lambda m: m.rank)
    yield from sorted((m for m in reversed(others) if m.rank[0]), key=lambda m: m.rank)
    if not others and not any_best:
        raise next((r for r in refusals if isinstance(r, _Broken)), refusals[0])


def _chain_before(nearest: Place) -> list[Place]:
    """The tensors before the Floor, nearest first, each with the steps from it to the next nearer one."""
    links = [nearest]
    while len(links) < _MAX_CHAIN:
        node = producer(links[-1][0])
        step = _steps(node)
        if node is None or step is None:
            break
        links.append(step)
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
        bounds: list[_Step] = [_Step("low", np.asarray(0.0))] if node.op == "Relu" else []
        for index, kind in ((1, "low"), (2, "high")) if node.op == "Clip" else ():
            if has_tensor(node, index):
                if not is_constant(node.inputs[index]):
                    return None
                bounds.append(_Step(kind, _number(node.inputs[index])))
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
            "Mul": lambda: _Step("scale", value),
            "Div": lambda: _Step("scale", 1 / value),
            "Add": lambda: _Step("shift", value),
            "Sub": lambda: _Step("shift", -value),
            "Min": lambda: _Step("high", value),
            "Max": lambda: _Step("low", value),
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


def _composed(steps: Sequence[Sequence[_Step]]) -> _Bounded:
    bounded = _Bounded.identity()
    for step in chain.from_iterable(steps):
        bounded = bounded.then(step)
    return bounded


def _solve(before: list[Place], ahead: _Bounded, after: list[Place], behind: _Bounded, is_floor: bool) -> _Match:
    """Read the chain cut at these lengths as QCFS."""
    low = np.maximum(np.floor(ahead.low + _TOLERANCE), (behind.low - behind.shift) / behind.scale)
    # An upper bound before the shift by b reaches the Floor as L + b, one behind the shift as L.
    shifted = np.where(_is_integer(ahead.high), ahead.high, ahead.high - ahead.shift)
    if not is_floor:
        shifted = np.floor(ahead.high)  # a quantiser may be bounded between its levels
    high = np.minimum(shifted, (behind.high - behind.shift) / behind.scale)
    if np.any(np.isnan(low) | np.isnan(high)):
        raise _Broken("a bound is NaN", surely=True)
    if not np.all(np.isfinite(low)) or not np.all(np.isfinite(high)):
        missing = "below" if not np.all(np.isfinite(low)) else "above"
        raise _Refusal(f"nothing bounds it {missing}")
    if not np.all(np.abs(behind.shift) <= _TOLERANCE * behind.scale):
        raise _Refusal("a constant is added behind the Floor, so that level 0 is not zero")
    levels = np.unique(np.round(high))
    phi = np.unique(np.where(np.abs(ahead.shift - 0.5) <= _TOLERANCE, 0.5, ahead.shift))
    if phi.size != 1 or not 0 <= phi[0] < 1:
        raise _Refusal("the shift before the Floor is not one number in [0, 1)")
    if not is_floor and np.any(_is_integer(ahead.high)):
        raise _Refusal("its upper bound lies half way between two levels")
    if not (ahead.positive and behind.positive):
        # A negative scale before may be a neighbour's, and the neuron starts behind it; but one that the scale behind
        # undoes is a threshold.
        undone = np.allclose(ahead.scale * behind.scale, 1, rtol=_TOLERANCE)
        surely = undone and not ahead.positive and not behind.positive
        raise _Broken("its threshold is zero, negative or NaN", surely)
    if not np.all(np.abs(low) <= _TOLERANCE):
        raise _Refusal("its lowest level is not zero")
    if not np.all(_is_integer(high)):
        raise _Broken(f"its number of levels, {float(np.max(high)):g}, is not an integer")
    if levels.size != 1:
        raise _Refusal("its channels have different numbers of levels")
    if levels[0] < 1:
        raise _Broken("it has no level above zero")
    if levels[0] > ops.MAX_LEVELS:
        raise _Refusal(f"it has {levels[0]:.0f} levels, more than {ops.MAX_LEVELS}")
    top = _saturated(before)
    if np.any(np.isfinite(top) & (np.floor(top) != levels[0])):
        raise _Refusal(
            f"rounding keeps its highest level at {np.min(np.floor(top)):g}, below the {levels[0]:g} it means"
        )
    return _Match(
        before=before,
        after=after,
        threshold=np.asarray(levels[0] / ahead.scale),
        levels=int(levels[0]),
        phi=float(phi[0]),
        height=behind.scale,
        rest=np.asarray(behind.scale * ahead.scale),
        shape=np.broadcast_shapes(*(v.shape for b in (ahead, behind) for v in (b.scale, b.shift, b.low, b.high))),
    )


def _saturated(before: list[Place]) -> Values:
    """What reaches the Floor from an infinite input, in the network's own arithmetic: without a shift by 1/2 an upper
    bound that was rounded down costs a level."""
    dtype = before[0][0].dtype
    if dtype is not None and np.dtype(dtype).kind != "f":
        raise _Refusal("it does not compute with real numbers")
    value = np.asarray(np.inf, dtype)
    for _, steps in reversed(before):
        for step in steps:
            wide = value.astype(np.float64)
            if step.kind == "scale":
                wide = wide * step.value
            elif step.kind == "shift":
                wide = wide + step.value
            else:
                wide = np.maximum(wide, step.value) if step.kind == "low" else np.minimum(wide, step.value)
            value = np.asarray(wide).astype(dtype)
    return value.astype(np.float64)


def _is_integer(values: Values) -> NDArray[np.bool_]:
    finite = np.where(np.isfinite(values), values, 0.5)
    return np.asarray(np.abs(finite - np.round(finite)) <= _TOLERANCE * np.maximum(np.abs(finite), 1))


def _replace(model: Model, rounding: gs.Node, match: _Match, labels: set[str]) -> tuple[str, bool]:
    """Put an operator in the place of what was matched; returns its label, and whether it is exact at half points."""
    target = match.target
    _check_type(model, rounding, target)
    label = _unique_label(_scope(rounding.name.removesuffix("_QuantizeLinear") or target.name), labels)
    dtype = target.dtype
    steps = None if is_operator(rounding, "Floor") else _thresholds(model, rounding, match)
    with np.errstate(over="ignore"):  # check-thresholds says so
        if steps is None:
            threshold = _for_sample(match.threshold, match.source).astype(dtype)
            parameters = [model.constant(f"{label}/threshold", threshold)]
        else:
            unit = match.threshold / match.levels if match.rank[0] else match.height
            parameters = [
                model.constant(f"{label}/thresholds", steps),
                model.constant(f"{label}/unit", _for_sample(unit, match.source).astype(dtype)),
            ]
    operator = ops.QCFS if steps is None else ops.MULTI_THRESHOLD
    target.inputs.clear()
    out = target
    if match.rank[0]:
        out = model.variable(f"{label}/levels", target)
        with np.errstate(over="ignore"):
            scale = model.constant(f"{label}/scale", _for_sample(match.rest, match.source).astype(dtype))
        model.graph.nodes.append(
            gs.Node("Mul", model.unique_name(f"{label}/Scale"), inputs=[out, scale], outputs=[target])
        )
    model.graph.nodes.append(
        gs.Node(
            operator.name,
            model.unique_name(f"{label}/{operator.name}"),
            attrs={"levels": match.levels, "phi": match.phi, "label": label},
            inputs=[match.source, *parameters],
            outputs=[out],
            domain=ops.DOMAIN,
        )
    )
    return label, steps is not None or is_operator(rounding, "Floor")


def _thresholds(model: Model, rounding: gs.Node, match: _Match) -> Array | None:
    """The thresholds of what was matched; None where they are not found."""
    rank, dtype = len(match.source.shape or ()), match.target.dtype
    if rank < 1 or match.source.dtype != dtype:
        return None
    before = [tensor for tensor, _ in reversed(match.before)]
    after = [tensor for tensor, _ in match.after]
    operators = []
    for data, result in pairwise([*before, rounding.outputs[0], *after]):
        node = producer(result)
        if node is not None and any(t is data for t in node.inputs):  # else straight through, or the same tensor
            operators.append(Link(node, data))
    shape = match.shape[1:] if len(match.shape) == rank else match.shape
    sample = (*(1 for _ in range(rank - 1 - len(shape))), *shape)
    height = _for_sample(match.height, match.source)
    return thresholds(model, operators, match.levels, height, sample, np.dtype(dtype))


def _for_sample(values: Array, tensor: gs.Tensor) -> Array:
    """Per-channel values without the batch axis."""
    return values[0] if values.ndim == len(tensor.shape or ()) and values.ndim > 0 else values


def _scope(name: str) -> str:
    """'/features/act.1/Floor' is the Floor of the module 'features/act.1'."""
    scope = name.rpartition("/")[0] if "/" in name else name
    return scope.strip("/") or name


def _unique_label(wanted: str, labels: set[str]) -> str:
    label, number = wanted, 1
    while label in labels:
        number += 1
        label = f"{wanted}_{number}"
    labels.add(label)
    return label


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
    node.attrs["label"] = _unique_label(node.attrs.get("label") or _scope(name), labels)


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
