"""The linear layers of an unrolled network with the trains they read and the neurons they feed.

Where several layers feed one neuron (the two branches of a residual block), the neuron's operations belong to the layer
of the largest fan-in, the later one of equals; the others (the 1x1 shortcut) have no neurons of their own. A neuron
that no layer is left for (it reads a sum of spikes, or shares its layer with an earlier neuron) stands alone,
without multiply-accumulates. Additions that join branches are counted neither in the source network nor here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from pascalc import ops
from pascalc.energy import Layer
from pascalc.errors import CompileError
from pascalc.graph import Model, is_constant, is_operator, is_ours, producer
from pascalc.linear import fan_in, is_layer, macs
from pascalc.neurons import Neuron, is_neuron, neurons


@dataclass(frozen=True)
class Reads:
    """What a layer reads.

    Attributes:
        kind: "spikes"; "currents", where they were summed or averaged on the way; or "analog".
        steps: the length of the train; 1 if analog.
        folded: whether the spikes have height 1, so that nothing is scaled.
    """

    kind: str
    steps: int
    folded: bool


@dataclass(frozen=True)
class LayerNode:
    """One linear layer and the neurons that it feeds.

    Attributes:
        name: the layer's node name, without its operator; the neuron's where it stands alone.
        node: the layer; None for a neuron that stands alone.
        neuron: what the layer feeds; None for a classifier, or a branch that another layer speaks for.
        neurons: how many neurons that are, for one sample; 0 without.
        source: the tensor that the layer reads; that of the neuron where it stands alone.
        reads: what that tensor is.
        fan_in: inputs of one output.
        macs: multiply-accumulates in the source network, for one sample.
        levels: L of the neurons fed, whichever layer speaks for them; 1 where no neuron is fed.
        steps_in: steps of the current that these neurons receive; those of the layer itself where no neuron is fed.
    """

    name: str
    node: gs.Node | None
    neuron: Neuron | None
    neurons: int
    source: gs.Tensor
    reads: Reads
    fan_in: int
    macs: int
    levels: int
    steps_in: int

    @property
    def spiking(self) -> bool:
        """Whether the layer reads a train rather than an analog tensor."""
        return self.reads.kind != "analog"

    def energy_layer(self, spike_rate: float | None) -> Layer:
        """What the estimators of energy want to know, at this mean number of spikes an input."""
        return Layer(
            name=self.name,
            fan_in=self.fan_in,
            macs=self.macs,
            neurons=self.neurons,
            levels=self.levels,
            steps_in=self.steps_in,
            spike_rate=spike_rate if self.spiking else None,
            folded=self.reads.folded,
        )


def layer_nodes(model: Model) -> list[LayerNode]:
    """The layers of an unrolled network, in the order of the graph.

    Args:
        model: an unrolled network with shapes inferred.

    Raises:
        CompileError: the number of neurons or of multiply-accumulates of a layer is not known.
    """
    position = {id(node): index for index, node in enumerate(model.graph.nodes)}
    found = {id(neuron.node): neuron for neuron in neurons(model)}
    fed: dict[int, Neuron] = {}
    main: dict[int, Neuron] = {}
    alone: list[Neuron] = []
    for neuron in found.values():
        feeders = _feeders(neuron.node.inputs[0])
        for layer in feeders:
            fed.setdefault(id(layer), neuron)
        free = [layer for layer in feeders if id(layer) not in main]
        if free:
            main[id(max(free, key=lambda layer: (fan_in(layer), position[id(layer)])))] = neuron
        else:
            alone.append(neuron)
    rows = []
    for node in model.graph.nodes:
        if is_layer(node):
            rows.append(_row(model, node, main.get(id(node)), fed.get(id(node)), found))
        elif id(node) in found and any(found[id(node)] is neuron for neuron in alone):
            rows.append(_alone(model, found[id(node)], found))
    return rows


def _feeders(tensor: gs.Tensor) -> list[gs.Node]:
    """The linear layers whose results reach the tensor without passing another layer or neuron."""
    found = []
    seen: set[int] = set()
    stack = [tensor]
    while stack:
        node = producer(stack.pop())
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if is_layer(node):
            found.append(node)
        elif not is_neuron(node):
            stack += [t for t in node.inputs if not is_constant(t) and not t.is_empty()]
    return found


#: Operators that hand spikes on as they are.
_KEEP = (
    *("MaxPool", "GlobalMaxPool", "Identity", "Dropout", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"),
    *("Slice", "Split", "Gather", "Pad", "Concat"),
)


def _reads(tensor: gs.Tensor, found: dict[int, Neuron]) -> Reads:
    """What a tensor is, from the neurons that it comes from and the operators in between."""
    kind, steps, folded = "spikes", 0, True
    seen: set[int] = set()
    stack = [tensor]
    while stack:
        node = producer(stack.pop())
        if node is None or id(node) in seen or is_ours(node, ops.ACCUMULATE.name):
            continue
        seen.add(id(node))
        if id(node) in found:
            neuron = found[id(node)]
            steps = max(steps, neuron.steps_out)
            folded = folded and bool((neuron.unit == 1).all())
            continue
        if is_ours(node, ops.SPREAD.name):
            kind, steps, folded = "currents", max(steps, node.attrs["steps"]), False
            continue
        if is_ours(node, ops.ALIGN.name):
            steps = max(steps, node.attrs["steps_out"])
        elif node.op not in _KEEP and not _is_nearest(node):
            kind = "currents"
        stack += [t for t in node.inputs if not is_constant(t) and not t.is_empty()]
    return Reads(kind, steps, folded) if steps else Reads("analog", 1, False)


def _is_nearest(node: gs.Node) -> bool:
    return is_operator(node, "Resize", "Upsample") and node.attrs.get("mode", "nearest") == "nearest"


def _row(model: Model, node: gs.Node, own: Neuron | None, fed: Neuron | None, found: dict[int, Neuron]) -> LayerNode:
    count = macs(node)
    if count is None:
        raise CompileError("the shapes of this layer are not known", file=model.file, node=node.name, hint=_SHAPES)
    reads = _reads(node.inputs[0], found)
    return LayerNode(
        name=_name(node),
        node=node,
        neuron=own,
        neurons=0 if own is None else _size(model, own),
        source=node.inputs[0],
        reads=reads,
        fan_in=fan_in(node),
        macs=count,
        levels=1 if fed is None else fed.levels,
        steps_in=reads.steps if fed is None else fed.steps_in,
    )


def _alone(model: Model, neuron: Neuron, found: dict[int, Neuron]) -> LayerNode:
    source = neuron.node.inputs[0]
    return LayerNode(
        name=neuron.name,
        node=None,
        neuron=neuron,
        neurons=_size(model, neuron),
        source=source,
        reads=_reads(source, found),
        fan_in=neuron.fan_in or 1,
        macs=0,
        levels=neuron.levels,
        steps_in=neuron.steps_in,
    )


_SHAPES = "Export the model with a fixed input size; only the batch may be free."


def _size(model: Model, neuron: Neuron) -> int:
    shape = neuron.node.outputs[0].shape
    if not shape or not all(isinstance(size, int) for size in shape[1:]):
        raise CompileError("the number of its neurons is not known", file=model.file, node=neuron.name, hint=_SHAPES)
    return int(prod(shape[1:]))


def _name(node: gs.Node) -> str:
    """The node's scope; its name, or its result's, where it has none: ``/block1/conv/Conv`` is block1/conv."""
    name = (node.name or node.outputs[0].name).strip("/")
    scope, _, last = name.rpartition("/")
    return str(scope if scope and last.partition("_")[0] == node.op else name)
