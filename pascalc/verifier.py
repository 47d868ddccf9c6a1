"""verify: is this spiking network the source network? Answered from the two files and data alone.

"Lossless" is a statement about spike counts: every neuron's count is the source's QCFS level. In floating point a sum
taken in another order can cross a half point, and one crossing changes what every later layer sees. So every layer is
checked twice:

- *root mismatches*: the layer gets, as spike trains, exactly the levels that the source network has; a count that
  differs then can only come from this layer. Its margin is how far the source's z*L/theta + phi lies from the values
  that give the spiking network's count; it must be within the rounding bound, a few units in the last place of the sum
  of absolute products (pascalc/rounding.py).
- *count mismatches*: the spiking network runs by itself, and roots are included with what follows from them.

The network's outputs are checked like a layer's currents: fed with the source's levels, they must agree within the
bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pascalc import pipeline
from pascalc.data import Data, load_data
from pascalc.errors import CompileError
from pascalc.graph import Array, Model
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import Neuron, add_sum, before_accumulate, neurons
from pascalc.passes import ANALYSIS
from pascalc.rounding import absolute_products, allowance, cut_off, declare
from pascalc.runtime import InferenceSession

Progress = Callable[[int, int], None]

#: Root mismatches listed one by one; all are counted.
MAX_ROOTS_SHOWN = 100


@dataclass(frozen=True)
class Root:
    """A spike count that differs although all counts that it depends on agree.

    ``margin`` and ``bound`` are in levels: the count differs by rounding alone if margin <= bound.
    """

    layer: str
    sample: int
    index: list[int]
    source_count: int
    count: int
    margin: float
    bound: float


@dataclass
class LayerCheck:
    """One layer of neurons: how many there were over all samples, and how many counts differed."""

    name: str
    levels: int
    steps_in: int
    steps_out: int
    neurons: int = 0
    root_mismatches: int = 0
    count_mismatches: int = 0
    max_root_margin: float = 0.0
    roots_beyond_bound: int = 0
    not_binary: int = 0


@dataclass
class Verification:
    """The answer, and the figures that it rests on.

    Attributes:
        equivalent: no root mismatch lies beyond its rounding bound, the outputs agree within theirs, every train is
            binary and all-spikes-first, and every neuron of the source was found.
        source_self_mismatches: classifications in which the source differs from itself with onnxruntime's graph
            optimisations off: what float rounding alone does.
        output_excess: the largest ratio of an output's difference to its rounding bound, given equal spike counts.
        requantised: layers compiled at other levels than the source's, (source, compiled); the source network is then
            taken at the compiled levels.
        first_difference: the first layer, in the order of the graph, with a root beyond its bound; empty if none.
    """

    samples: int = 0
    argmax_mismatches: int = 0
    source_self_mismatches: int = 0
    max_abs_output_diff: float = 0.0
    output_excess: float = 0.0
    layers: list[LayerCheck] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requantised: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def first_difference(self) -> str:
        bad = [x.name for x in self.layers if x.roots_beyond_bound or x.not_binary]
        return bad[0] if bad else ("the outputs" if self.output_excess > 1 else "")

    @property
    def equivalent(self) -> bool:
        return not self.first_difference and not self.problems

    def to_json(self) -> dict[str, Any]:
        """The verification as plain values."""
        return {"equivalent": self.equivalent, "first_difference": self.first_difference, **asdict(self)}


@dataclass(frozen=True)
class _Layer:
    """A QCFS of the source network and the spiking neuron that stands for it.

    ``before`` and ``after`` are tensors of the source (its current and its activation), ``train`` is the compiled
    network's tensor of the same activation: a spike train, or spike counts.
    """

    before: str
    after: str
    train: str
    source: Neuron
    compiled: Neuron


def verify(
    source: str | Path,
    compiled: str | Path,
    data: str | Path,
    *,
    limit: int | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> Verification:
    """Check on data that a compiled network is its source network.

    Args:
        source: the ONNX file that was compiled.
        compiled: the ONNX file that came out.
        data: an ``.npz`` of inputs.
        limit: only the first so many samples.
        batch: samples a run.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read, the data does not fit, or the files are not of the same network at all.
    """
    samples = load_data(data, load(source), limit)
    return _Verifier(Path(source), Path(compiled), samples).run(batch, progress)


class _Verifier:
    def __init__(self, source: Path, compiled: Path, data: Data) -> None:
        self.source, self.compiled, self.data = source, compiled, data
        self.result = Verification(samples=len(data))
        self.layers = self._pair()
        self.result.layers = [
            LayerCheck(x.source.name, x.compiled.levels, x.compiled.steps_in, x.compiled.steps_out) for x in self.layers
        ]
        self.bounds: InferenceSession | None = None

    def run(self, batch: int, progress: Progress | None) -> Verification:
        mine, theirs = InferenceSession(self.compiled), InferenceSession(self.source)
        outputs = [o.name for o in theirs.outputs]
        if [o.name for o in mine.outputs] != outputs or [i.name for i in mine.inputs] != list(self.data.inputs):
            raise CompileError("its inputs and outputs are not those of the source", file=self.compiled)
        unoptimised = _unoptimised(self.source)
        reference = _session(_with_outputs(self._reference(), [n for x in self.layers for n in (x.before, x.after)]))
        forced, free = _session(self._traced(forced=True)), _session(self._traced(forced=False))
        floats = [o.name for o in theirs.outputs if o.type in ("tensor(float)", "tensor(double)")]
        output_bounds = self._absolute(floats)
        for feeds, part in self.data.batches(batch):
            count = part.stop - part.start
            expected_outputs, again = theirs.run(outputs, feeds), unoptimised.run(outputs, feeds)
            self._compare_outputs(expected_outputs, mine.run(outputs, feeds), again, count)
            values = _run(reference, feeds)
            levels = {x.after: self._levels(x, values[x.after]) for x in self.layers}
            fed = {**feeds, **{f"fed:{x.train}": _encode(x.compiled, levels[x.after]) for x in self.layers}}
            fired, alone = _run(forced, fed), _run(free, feeds)
            fed_source = {**feeds, **{f"fed:{x.after}": values[x.after] for x in self.layers}}
            for layer, check in zip(self.layers, self.result.layers, strict=True):
                expected = levels[layer.after][:count]
                counts, strange = _counts(layer.compiled, fired[f"sum:{layer.train}"][:count])
                check.neurons += expected.size
                check.not_binary += strange
                check.count_mismatches += int(
                    np.count_nonzero(_counts(layer.compiled, alone[f"sum:{layer.train}"][:count])[0] != expected)
                )
                if not np.array_equal(counts, expected):
                    self._add_roots(layer, check, expected, counts, values[layer.before], fed_source, part.start)
            absolute = _run(output_bounds, fed_source)
            for name in floats:
                self._check_output(values[name][:count], fired[name][:count], absolute[f"abs:{name}"])
            if progress is not None:
                progress(part.stop, len(self.data))
        return self.result

    def _pair(self) -> list[_Layer]:
        source, compiled = load(self.source), load(self.compiled)
        pipeline.run(source, ANALYSIS)
        self.result.problems += [n.reason for n in compiled.notes]
        stand_ins = {n.name: n for n in neurons(compiled)}
        tensors = compiled.graph.tensors()
        layers = []
        for neuron in neurons(source):
            stand_in, after = stand_ins.pop(neuron.name, None), neuron.node.outputs[0].name
            if stand_in is None or after not in tensors:
                self.result.problems.append(f"the neuron '{neuron.name}' of the source is not in the compiled network")
                continue
            if stand_in.levels != neuron.levels:
                self.result.requantised[neuron.name] = (neuron.levels, stand_in.levels)
            train = before_accumulate(tensors[after]).name
            layers.append(_Layer(neuron.node.inputs[0].name, after, train, neuron, stand_in))
        self.result.problems += [f"the neuron '{name}' is not in the source network" for name in stand_ins]
        if not layers:
            raise CompileError("it has no neuron of the source network", file=self.compiled)
        return layers

    def _reference(self) -> Model:
        """The source network; at the compiled network's levels where those were changed."""
        model = load(self.source)
        pipeline.run(model, ANALYSIS[:1])  # the types of all tensors
        if not self.result.requantised and {x.after for x in self.layers} <= set(model.graph.tensors()):
            return model
        model = load(self.source)
        pipeline.run(model, ANALYSIS)
        for neuron in neurons(model):
            neuron.node.attrs["levels"] = self.result.requantised.get(neuron.name, (0, neuron.levels))[1]
        return model

    def _traced(self, forced: bool) -> Model:
        """The compiled network with the sum of every train as an output; with ``forced``, the trains that the layers
        behind see are fed in."""
        model = load(self.compiled)
        tensors = model.graph.tensors()
        for layer in self.layers:
            train = tensors[layer.train]
            if forced:
                cut_off(model, train)
            total = add_sum(model, train, layer.compiled.steps_out, f"sum:{layer.train}")
            model.interface_outputs.append(declare(total))
        return model

    def _absolute(self, wanted: list[str]) -> InferenceSession:
        model = load(self.source)
        pipeline.run(model, ANALYSIS)
        return _session(absolute_products(model, [x.after for x in self.layers], wanted))

    def _levels(self, layer: _Layer, activation: Array) -> Array:
        """The source's levels; its activations must be multiples of theta/L."""
        unit = layer.source.threshold.astype(np.float64) / layer.compiled.levels
        levels = np.rint(activation / unit)
        if np.any(np.abs(activation / unit - levels) > 1e-3):
            problem = f"the activations of '{layer.source.name}' in the source are not multiples of theta/L"
            if problem not in self.result.problems:
                self.result.problems.append(problem)
        return levels.astype(np.int32)

    def _compare_outputs(self, expected: list[Array], given: list[Array], again: list[Array], count: int) -> None:
        for a, b in zip(expected, given, strict=True):
            if a.dtype.kind == "f" and a.size:
                difference = float(np.max(np.abs(a[:count] - b[:count])))
                self.result.max_abs_output_diff = max(self.result.max_abs_output_diff, difference)
        self.result.argmax_mismatches += _differing(expected[0][:count], given[0][:count])
        self.result.source_self_mismatches += _differing(expected[0][:count], again[0][:count])

    def _add_roots(
        self,
        layer: _Layer,
        check: LayerCheck,
        expected: Array,
        counts: Array,
        z: Array,
        fed: dict[str, Array],
        start: int,
    ) -> None:
        """Root mismatches of one layer in one batch, each with its margin and bound in levels."""
        if self.bounds is None:
            self.bounds = self._absolute(list(dict.fromkeys(x.before for x in self.layers)))
        where = np.nonzero(counts != expected)
        gain = np.broadcast_to(layer.compiled.levels / layer.source.threshold.astype(np.float64), expected.shape)[where]
        total = _run(self.bounds, fed)[f"abs:{layer.before}"]
        u = z[: len(expected)].astype(np.float64)[where] * gain + layer.source.phi
        given = counts[where]
        # how far u lies from where the spiking network's count begins: from below, or from above
        margin = np.abs(np.where(given > expected[where], given - u, u - (given + 1)))
        ulp = float(np.finfo(z.dtype).eps)
        bound = (
            allowance(layer.compiled.steps_in)
            * ulp
            * (total[: len(expected)][where] * gain + 2 * np.maximum(np.abs(u), 1))
        )
        check.root_mismatches += len(margin)
        check.roots_beyond_bound += int(np.count_nonzero(margin > bound))
        check.max_root_margin = max(check.max_root_margin, float(margin.max()))
        worst = np.argsort(bound - margin)[: max(0, MAX_ROOTS_SHOWN - len(self.result.roots))]
        for k in worst:
            index = [int(axis[k]) for axis in where]
            self.result.roots.append(
                Root(
                    layer=check.name,
                    sample=start + index[0],
                    index=index[1:],
                    source_count=int(expected[tuple(index)]),
                    count=int(given[k]),
                    margin=float(margin[k]),
                    bound=float(bound[k]),
                )
            )

    def _check_output(self, expected: Array, given: Array, absolute: Array) -> None:
        ulp = float(np.finfo(expected.dtype).eps)
        steps = max(x.compiled.steps_out for x in self.layers)
        total = np.broadcast_to(absolute[: len(expected)], expected.shape) + 2 * np.abs(expected)
        excess = np.abs(expected - given) / np.maximum(allowance(steps) * ulp * total, np.finfo(expected.dtype).tiny)
        self.result.output_excess = max(self.result.output_excess, float(excess.max(initial=0)))


def _encode(neuron: Neuron, counts: Array) -> Array:
    """Spike counts as the neuron's output: a thermometer code over its steps, or the counts themselves."""
    if not neuron.spiking:
        return np.asarray(counts * neuron.unit, neuron.threshold.dtype)
    steps = np.arange(1, neuron.steps_out + 1).reshape(-1, *[1] * counts.ndim)
    train = np.where(counts >= steps, neuron.unit, np.zeros_like(neuron.unit))
    return np.ascontiguousarray(train.reshape(-1, *counts.shape[1:]))


def _counts(neuron: Neuron, total: Array) -> tuple[Array, int]:
    """Spike counts from the sum of a train, and how many sums are not those of whole spikes."""
    spikes = total / neuron.unit.astype(np.float64)
    counts = np.rint(spikes)
    strange = (np.abs(spikes - counts) > 1e-3) | (counts < 0) | (counts > neuron.levels)
    return counts.astype(np.int32), int(np.count_nonzero(strange))


def _differing(a: Array, b: Array) -> int:
    """Samples whose classification differs: the largest entry along axis 1, or the values of an integer output."""
    x, y = (v.argmax(1) if v.ndim > 1 and v.dtype.kind == "f" else v for v in (a, b))
    return int(np.count_nonzero((x != y).reshape(len(x), -1).any(1)))


def _with_outputs(model: Model, names: list[str]) -> Model:
    """The model with further tensors as outputs."""
    present = {v.name for v in model.interface_outputs}
    tensors = model.graph.tensors()
    for name in dict.fromkeys(names):
        if name not in present and name not in {v.name for v in model.interface_inputs}:
            model.interface_outputs.append(declare(tensors[name]))
    return model


def _unoptimised(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _session(model: Model) -> InferenceSession:
    return InferenceSession(to_bytes(model))


def _run(session: InferenceSession, feeds: dict[str, Array]) -> dict[str, Array]:
    """All outputs by name, and the inputs too: a neuron's current may be a network input."""
    names = [o.name for o in session.outputs]
    wanted = {i.name for i in session.inputs}
    given = {name: array for name, array in feeds.items() if name in wanted}
    return given | dict(zip(names, session.run(names, given), strict=True))
