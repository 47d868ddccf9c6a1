"""Which tensor of the compiled network stands for which of the source's, and what is wrong whatever the data.

Both networks are cut at the same places: at the neurons, and at every operator that is neither a sum of products nor
moves values about (Softmax, Sigmoid, ArgMax, a Loop). Between the cuts lie *stretches*. Two networks are the same if

- every neuron, and every computed operator, of the one has its counterpart in the other;
- what goes into each of them, and into the network's outputs, is the same function of what comes out of the cuts
  before it and of the network's inputs.

The first is settled here, by structure; the second is measured (pascalc/verifier/compare.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.activations import to_qcfs
from pascalc.codes import UNIT
from pascalc.errors import CompileError
from pascalc.graph import BATCH, Model, captured, is_constant, is_operator, is_ours, living, producer
from pascalc.linear import is_batched
from pascalc.metadata import SOURCE_NAME, recorded_levels, source_is
from pascalc.neurons import Neuron, before_accumulate, is_spiking, neurons
from pascalc.operators import TABLE, UNKNOWN, Bound, Linear, operator
from pascalc.rounding import allowance, is_float, is_linear, is_product, summed_terms
from pascalc.timing import Analog, Const, Current, Declined, Held, TimeType, decide, time_types
from pascalc.verifier.record import ComputedCheck, LayerCheck, Verification
from pascalc.verifier.sameness import fits, mismatches, same_operator


@dataclass(frozen=True)
class Layer:
    """A QCFS of the source network and the neuron that stands for it.

    Attributes:
        check: where what is found of it goes.
        before: the source's current, behind the MaxPools that moved behind the neuron.
        unpooled: the source's current in front of them; ``before`` itself where there are none.
        after: the source's activation.
        current: what the compiled neuron gets; ``fired``: what it gives; ``train``: the same behind those MaxPools.
        ulps: how far rounding alone may move the current, in units in the last place of its sum of absolute products.
    """

    check: LayerCheck
    source: Neuron
    compiled: Neuron
    before: str
    unpooled: str
    after: str
    current: str
    fired: str
    train: str
    ulps: float

    @property
    def threshold(self) -> Any:
        """The source's theta, in its type."""
        return self.source.threshold

    @property
    def levels(self) -> int:
        """L of the compiled neuron, which is the source's unless it was changed on purpose."""
        return self.compiled.levels

    @property
    def most(self) -> int:
        """The count of the compiled neuron that stands for theta; L where it is lossless."""
        return self.compiled.most

    def unit(self, most: int) -> Any:
        """The height of a level of the source where so many stand for theta."""
        if most == self.source.levels:
            return self.source.unit
        return np.asarray(self.threshold / self.threshold.dtype.type(most))


@dataclass(frozen=True)
class Feed:
    """A tensor that goes into an operator that is computed, or not plain: its names in the source and in the compiled
    network, how far rounding may move it, and what it means over time in the compiled network."""

    source: str
    compiled: str
    ulps: float
    kind: TimeType


@dataclass(frozen=True)
class Computed:
    """An operator that is computed and not spiking.

    ``choices``: those of its outputs that are no floats and have one entry, or several, a sample.
    """

    check: ComputedCheck
    inputs: list[Feed]
    outputs: list[str]
    choices: list[str]


@dataclass(frozen=True)
class Output:
    """An output of the network.

    ``origin``: a sum of products, the activation of a neuron, or what a computed operator gives. ``per_sample``: its
    first axis is the batch. ``behind_computed``: floats that a computed operator gave come before it, which may have
    made any rounding error larger.
    """

    name: str
    origin: Literal["sum", "neuron", "computed"]
    ulps: float
    per_sample: bool
    behind_computed: bool


@dataclass
class Pairing:
    """The two networks side by side; ``bent`` goes into operators of stretches that are not plain, as MaxPools that did
    not move behind a neuron, and ``strangers`` are operators that only the compiled one has."""

    layers: list[Layer] = field(default_factory=list)
    computed: list[Computed] = field(default_factory=list)
    bent: list[Feed] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    requantised: dict[str, int] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)

    def observed(self) -> list[str]:
        """All tensors of the compiled network that are compared."""
        names = [n for x in self.layers for n in (x.current, x.fired, x.train)]
        names += [n for x in self.computed for n in (*(f.compiled for f in x.inputs), *x.outputs)]
        return [*names, *(f.compiled for f in self.bent), *(o.name for o in self.outputs)]

    def shown(self) -> list[str]:
        """All tensors of the source network that are compared, given what comes out of the cuts."""
        names = [n for x in self.layers for n in (x.before, x.unpooled, x.after)]
        names += [f.source for x in self.computed for f in x.inputs] + [f.source for f in self.bent]
        return [*names, *(o.name for o in self.outputs)]


def pair(known: Model, emitted: Model, result: Verification) -> Pairing:
    """Pair the source, with its activations made explicit, with the compiled network; faults go into ``result``.

    Raises:
        CompileError: there is nothing to compare: the compiled network has no neuron of the source.
    """
    return _Pairs(known, emitted, result).found


class _Pairs:
    def __init__(self, known: Model, emitted: Model, result: Verification) -> None:
        self.known, self.emitted, self.result = known, emitted, result
        self.tensors: dict[str, gs.Tensor] = emitted.graph.tensors()
        self.found = Pairing()
        self.given: set[int] = set()  # what computed operators give
        self.paired: set[int] = set()  # operators of the compiled network that stand for one of the source's
        self.sunk: set[int] = set()  # MaxPools of the source that moved behind a neuron
        self.cuts: dict[int, int] = {}  # by the source's tensor, the steps that it arrives in
        self.memo: dict[
            int, tuple[int, int, int]
        ] = {}  # by tensor: the longest train, the most terms, adding operators
        paired, operators = self._neurons(), self._operators()
        recorded = recorded_levels(emitted.metadata)
        for neuron, stand_in in paired:
            self._layer(neuron, stand_in, recorded)
        for node in operators:
            self._computed(node)
        self._bends()
        self._outputs()
        self._strangers()

    # --- neurons ------------------------------------------------------------------------------------------------------

    def _neurons(self) -> list[tuple[Neuron, Neuron]]:
        """The source's neurons with those of the same label; the source is cut behind them."""
        stand_ins: dict[str, Neuron] = {}
        for neuron in neurons(self.emitted):
            if stand_ins.setdefault(neuron.name, neuron) is not neuron:
                self.result.problems.append(f"two neurons are labelled '{neuron.name}'")
        paired: list[tuple[Neuron, Neuron]] = []
        for neuron in neurons(self.known):
            stand_in = stand_ins.pop(neuron.name, None)
            if stand_in is None or neuron.node.outputs[0].name not in self.tensors:
                self.result.problems.append(f"the neuron '{neuron.name}' of the source is not in the compiled network")
                continue
            paired.append((neuron, stand_in))
            self.cuts[id(neuron.node.outputs[0])] = min(stand_in.most, ops.MAX_LEVELS)
        self.result.problems += [f"the neuron '{name}' is not in the source network" for name in stand_ins]
        if not paired:
            raise CompileError(
                "it has no neuron of the source network",
                file=self.emitted.file,
                hint=self._origin()
                + "The source comes first, then what was compiled from it; its functions must not be "
                "inlined.",
            )
        return paired

    def _origin(self) -> str:
        """What the file says that it was compiled from, where that is not the source."""
        name = self.emitted.metadata.get(SOURCE_NAME)
        if not name or source_is(self.emitted.metadata, self.known.digest) is not False:
            return ""
        return f"It says that it was compiled from another file than this, named {name}. "

    def _layer(self, neuron: Neuron, stand_in: Neuron, recorded: Mapping[str, Any]) -> None:
        requantised = stand_in.levels != neuron.levels and recorded.get(neuron.name) == stand_in.levels
        if requantised and neuron.thresholds is not None:  # at other levels it is the QCFS that comes nearest
            to_qcfs(self.known, neuron.node)
            neuron = replace(neuron, parameters=(neuron.threshold,))
        before, after = neuron.node.inputs[0], neuron.node.outputs[0]
        model = stand_in.model
        lossless = model is None or model.lossless
        steps = stand_in.steps_in, stand_in.steps_out
        check = LayerCheck(neuron.name, stand_in.levels, *steps, stand_in.most, lossless)
        train = before_accumulate(self.tensors[after.name])
        pools, behind = _pools(train)
        if behind is not stand_in.node:
            check.problems.append("its activation is not computed by the neuron with its label")
            pools = []
        check.problems += mismatches(neuron, stand_in)
        self.result.layers.append(check)
        if not 1 <= min(stand_in.levels, stand_in.steps_in, stand_in.steps_out) <= stand_in.levels <= ops.MAX_LEVELS:
            check.problems.append(f"its levels must be 1 to {ops.MAX_LEVELS} and its time steps at least 1")
            return
        if stand_in.threshold.dtype != neuron.threshold.dtype or stand_in.steps_out > ops.MAX_LEVELS:
            return  # it is a problem already
        if not fits(stand_in.threshold, before):
            check.problems.append(f"its threshold {list(stand_in.threshold.shape)} does not fit its samples")
            return
        claimed = recorded.get(neuron.name, stand_in.levels)
        if claimed != stand_in.levels:
            check.problems.append(f"it has {stand_in.levels} levels, and the file says that it has {claimed}")
        if stand_in.levels != neuron.levels:
            if requantised:
                self.result.requantised[neuron.name] = (neuron.levels, stand_in.levels)
                self.found.requantised[neuron.name] = stand_in.levels
            else:
                check.problems.append(f"it has {stand_in.levels} levels, the source's has {neuron.levels}")
        unpooled = before
        self.paired.update(id(pool) for pool in pools)
        for _ in pools:  # that their windows are the source's shows in the counts behind them
            own = producer(unpooled)
            if own is None or not is_operator(own, "MaxPool"):
                check.problems.append("its spikes are pooled in another way than the source's currents")
                unpooled = before
                break
            self.sunk.add(id(own))
            unpooled = own.inputs[0]
        self.found.layers.append(
            Layer(
                check=check,
                source=neuron.alone(),
                compiled=stand_in.alone(),
                before=before.name,
                unpooled=unpooled.name,
                after=after.name,
                current=stand_in.node.inputs[0].name,
                fired=stand_in.node.outputs[0].name,
                train=train.name,
                ulps=self._ulps(before, 1 if model is None or model.any_length else stand_in.steps_in),
            )
        )

    def _ulps(self, tensor: gs.Tensor, steps: int = 1) -> float:
        """How far a tensor of the source may be off by rounding alone, given the cuts before it, in units in the last
        place of its sum of absolute products; ``steps``: those that it is spread over at least."""
        own = self.cuts.get(id(tensor))
        if own is not None:
            return allowance(max(own, steps))
        waiting = [tensor]
        while waiting:
            top = waiting[-1]
            node = producer(top)
            needs = [] if node is None else [t for t in node.inputs if id(t) not in self.cuts]
            missing = [t for t in needs if id(t) not in self.memo]
            if missing:
                waiting += missing
                continue
            reached = [(1, 1 if node is None else summed_terms(node), 0)]
            for given in () if node is None else node.inputs:
                cut = self.cuts.get(id(given))
                reached.append(self.memo[id(given)] if cut is None else (cut, 1, 0))
            # a product of two computed tensors has the errors of both
            both = node is not None and is_product(node)
            longest, terms, depth = (sum(c) if both else max(c) for c in zip(*reached, strict=True))
            self.memo[id(top)] = longest, terms, depth + (node is not None and operator(node).adds)
            waiting.pop()
        longest, terms, depth = self.memo[id(tensor)]
        return allowance(max(longest, steps), terms, max(depth, 1))

    # --- what is computed ---------------------------------------------------------------------------------------------

    def _operators(self) -> list[gs.Node]:
        """The source's operators that are computed; it is cut behind them."""
        nodes = [n for n in self.known.graph.nodes if not is_stretch(self.known, n) and not is_ours(n, *ops.OPERATORS)]
        for node in nodes:
            self.cuts.update((id(t), 1) for t in node.outputs)
            self.given.update(id(t) for t in node.outputs)
        return nodes

    def _computed(self, node: gs.Node) -> None:
        outputs = [t for t in node.outputs if t.outputs or self.known.is_output(t)] or list(node.outputs[:1])
        name = outputs[0].name
        twin = producer(self.tensors[name]) if name in self.tensors else None
        check = ComputedCheck(node.name or name, node.op)
        self.result.computed.append(check)
        if twin is None:
            check.problems.append(f"the source's {node.op} is not in the compiled network")
            return
        self.paired.add(id(twin))
        pairs: list[tuple[gs.Tensor, gs.Tensor]] = []
        names = {t.name for t in outputs}
        places = [{t.name: k for k, t in enumerate(n.outputs) if t.name in names} for n in (node, twin)]
        if places[0] != places[1] or not same_operator((node, self.known), (twin, self.emitted), pairs):
            check.problems.append(f"the compiled network has another {twin.op} in place of the source's {node.op}")
            return
        feeds = [Feed(a.name, b.name, self._ulps(a), Analog()) for a, b in pairs]
        choices = [t.name for t in outputs if t.dtype is not None and not is_float(t) and is_batched(t)]
        self.found.computed.append(Computed(check, feeds, [t.name for t in outputs], choices))

    # --- outputs ------------------------------------------------------------------------------------------------------

    def _outputs(self) -> None:
        activations = {x.after for x in self.found.layers}
        jumping: set[int] = set()
        for node in self.known.graph.nodes:
            makes = any(id(t) in self.given and is_float(t) for t in node.outputs)
            if makes or any(id(t) in jumping for t in (*node.inputs, *captured(node))):
                jumping.update(id(t) for t in node.outputs)
        for tensor in self.known.graph.outputs:
            origin: Literal["sum", "neuron", "computed"] = "computed" if id(tensor) in self.given else "sum"
            origin = "neuron" if tensor.name in activations else origin
            per_sample = bool(tensor.shape) and tensor.shape[0] == BATCH
            behind = id(tensor) in jumping
            self.found.outputs.append(Output(tensor.name, origin, self._ulps(tensor), per_sample, behind))

    # --- everything else ----------------------------------------------------------------------------------------------

    def _strangers(self) -> None:
        """Operators of the compiled network that are neither plain nor paired with one of the source's.

        What is linear, and computes every sample by itself, is plain: random values show whatever it does. What has a
        kink or looks at the batch may do something else where nobody looks. So it must be one of the source's, each of
        which stands for one, and its inputs are compared.
        """
        for node in living(self.emitted):
            if is_ours(node, *ops.OPERATORS) or id(node) in self.paired or _is_plain(self.emitted, node):
                continue
            name = node.name or node.outputs[0].name
            self.result.problems.append(f"the operator '{name}' ({node.op}) is not in the source network")
            self.found.strangers.add(node.op)

    def _bends(self) -> None:
        """Operators in the source's stretches that are not plain: MaxPools that are no neuron's, on trains or on
        currents, products of two tensors, what looks at the batch. Their inputs are compared."""
        types = time_types(self.emitted) if is_spiking(self.emitted) else {}  # collapsed: no train is stepped through
        same = {x.after: x.train for x in self.found.layers}  # by construction: nothing is left to compare
        for node in self.known.graph.nodes:
            if is_ours(node, *ops.OPERATORS) or id(node) in self.sunk:
                continue
            if not is_stretch(self.known, node) or _is_plain(self.known, node):
                continue
            name = node.outputs[0].name
            twin = producer(before_accumulate(self.tensors[name])) if name in self.tensors else None
            if twin is None or not is_operator(twin, node.op) or len(twin.inputs) != len(node.inputs):
                continue  # what it feeds shows whether it was needed
            if not self._is_measured(node) and not same_operator((node, self.known), (twin, self.emitted), []):
                continue
            self.paired.add(id(twin))
            if (
                same.get(node.inputs[0].name) == twin.inputs[0].name
                and _is_pool(self.known, node)
                and node.attrs == twin.attrs
            ):
                same[name] = twin.outputs[0].name
                continue
            for own, given in zip(node.inputs, twin.inputs, strict=True):
                if own.is_empty() or is_constant(own):
                    continue
                kind = types.get(id(given), Analog())
                self.found.bent.append(Feed(own.name, given.name, self._ulps(own), kind))

    @staticmethod
    def _is_measured(node: gs.Node) -> bool:
        """Whether random values show the constants of a node: windows of pools, and weights, which may be scaled."""
        row = operator(node)
        return row.linear is Linear.MAXIMUM or (row.bound is Bound.PRODUCTS and row.linear is Linear.FLOATS)


def _is_plain(model: Model, node: gs.Node) -> bool:
    """Whether a node is linear and computes every sample, and every time step, by itself."""
    if not is_linear(node):
        return False
    try:
        types = tuple(Const() if is_constant(t) or t.is_empty() else Current(UNIT, 1) for t in node.inputs)
        return not any(isinstance(wanted, Held) for wanted in decide(model, node, types).inputs)
    except Declined:
        return False


def is_random(name: str) -> bool:
    """Whether an operator gives something else each time."""
    return TABLE.get(name, UNKNOWN).random


def is_stretch(model: Model, node: gs.Node) -> bool:
    """Whether a node is part of a stretch: its results differ by rounding alone where its inputs do, and there is
    nothing in it that values might miss. All others are cut out, and compared one by one."""
    return is_linear(node) or _is_pool(model, node)


def _is_pool(model: Model, node: gs.Node) -> bool:
    """Whether a node takes maxima whose places are not used: those jump."""
    return operator(node).linear is Linear.MAXIMUM and not model.uses_more(node)


def _pools(train: gs.Tensor) -> tuple[list[gs.Node], gs.Node | None]:
    """The MaxPools that a train comes through, the first to be computed first, and the node before them."""
    pools: list[gs.Node] = []
    node = producer(train)
    while is_operator(node, "MaxPool"):
        pools.insert(0, node)
        node = producer(node.inputs[0])
    return pools, node
