"""verify: is this spiking network the source network? Answered from the two files and data alone.

"Lossless" is a statement about spike counts: every neuron's count is the source's QCFS level. In floating point a sum
taken in another order can cross a half point, and one crossing changes what every later layer sees. So every layer is
checked twice:

- *root mismatches*: the layer gets, as spike trains, exactly the levels that the source network has; a count that
  differs then can only come from this layer. Its margin is how far the source's z*L/theta + phi lies from the values
  that give the spiking network's count; it must be within the rounding bound, a few units in the last place of the sum
  of absolute products (pascalc/rounding.py).
- *count mismatches*: the spiking network runs by itself, and roots are included with what follows from them.

Counts alone would let a small error pass that crosses no half point on this data. So, with the same trains fed in, the
current of every neuron, the inputs of what is computed and not spiking, and the network's outputs must be the source's
within the rounding bound too; and every train must be all spikes first.

What is wrong in the spiking network, shapes that do not fit included, makes it "not equivalent" and never an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from pascalc import ops, pipeline
from pascalc.data import Data, load_data
from pascalc.errors import CompileError
from pascalc.graph import Array, Model, is_constant, is_operator, is_ours, producer, sweep
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import Neuron, add_sum, before_accumulate, neurons, summed_steps
from pascalc.passes import ANALYSIS
from pascalc.rounding import absolute_products, allowance, cut_off, declare, is_float, is_sum_of_products
from pascalc.runtime import InferenceSession
from pascalc.verification import MAX_ROOTS_SHOWN, ComputedCheck, LayerCheck, Root, Verification

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Layer:
    """A QCFS of the source network and the spiking neuron that stands for it.

    ``before`` and ``after`` are tensors of the source (its current and its activation), ``train`` is the compiled
    network's tensor of the same activation: a spike train, or spike counts. ``pools`` are the MaxPools that moved
    behind the neuron, the first to be computed first.
    """

    before: str
    after: str
    train: str
    pools: list[gs.Node]
    source: Neuron
    compiled: Neuron
    steps: int


@dataclass(frozen=True)
class _Computed:
    """An operator that is no sum of products: of each input the name in the source, that in the compiled network and
    the time steps that it is the sum of; and its outputs' names, which are the same in both."""

    inputs: list[tuple[str, str, int]]
    outputs: list[str]


def verify(
    source: str | Path,
    compiled: str | Path,
    data: str | Path,
    *,
    limit: int | None = None,
    batch: int = 16,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check on data that a compiled network is its source network.

    Args:
        source: the ONNX file that was compiled.
        compiled: the ONNX file that came out.
        data: an ``.npz`` of inputs.
        limit: only the first so many samples.
        batch: samples a run.
        threads: threads of onnxruntime; by default one for each core.
        progress: called with (samples done, samples in all).

    Raises:
        CompileError: a file cannot be read, the data does not fit, or the files are not of the same network at all.
    """
    known = load(source)
    samples = load_data(data, known, limit)
    return _Verifier(Path(source), Path(compiled), known, samples, threads).run(batch, progress)


class _Verifier:
    def __init__(self, source: Path, compiled: Path, known: Model, data: Data, threads: int | None) -> None:
        self.source, self.compiled, self.data, self.threads = source, compiled, data, threads
        self.result = Verification(samples=len(data))
        emitted = load(compiled)
        pipeline.run(known, ANALYSIS)
        self.result.problems += [n.reason for n in emitted.notes]
        self.layers = self._pair(known, emitted)
        self.computed = self._pair_computed(known, emitted)
        own = emitted.graph.tensors()
        floats = [v.name for v in known.interface_outputs if v.type.tensor_type.elem_type in _FLOATS]
        self.floats = {name: summed_steps(own[name]) if name in own else 1 for name in floats}
        self.bounds = self._bounds(known)

    def run(self, batch: int, progress: Progress | None) -> Verification:
        theirs, unoptimised = self._source_sessions()
        mine = InferenceSession(self.compiled, threads=self.threads)
        outputs = [o.name for o in theirs.outputs]
        if [o.name for o in mine.outputs] != outputs or [i.name for i in mine.inputs] != list(self.data.inputs):
            raise CompileError("its inputs and outputs are not those of the source", file=self.compiled)
        reference = self._session(self._reference())
        forced, free = self._session(self._traced([g for g, _ in self._groups()])), self._session(self._free())
        for feeds, part in self.data.batches(batch):
            count = part.stop - part.start
            expected, again = _run(theirs, feeds), unoptimised.run(outputs, feeds)
            given = self._attempt(mine, feeds, self.result.problems)
            self._compare_outputs(expected, given, dict(zip(outputs, again, strict=True)), count)
            values = _run(reference, feeds)
            levels = {x.after: self._levels(x, check, values[x.after]) for x, check in self._checks()}
            computed = {name: values[name] for x in self.computed for name in x.outputs}
            fed = {f"fed:{x.train}": _encode(x.compiled, levels[x.after]) for x in self.layers}
            fired = self._fire(forced, {**feeds, **fed, **{f"fed:{n}": v for n, v in computed.items()}})
            absolute = {f"fed:{x.after}": values[x.after] for x in self.layers}
            totals = _run(self.bounds, {**feeds, **absolute, **{f"fed:{n}": np.abs(v) for n, v in computed.items()}})
            alone = self._attempt(free, feeds, self.result.problems)
            for layer, check in self._checks():
                z, total = values[layer.before], totals[f"abs:{layer.before}"]
                whole = _Batch(levels[layer.after], z, np.broadcast_to(total, z.shape), part.start, count)
                self._check_layer(layer, check, whole, fired, alone)
            self._check_rest(values, fired, totals, count)
            if progress is not None:
                progress(part.stop, len(self.data))
        return self.result

    def _checks(self) -> list[tuple[_Layer, LayerCheck]]:
        return list(zip(self.layers, self.result.layers, strict=True))

    # --- which belongs to which -----------------------------------------------------------------------------------

    def _pair(self, known: Model, emitted: Model) -> list[_Layer]:
        stand_ins: dict[str, Neuron] = {}
        for neuron in neurons(emitted):
            if stand_ins.setdefault(neuron.name, neuron) is not neuron:
                self.result.problems.append(f"two neurons are labelled '{neuron.name}'")
        tensors, recorded = emitted.graph.tensors(), _recorded_levels(emitted)
        layers = []
        for neuron in neurons(known):
            stand_in, after = stand_ins.pop(neuron.name, None), neuron.node.outputs[0].name
            if stand_in is None or after not in tensors:
                self.result.problems.append(f"the neuron '{neuron.name}' of the source is not in the compiled network")
                continue
            train = before_accumulate(tensors[after])
            pools, behind = _pools(train)
            steps = max(stand_in.steps_in, summed_steps(stand_in.node.inputs[0]))
            layers.append(_Layer(neuron.node.inputs[0].name, after, train.name, pools, neuron, stand_in, steps))
            check = LayerCheck(neuron.name, stand_in.levels, stand_in.steps_in, stand_in.steps_out)
            if behind is not stand_in.node:
                check.problems.append("its activation is not computed by the neuron with its label")
            check.problems += _mismatches(neuron, stand_in)
            if stand_in.levels != neuron.levels and recorded.get(neuron.name) != stand_in.levels:
                check.problems.append(f"it has {stand_in.levels} levels, the source's has {neuron.levels}")
            elif stand_in.levels != neuron.levels:
                self.result.requantised[neuron.name] = (neuron.levels, stand_in.levels)
            self.result.layers.append(check)
        self.result.problems += [f"the neuron '{name}' is not in the source network" for name in stand_ins]
        if not layers:
            raise CompileError("it has no neuron of the source network", file=self.compiled)
        return layers

    def _pair_computed(self, known: Model, emitted: Model) -> list[_Computed]:
        tensors, cut = emitted.graph.tensors(), {x.after for x in self.layers}
        found = []
        for node in known.graph.nodes:
            name = node.outputs[0].name
            twin = producer(tensors[name]) if name in tensors else None
            if node.domain == ops.DOMAIN or is_sum_of_products(node) or twin is None or twin.domain == ops.DOMAIN:
                continue
            if not any(is_float(t) and not is_constant(t) for t in node.inputs) or _has_subgraph(node):
                continue
            check = ComputedCheck(node.name or name, node.op)
            if not _same_operator(node, twin):
                check.problems.append(f"the compiled network has another {twin.op} in place of the source's {node.op}")
            inputs = [(a, b) for a, b in zip(node.inputs, twin.inputs, strict=False) if is_float(a)]
            computed = [(a, b) for a, b in inputs if producer(a) and producer(b) and a.name not in cut]
            # what is rounded to integers must not differ behind them either; shapes do not round
            kept = [t for t in node.outputs if is_float(t) or not is_operator(node, "Shape", "Size")]
            outputs = [t.name for t in kept if t.name in tensors]
            found.append(_Computed([(a.name, b.name, summed_steps(b)) for a, b in computed], outputs))
            cut.update(outputs)
            self.result.computed.append(check)
        return found

    def _session(self, model: Model) -> InferenceSession:
        return InferenceSession(to_bytes(model), threads=self.threads)

    # --- the networks that are run --------------------------------------------------------------------------------

    def _source_sessions(self) -> tuple[InferenceSession, InferenceSession]:
        """The source as it is and unoptimised; at the compiled network's levels where those were changed. Activations
        that are explicit operators get their bodies, and QONNX quantisers are written out."""
        model = load(self.source)
        explicit = any(is_ours(node, *ops.OPERATORS) for node in model.graph.nodes)
        if self.result.requantised:
            model = self._at_compiled_levels()
        source = to_bytes(model) if explicit or model.rewritten or self.result.requantised else self.source
        theirs, unoptimised = (InferenceSession(source, threads=self.threads, optimised=o) for o in (True, False))
        return theirs, unoptimised

    def _at_compiled_levels(self) -> Model:
        """The source network with its activations as operators, at the compiled network's levels."""
        model = load(self.source)
        pipeline.run(model, ANALYSIS)
        for neuron in neurons(model):
            neuron.node.attrs["levels"] = self.result.requantised.get(neuron.name, (0, neuron.levels))[1]
        return model

    def _reference(self) -> Model:
        """The source network with all that is compared as outputs; at the compiled network's levels where those were
        changed."""
        names = [n for x in self.layers for n in (x.before, x.after)]
        names += [n for x in self.computed for n in (*(a for a, _, _ in x.inputs), *x.outputs)]
        model = load(self.source)
        pipeline.run(model, ANALYSIS[:1])  # the types of all tensors
        if self.result.requantised or not set(names) <= set(model.graph.tensors()):
            model = self._at_compiled_levels()
        present = {v.name for v in (*model.interface_outputs, *model.interface_inputs)}
        tensors = model.graph.tensors()
        model.interface_outputs += [declare(tensors[n]) for n in dict.fromkeys(names) if n not in present]
        return model

    def _bounds(self, known: Model) -> InferenceSession:
        """The sums of absolute products of all that is compared; uses the source network up."""
        cuts = [x.after for x in self.layers] + [name for x in self.computed for name in x.outputs]
        wanted = [x.before for x in self.layers] + [a for x in self.computed for a, _, _ in x.inputs] + [*self.floats]
        return self._session(absolute_products(known, cuts, list(dict.fromkeys(wanted))))

    def _free(self) -> Model:
        """The compiled network by itself, with the sum of every train as an output."""
        model = load(self.compiled)
        tensors = model.graph.tensors()
        for layer in self.layers:
            train = tensors[layer.train]
            train.dtype = train.dtype or layer.compiled.threshold.dtype
            total = add_sum(model, train, layer.compiled.steps_out, f"sum:{layer.train}")
            model.interface_outputs.append(declare(total))
        return model

    def _traced(self, groups: Sequence[_Group]) -> Model:
        """The compiled network, where what is behind a neuron or a computed operator sees the source's.

        Its outputs are, for every layer, the sum of its train, the sum of its current, and how many spikes are out of
        place; the inputs of computed operators; and for None the network's own.
        """
        model = load(self.compiled)
        tensors = model.graph.tensors()
        own = [tensors[v.name] for v in model.interface_outputs]
        for name in dict.fromkeys([*(x.train for x in self.layers), *(n for x in self.computed for n in x.outputs)]):
            cut_off(model, tensors[name])
        wanted: list[gs.Tensor] = []
        for group in groups:
            if group is None:
                wanted += own
            elif isinstance(group, _Computed):
                wanted += [tensors[b] for _, b, _ in group.inputs]
            else:
                wanted += self._layer_outputs(model, group, tensors)
        model.graph.outputs[:] = list({t.name: t for t in wanted}.values())
        model.interface_outputs[:] = [declare(t) for t in model.graph.outputs]
        sweep(model)
        return model

    def _layer_outputs(self, model: Model, layer: _Layer, tensors: dict[str, gs.Tensor]) -> list[gs.Tensor]:
        neuron = layer.compiled
        train, fired = tensors[layer.train], producer(tensors[neuron.node.outputs[0].name])
        current = tensors[neuron.node.inputs[0].name] if fired is None else fired.inputs[0]
        for tensor in (train, current):
            tensor.dtype = tensor.dtype or neuron.threshold.dtype
        total = add_sum(model, train, neuron.steps_out, f"sum:{layer.train}")
        current = add_sum(model, current, neuron.steps_in, f"current:{layer.train}" + "/unpooled" * bool(layer.pools))
        for index, pool in enumerate(layer.pools, 1):  # they moved behind the neuron: the source's current is pooled
            name = f"current:{layer.train}" + f"/{index}" * (index < len(layer.pools))
            current = _add(model, "MaxPool", [current], name, pool.attrs)
        if not neuron.spiking:
            return [total, current]
        # A train of all spikes first is what a neuron of its own threshold makes of it.
        attrs = {**neuron.node.attrs, "steps_in": neuron.steps_out, "phi": 0.5}
        threshold = neuron.node.inputs[1].name
        inputs = [train, tensors[threshold]]
        canonical = _add(model, neuron.node.op, inputs, f"canonical:{layer.train}", attrs, ops.DOMAIN)
        distance = _add(model, "Sub", [train, canonical], f"distance:{layer.train}")
        for step in ("Abs", "Sign"):
            distance = _add(model, step, [distance], f"{step}:{layer.train}")
        return [total, current, _add(model, "ReduceSum", [distance], f"off:{layer.train}", {"keepdims": 0})]

    # --- running and comparing ------------------------------------------------------------------------------------

    def _attempt(self, session: InferenceSession, feeds: Mapping[str, Array], problems: list[str]) -> dict[str, Array]:
        """All outputs by name; none, and a problem, where the network cannot be run."""
        try:
            return _run(session, feeds)
        except CompileError as error:
            _once(problems, f"it cannot be run: {error.message}")
            return {}

    def _fire(self, forced: InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The forced network's outputs; part by part where it cannot be run as a whole, to find where."""
        fired = self._attempt(forced, feeds, [])
        if fired:
            return fired
        for group, problems in self._groups():
            try:
                session = self._session(self._traced([group]))
            except CompileError as error:
                _once(problems, f"it cannot be run: {error.message}")
            else:
                fired |= self._attempt(session, feeds, problems)
        return fired

    def _groups(self) -> list[tuple[_Group, list[str]]]:
        """The parts of the network that are checked each by itself, and where their problems go."""
        groups: list[tuple[_Group, list[str]]] = [(layer, check.problems) for layer, check in self._checks()]
        groups += [(x, check.problems) for x, check in zip(self.computed, self.result.computed, strict=True)]
        return [*groups, (None, self.result.output_problems)]

    def _levels(self, layer: _Layer, check: LayerCheck, activation: Array) -> Array:
        """The source's levels; its activations must be multiples of theta/L."""
        levels = activation / (layer.source.threshold / check.levels).astype(activation.dtype)
        nearest = np.rint(levels)
        if not np.all(np.abs(levels - nearest) <= 1e-3):
            if np.isnan(activation).any():
                raise CompileError(
                    "the source network computes NaN here on this data, so that no spike count is right or wrong",
                    file=self.source,
                    node=check.name,
                    hint="Give data in the range that the network was trained on.",
                )
            _once(check.problems, "its activations in the source are not multiples of theta/L")
        return np.asarray(np.nan_to_num(nearest, copy=False, posinf=0, neginf=0), np.int16)

    def _check_layer(
        self, layer: _Layer, check: LayerCheck, batch: _Batch, fired: dict[str, Array], alone: dict[str, Array]
    ) -> None:
        expected, count = batch.levels[: batch.count], batch.count
        check.neurons += expected.size
        free = alone.get(f"sum:{layer.train}")
        if free is not None and free.shape == batch.levels.shape:
            counts = _counts(layer.compiled, free[:count])[0]
        else:
            counts = np.full_like(expected, -1)
        check.count_mismatches += int(np.count_nonzero(counts != expected))
        if f"sum:{layer.train}" not in fired:
            return
        total, current = fired[f"sum:{layer.train}"], fired[f"current:{layer.train}"]
        if total.shape != batch.levels.shape or current.shape != batch.levels.shape:
            found = [list(x.shape) for x in (total, current)]
            _once(check.problems, f"its spikes and currents have the shapes {found}, not {list(batch.levels.shape)}")
            return
        counts, strange = _counts(layer.compiled, total[:count])
        off = float(fired.get(f"off:{layer.train}", 0))
        check.not_binary += max(strange, int(off) if np.isfinite(off) else total.size)
        self._check_current(layer, check, batch, current[:count])
        if not np.array_equal(counts, expected):
            self._add_roots(layer, check, batch, counts)

    def _check_current(self, layer: _Layer, check: LayerCheck, batch: _Batch, current: Array) -> None:
        """Both currents in levels, beside the rounding bound. In the currents' own precision: the half ulp that the
        comparison adds is small beside the bound, of four and more."""
        z, kind = batch.z[: batch.count], batch.z.dtype.type
        gain = (check.levels / layer.source.threshold).astype(kind)
        with np.errstate(over="ignore", invalid="ignore"):
            u = z * gain
            given = current * (check.levels / layer.compiled.threshold).astype(kind)
            ratio = np.abs(given - u) / self._bound(layer, check, batch, u)
        excess = float(np.max(ratio, initial=0))
        if not np.isfinite(excess):
            finite = np.isfinite(given) & np.isfinite(u)
            with np.errstate(over="ignore"):
                # where the absolute products overflow, the order of the sum decides whether the current does
                decided = ~finite & ~np.isposinf(batch.total[: batch.count] * gain)
            _once(check.problems, _overflow(u[decided], given[decided], "its current"))
            excess = float(np.max(ratio, initial=0, where=finite))
        check.current_excess = max(check.current_excess, excess)

    @staticmethod
    def _bound(layer: _Layer, check: LayerCheck, batch: _Batch, u: Array, where: Any = ...) -> Array:
        """The rounding bound of u, in levels."""
        gain = np.broadcast_to((check.levels / layer.source.threshold).astype(u.dtype), batch.z[: batch.count].shape)
        ulp = np.finfo(batch.z.dtype).eps
        total = batch.total[: batch.count][where] * gain[where] + 2 * np.maximum(np.abs(u), 1)
        return np.asarray(total * u.dtype.type(allowance(layer.steps) * ulp))

    def _add_roots(self, layer: _Layer, check: LayerCheck, batch: _Batch, counts: Array) -> None:
        """Root mismatches of one layer in one batch, each with its margin and bound in levels."""
        expected = batch.levels[: batch.count]
        where = np.nonzero(counts != expected)
        given = counts[where]
        gain = np.broadcast_to(check.levels / layer.source.threshold.astype(np.float64), expected.shape)[where]
        u = batch.z[: batch.count][where] * gain + layer.source.phi
        bound = self._bound(layer, check, batch, u, where)
        # how far u lies from where the spiking network's count begins: from below, or from above
        margin = np.abs(np.where(given > expected[where], given - u, u - (given + 1)))
        check.root_mismatches += len(margin)
        check.roots_beyond_bound += int(np.count_nonzero(~(margin <= bound)))
        ulp = float(np.finfo(batch.z.dtype).eps)
        between = np.abs(u - np.maximum(given, expected[where])) <= 2 * ulp * np.maximum(np.abs(u), 1)
        check.half_points += int(np.count_nonzero(between & (np.abs(given - expected[where]) == 1)))
        check.max_root_margin = max(check.max_root_margin, float(np.nan_to_num(margin).max()))
        worst = np.argsort(bound - margin)[: max(0, MAX_ROOTS_SHOWN - len(self.result.roots))]
        for k in worst:
            index = [int(axis[k]) for axis in where]
            self.result.roots.append(
                Root(
                    layer=check.name,
                    sample=batch.start + index[0],
                    index=index[1:],
                    source_count=int(expected[tuple(index)]),
                    count=int(given[k]),
                    margin=float(margin[k]),
                    bound=float(bound[k]),
                )
            )

    def _check_rest(
        self, values: dict[str, Array], fired: dict[str, Array], totals: dict[str, Array], count: int
    ) -> None:
        """What goes into computed operators, and the outputs that are sums of products."""
        for item, check in zip(self.computed, self.result.computed, strict=True):
            for a, b, steps in item.inputs:
                if b in fired:
                    excess, problem = _excess(values[a], fired[b], totals[f"abs:{a}"], steps, count)
                    check.excess = max(check.excess, excess)
                    _once(check.problems, problem)
        elsewhere = {x.after for x in self.layers} | {name for x in self.computed for name in x.outputs}
        for name, steps in self.floats.items():
            if name in fired and name not in elsewhere:
                excess, problem = _excess(values[name], fired[name], totals[f"abs:{name}"], steps, count)
                self.result.output_excess = max(self.result.output_excess, excess)
                _once(self.result.output_problems, problem and f"'{name}': {problem}")

    def _compare_outputs(
        self, expected: dict[str, Array], given: dict[str, Array], again: dict[str, Array], count: int
    ) -> None:
        """The two networks as they are, each by itself."""
        for name in again:
            a, b = expected[name], given.get(name)
            if b is None or a.shape != b.shape or a.dtype != b.dtype:
                shape = "nothing" if b is None else f"{b.dtype} {list(b.shape)}"
                _once(self.result.output_problems, f"'{name}' is {shape}, not {a.dtype} {list(a.shape)}")
                continue
            if a.dtype.kind == "f":
                a, b = _first(a, count), _first(b, count)
                both = np.isfinite(a) & np.isfinite(b)
                difference = float(np.max(np.abs(a - b), where=both, initial=0))
                self.result.max_abs_output_diff = max(self.result.max_abs_output_diff, difference)
        first = next(iter(again))
        mine = given.get(first)
        if mine is None or mine.shape != expected[first].shape:
            self.result.argmax_mismatches += count
        else:
            self.result.argmax_mismatches += _differing(_first(expected[first], count), _first(mine, count))
        self.result.source_self_mismatches += _differing(_first(expected[first], count), _first(again[first], count))


_Group = _Layer | _Computed | None
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class _Batch:
    """What the source has in one layer: levels, the current z and the sum of its absolute products. The first
    ``count`` samples are to be compared, and the first of them is number ``start``."""

    levels: Array
    z: Array
    total: Array
    start: int
    count: int


def _mismatches(source: Neuron, stand_in: Neuron) -> list[str]:
    """What is wrong with a neuron, whatever the data."""
    found = []
    if np.float32(stand_in.phi) != np.float32(source.phi):
        found.append(f"its membrane starts at {stand_in.phi:g} of a spike, not at {source.phi:g}")
    model = ops.spiking_neuron(stand_in.node.op)
    if model is not None and stand_in.steps_out != model.steps_out(stand_in.levels):
        found.append(f"it has {stand_in.levels} levels, but sends a train of {stand_in.steps_out} steps")
    return found


def _pools(train: gs.Tensor) -> tuple[list[gs.Node], gs.Node | None]:
    """The MaxPools that a train comes through, the first to be computed first, and the node before them."""
    pools: list[gs.Node] = []
    node = producer(train)
    while is_operator(node, "MaxPool"):
        pools.insert(0, node)
        node = producer(node.inputs[0])
    return pools, node


def _recorded_levels(emitted: Model) -> dict[str, Any]:
    """The levels that the compiled file says of itself that it was compiled to."""
    try:
        levels = json.loads(emitted.metadata.get("pascalc.levels", "{}"))
    except ValueError:
        return {}
    return levels if isinstance(levels, dict) else {}


def _has_subgraph(node: gs.Node) -> bool:
    return any(isinstance(v, gs.Graph) for v in node.attrs.values())


def _same_operator(a: gs.Node, b: gs.Node) -> bool:
    """Whether two nodes compute the same from their variable inputs."""
    if (a.op, a.domain or "", len(a.inputs), len(a.outputs)) != (b.op, b.domain or "", len(b.inputs), len(b.outputs)):
        return False
    plain = (int, float, str, bytes, list)
    attrs = [{k: v for k, v in node.attrs.items() if isinstance(v, plain)} for node in (a, b)]
    return attrs[0] == attrs[1] and all(_same_constant(x, y) for x, y in zip(a.inputs, b.inputs, strict=True))


def _same_constant(a: gs.Tensor, b: gs.Tensor) -> bool:
    if is_constant(a) or is_constant(b):
        return (
            is_constant(a)
            and is_constant(b)
            and np.array_equal(a.values, b.values, equal_nan=a.values.dtype.kind == "f")
        )
    return True


def _add(
    model: Model, op: str, inputs: list[gs.Tensor], name: str, attrs: Mapping[str, Any] | None = None, domain: str = ""
) -> gs.Tensor:
    """The output, of the given name, of a new node."""
    out = gs.Variable(model.unique_name(name), inputs[0].dtype, None)
    node = gs.Node(op, model.unique_name(f"{name}/{op}"), attrs=dict(attrs or {}), inputs=inputs, outputs=[out])
    node.domain = domain or None
    model.graph.nodes.append(node)
    return out


def _excess(expected: Array, given: Array, total: Array, steps: int, count: int) -> tuple[float, str]:
    """The largest ratio of a difference to its rounding bound, and a problem or an empty text."""
    if expected.shape != given.shape:
        return 0.0, f"it has the shape {list(given.shape)}, not {list(expected.shape)}"
    a, b = _first(expected, count), _first(given, count)
    finite = np.isfinite(a) & np.isfinite(b)
    problem = _overflow(a[~finite], b[~finite], "it")
    kind = np.finfo(expected.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        products = _first(np.broadcast_to(total, expected.shape), count)
        bound = allowance(steps) * float(kind.eps) * (products + 2 * np.abs(a))
        ratio = np.abs(a - b) / np.maximum(bound, kind.tiny)
    return float(np.max(ratio, where=finite, initial=0)), problem


def _overflow(expected: Array, given: Array, name: str) -> str:
    """A problem, unless the same values are infinite or NaN in the source."""
    same = np.array_equal(expected, given, equal_nan=True)
    return "" if same else f"{name} is infinite or NaN where the source's is not, or another way"


def _first(array: Array, count: int) -> Array:
    """The samples to be compared; all of an output that has none."""
    return array[:count] if array.ndim else array


def _once(problems: list[str], problem: str) -> None:
    if problem and problem not in problems:
        problems.append(problem)


def _encode(neuron: Neuron, counts: Array) -> Array:
    """Spike counts as the neuron's output: a thermometer code over its steps, or the counts themselves."""
    if not neuron.spiking:
        return np.asarray(counts * neuron.unit, neuron.threshold.dtype)
    steps = np.arange(1, neuron.steps_out + 1, dtype=counts.dtype).reshape(-1, *[1] * counts.ndim)
    train = np.multiply(counts >= steps, neuron.unit, dtype=neuron.threshold.dtype)
    return np.asarray(train.reshape(-1, *counts.shape[1:]))


def _counts(neuron: Neuron, total: Array) -> tuple[Array, int]:
    """Spike counts from the sum of a train, and how many sums are not those of whole spikes."""
    spikes = total / neuron.unit.astype(total.dtype)
    counts = np.rint(spikes)
    fine = (np.abs(spikes - counts) <= 1e-3) & (counts >= 0) & (counts <= neuron.levels)
    if fine.all():
        return counts.astype(np.int16), 0
    return np.where(fine, counts, -1).astype(np.int16), int(np.count_nonzero(~fine))


def _differing(a: Array, b: Array) -> int:
    """Samples whose classification differs: the largest entry along axis 1, or the values of an integer output."""
    x, y = (v.argmax(1) if v.ndim > 1 and v.dtype.kind == "f" else v for v in (a, b))
    return int(np.count_nonzero((x != y).reshape(len(x), -1).any(1))) if x.ndim else int(x != y)


def _run(session: InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by name, and the inputs too: a neuron's current may be a network input."""
    names = [o.name for o in session.outputs]
    wanted = {i.name for i in session.inputs}
    given = {name: array for name, array in feeds.items() if name in wanted}
    return given | dict(zip(names, session.run(names, given), strict=True))
