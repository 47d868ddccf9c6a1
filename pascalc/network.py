"""A network as layers and edges: the one walk over a graph that planning, reports, inspection and exporters read.

Where several layers feed one neuron (the two branches of a residual block), the neuron's operations belong to the layer
of the largest fan-in, the later one of equals; the others (the 1x1 shortcut) have no neurons of their own. A neuron
whose layer has neurons already (two that share a convolution) stands alone, without multiply-accumulates, but reads and
sums what its layer does. So does a neuron that no layer feeds (it reads the image, or a sum of spikes), with a fan-in
of 1. Additions that join branches are counted neither in the source network nor here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from pascalc import ops
from pascalc.energy import Layer
from pascalc.errors import CompileError
from pascalc.graph import Model, is_constant, is_ours, producer, sizes_hint
from pascalc.linear import fan_in, is_layer, macs, product_macs
from pascalc.neurons import Neuron, is_neuron, neurons
from pascalc.ops import NeuronModel, Pasc
from pascalc.timing import Analog, Const, Declined, Spikes, TimeType, Train, decide, time_types

Types = Mapping[int, TimeType]


@dataclass(frozen=True)
class Reads:
    """What a layer reads.

    Attributes:
        kind: "spikes", each entry of every step nothing or one spike; "currents", a train of other values, as sums,
            averages and products of spikes are; or "analog".
        steps: the length of the train; 1 if analog.
        folded: whether these are spikes of height 1, so that nothing is scaled.
    """

    kind: str
    steps: int
    folded: bool

    @classmethod
    def of(cls, what: TimeType) -> Reads:
        """What the time type says."""
        if isinstance(what, Spikes):
            return cls("spikes", what.steps, what.height == 1.0)
        return cls("currents", what.steps, False) if isinstance(what, Train) else cls("analog", 1, False)


@dataclass(frozen=True)
class LayerNode:
    """One linear layer and the neurons that it feeds.

    Attributes:
        name: the layer's node name, without its operator; the neuron's where it stands alone.
        node: the layer; None for a neuron that stands alone.
        neuron: what the layer feeds; None for a classifier, or a branch that another layer speaks for.
        neurons: how many neurons that are, for one sample; 0 without, None where that is not known.
        source: the tensor that the layer reads; that of the neuron where no layer feeds it.
        reads: what that tensor is.
        sources: labels of the neurons whose trains reach it.
        fan_in: inputs of one output.
        macs: multiply-accumulates in the source network, for one sample; None where shapes are not known.
        levels: L of the neurons fed, whichever layer speaks for them; 1 where no neuron is fed.
        most: the count that stands for theta in them, L or another number of some neuron models; 1 likewise.
        model: their neuron model; PASC where no neuron is fed, and for the activations of a source.
        steps_in: steps of the current that these neurons receive; those of the layer itself where no neuron is fed.
    """

    name: str
    node: gs.Node | None
    neuron: Neuron | None
    neurons: int | None
    source: gs.Tensor
    reads: Reads
    sources: tuple[str, ...]
    fan_in: int
    macs: int | None
    levels: int
    most: int
    model: type[NeuronModel]
    steps_in: int

    @property
    def spiking(self) -> bool:
        """Whether the layer reads a train rather than an analog tensor."""
        return self.reads.kind != "analog"

    def energy_layer(self, spike_rate: float | None) -> Layer:
        """What the estimators of energy want to know, at this mean number of spikes an input. Sizes must be known."""
        assert self.macs is not None  # `Layout.check_sizes`
        assert self.neurons is not None
        return Layer(
            name=self.name,
            fan_in=self.fan_in,
            macs=self.macs,
            neurons=self.neurons,
            levels=self.most,
            steps_in=self.steps_in,
            spike_rate=spike_rate if self.spiking else None,
            folded=self.reads.folded,
            graded=self.reads.kind == "currents",
            steps_read=self.reads.steps,
            neuron=self.model,
        )


@dataclass(frozen=True)
class Feed:
    """What reaches a layer or a neuron without passing another one.

    Attributes:
        layers: linear layers.
        neurons: neurons.
        inputs: inputs of the network.
        through: the operators on the way: pools, joins, shapes, and what changes the meaning over time.
    """

    layers: tuple[gs.Node, ...]
    neurons: tuple[gs.Node, ...]
    inputs: tuple[gs.Tensor, ...]
    through: tuple[gs.Node, ...]

    @classmethod
    def of(cls, tensor: gs.Tensor) -> Feed:
        """What reaches the tensor."""
        nodes, inputs = _behind(tensor, lambda node: _is_product(node) or is_neuron(node))
        layers = tuple(node for node in nodes if _is_product(node))
        spiking = tuple(node for node in nodes if is_neuron(node))
        return cls(layers, spiking, inputs, tuple(n for n in nodes if not _is_product(n) and not is_neuron(n)))


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of the source network for one sample, each layer once.

    Attributes:
        total: of all linear layers, and products of computed tensors.
        on_spikes: those whose input is a train of spikes; not of sums or averages of spikes, nor analog.
    """

    total: int
    on_spikes: int

    @classmethod
    def of(cls, counts: list[tuple[int, str]]) -> Macs:
        """From the count of each layer and what it reads (`Reads.kind`)."""
        return cls(sum(n for n, _ in counts), sum(n for n, kind in counts if kind == "spikes"))

    @property
    def share(self) -> float | None:
        """``on_spikes`` of ``total``; None without any."""
        return self.on_spikes / self.total if self.total else None


@dataclass(frozen=True)
class Layout:
    """A network as layers and edges.

    Attributes:
        layers: the linear layers, and the neurons that stand alone, in the order of the graph.
        neurons: all neurons, in the order of the graph.
        feeds: the edges: what reaches each linear layer and each neuron, by the identity of its node.
        types: what every tensor means over time, by identity; what is missing is constant.
    """

    model: Model
    layers: tuple[LayerNode, ...]
    neurons: tuple[Neuron, ...]
    feeds: Mapping[int, Feed]
    types: Types

    def reads(self, tensor: gs.Tensor) -> Reads:
        """What is read from a tensor."""
        return Reads.of(self.types.get(id(tensor), Const()))

    @property
    def macs(self) -> Macs | None:
        """The multiply-accumulates of all layers; None where shapes are not known."""
        counts = [(layer.macs, layer.reads.kind) for layer in self.layers]
        known = [(count, kind) for count, kind in counts if count is not None]
        return Macs.of(known) if len(known) == len(counts) else None

    def fan_in(self, neuron: Neuron) -> int | None:
        """The fan-in of the layer that feeds a neuron, step by step; None where it is not one layer alone."""
        feed = self.feeds[id(neuron.node)]
        single = all(node.domain != ops.DOMAIN and len(_computed(node)) == 1 for node in feed.through)
        return fan_in(feed.layers[0]) if single and feed.layers and is_layer(feed.layers[0]) else None

    def check_sizes(self) -> None:
        """Refuse a network whose operations cannot be counted.

        Raises:
            CompileError: the number of neurons or of multiply-accumulates of a layer is not known.
        """
        for layer in self.layers:
            if layer.macs is None or layer.neurons is None:
                what = "the shapes of this layer are" if layer.macs is None else "the number of its neurons is"
                node = layer.neuron if layer.macs is not None else layer.node
                name = None if node is None else node.name
                raise CompileError(
                    f"{what} not known", file=self.model.file, node=name, hint=sizes_hint(self.model, layer.source)
                )


def layout(model: Model) -> Layout:
    """The layers and edges of a network.

    Args:
        model: an unrolled network, or one with explicit QCFS activations; with shapes inferred, where they are known.

    Raises:
        CompileError: a neuron lacks an attribute, or its threshold is computed.
    """
    types = time_types(model)
    position = {id(node): index for index, node in enumerate(model.graph.nodes)}
    found = {id(neuron.node): neuron for neuron in neurons(model)}
    feeds: dict[int, Feed] = {}
    fed: dict[int, Neuron] = {}
    main: dict[int, Neuron] = {}
    alone: dict[int, gs.Node | None] = {}
    for key, neuron in found.items():
        feeds[key] = Feed.of(neuron.node.inputs[0])
        feeders = feeds[key].layers
        for layer in feeders:
            fed.setdefault(id(layer), neuron)
        largest = max(feeders, key=lambda layer: (_fan_in(layer), position[id(layer)]), default=None)
        if largest is None or id(largest) in main:
            alone[key] = largest
        else:
            main[id(largest)] = neuron
    rows = []
    for node in model.graph.nodes:
        if _is_product(node):
            rows.append(_row(model, node, main.get(id(node)), fed.get(id(node)), types))
            feeds[id(node)] = Feed.of(rows[-1].source)
        elif id(node) in alone:
            rows.append(_alone(model, found[id(node)], alone[id(node)], types))
    return Layout(model, tuple(rows), tuple(found.values()), feeds, types)


def threshold_range(threshold: NDArray[Any]) -> float | list[float]:
    """A threshold as one number, or as the smallest and the largest over the channels."""
    low, high = float(np.min(threshold)), float(np.max(threshold))
    return low if low == high else [low, high]


def _is_product(node: gs.Node) -> bool:
    return is_layer(node) or product_macs(node) != 0


def _data(model: Model, node: gs.Node, types: Types) -> gs.Tensor:
    """What the operator reads: of its inputs the first that stays a train, else the first that is computed."""
    given = tuple(types.get(id(t), Const()) for t in node.inputs)
    with suppress(Declined):
        given = decide(model, node, given).inputs
    computed = [(t, kind) for t, kind in zip(node.inputs, given, strict=True) if not is_constant(t)]
    return next((t for t, kind in computed if isinstance(kind, Train)), computed[0][0])


def _reads(model: Model, node: gs.Node, types: Types) -> Reads:
    """What the operator reads; where it gives no train, it is computed on the sum over time."""
    works = isinstance(types.get(id(node.outputs[0])), Train)
    return Reads.of(types.get(id(_data(model, node, types)), Const()) if works else Analog())


def _fan_in(node: gs.Node) -> int:
    """Products that one output sums; of a MatMul without a weight of its own, 1 where that is not known."""
    if is_layer(node):
        return fan_in(node)
    inner = (node.inputs[0].shape or [None])[-1]
    return inner if isinstance(inner, int) else 1


def _computed(node: gs.Node) -> list[gs.Tensor]:
    """The inputs of a node that are no constants."""
    return [t for t in node.inputs if not is_constant(t) and not t.is_empty()]


def _behind(tensor: gs.Tensor, ends: Callable[[gs.Node], bool]) -> tuple[list[gs.Node], tuple[gs.Tensor, ...]]:
    """The nodes on the ways back from a tensor, up to those at which a way ends, and the network's inputs there."""
    nodes, inputs = [], []
    seen: set[int] = set()
    stack = [tensor]
    while stack:
        tensor = stack.pop()
        node = producer(tensor)
        if id(tensor if node is None else node) in seen:
            continue
        seen.add(id(tensor if node is None else node))
        if node is None:
            inputs.append(tensor)
            continue
        nodes.append(node)
        if not ends(node):
            stack += _computed(node)
    return nodes, tuple(inputs)


def _sources(tensor: gs.Tensor) -> tuple[str, ...]:
    """Labels of the neurons whose trains reach the tensor, with no sum over time in between."""
    retimed = (ops.ACCUMULATE.name, ops.SPREAD.name, ops.HOLD.name)
    nodes, _ = _behind(tensor, lambda node: is_neuron(node) or is_ours(node, *retimed))
    return tuple(dict.fromkeys(node.attrs["label"] for node in nodes if is_neuron(node)))


def _row(model: Model, node: gs.Node, own: Neuron | None, fed: Neuron | None, types: Types) -> LayerNode:
    source, reads = _data(model, node, types), _reads(model, node, types)
    return LayerNode(
        name=_name(node),
        node=node,
        neuron=own,
        neurons=0 if own is None else _size(own),
        source=source,
        reads=reads,
        sources=_sources(source) if reads.kind != "analog" else (),
        fan_in=_fan_in(node),
        macs=macs(node) if is_layer(node) else product_macs(node),
        levels=1 if fed is None else fed.levels,
        most=1 if fed is None else fed.most,
        model=(None if fed is None else fed.model) or Pasc,
        steps_in=reads.steps if fed is None else fed.steps_in,
    )


def _alone(model: Model, neuron: Neuron, layer: gs.Node | None, types: Types) -> LayerNode:
    source = neuron.node.inputs[0] if layer is None else _data(model, layer, types)
    reads = Reads.of(types.get(id(source), Const())) if layer is None else _reads(model, layer, types)
    return LayerNode(
        name=neuron.name,
        node=None,
        neuron=neuron,
        neurons=_size(neuron),
        source=source,
        reads=reads,
        sources=_sources(source) if reads.kind != "analog" else (),
        fan_in=1 if layer is None else _fan_in(layer),
        macs=0,
        levels=neuron.levels,
        most=neuron.most,
        model=neuron.model or Pasc,
        steps_in=neuron.steps_in,
    )


def _size(neuron: Neuron) -> int | None:
    shape = neuron.node.outputs[0].shape
    if not shape or not all(isinstance(size, int) for size in shape[1:]):
        return None
    return int(prod(shape[1:]))


def _name(node: gs.Node) -> str:
    """The node's scope; its name, or its result's, where it has none: ``/block1/conv/Conv`` is block1/conv."""
    name = (node.name or node.outputs[0].name).strip("/")
    scope, _, last = name.rpartition("/")
    return str(scope if scope and last.partition("_")[0] == node.op else name)
