"""The networks that verify runs: the two files as they are, and looks into them.

Of the source: the file itself with onnxruntime's optimisations and without; *reference*, with its activations and what
it computes as outputs; *stretches*, which is cut at all of them and fed; and the sums of absolute products of the
stretches, for the bounds. Of the compiled file: itself, in onnxruntime as it comes; *observed*, with everything that is
compared as outputs; and cut like the source, fed with trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from pascalc import ops, pipeline
from pascalc.files import read_bytes
from pascalc.graph import Array, Model, is_ours
from pascalc.modelfile import load, to_bytes
from pascalc.neurons import Neuron
from pascalc.passes import ANALYSIS
from pascalc.passes.annotate_al import AnnotateAl
from pascalc.passes.avoid_fusions import AvoidFusions
from pascalc.probes import Kind, Probed, main_tensors
from pascalc.rounding import AbsoluteProducts
from pascalc.runtime import InferenceSession
from pascalc.verifier.pairing import Pairing

Values = dict[str, Array]


def analysed(path: Path, levels: Mapping[str, int] | None = None) -> Model:
    """The source with its activations as operators; at other levels where they are given."""
    model = load(path)
    pipeline.run(model, ANALYSIS)
    AnnotateAl(levels or {}).run(model)
    AvoidFusions().run(model)  # pools whose sizes onnxruntime infers wrongly would contradict their shapes
    return model


@dataclass(frozen=True)
class Written:
    """The source as it is written, without its weights.

    Attributes:
        as_read: the file itself can be run: its operators are onnx's, and none was written anew when it was read.
        tensors: the names of all tensors.
        made_of: what each tensor is computed from, by name.
    """

    as_read: bool
    tensors: frozenset[str]
    made_of: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, model: Model) -> Written:
        """Of a model that was read, and not changed since."""
        nodes = model.graph.nodes
        return cls(
            not (model.rewritten or any(is_ours(node, *ops.OPERATORS) for node in nodes)),
            frozenset(model.graph.tensors()),
            {out.name: tuple(t.name for t in node.inputs) for node in nodes for out in node.outputs},
        )


@dataclass(frozen=True)
class _Form:
    """One form of the source: the tensors that it has, None for all that there are, and the file's contents, which are
    made when they are wanted, as weights are large."""

    tensors: frozenset[str] | None
    make: Callable[[], bytes]


class SourceNetworks:
    """What the source computes.

    It is taken as directly as can be: the file itself; else the file as it was read, with its quantisers and functions
    written out; else with its activations as operators, which is also where other levels are set.

    Args:
        path: the file.
        written: what is written there.
        known: the same with its activations as operators; it is used up.
        pairing: where it is cut.
        threads: threads of onnxruntime; by default one for each core.
    """

    def __init__(self, path: Path, written: Written, known: Model, pairing: Pairing, threads: int | None) -> None:
        self.path, self.pairing, self.threads = path, pairing, threads
        self._known: Model | None = known
        self._cuts = [x.after for x in pairing.layers] + [n for x in pairing.computed for n in x.outputs]
        self._kinds: dict[str, Kind] = {}
        self._operators: Probed | None = None
        self._as_it_is = written.as_read and not pairing.requantised
        self._forms: list[_Form] = []
        if self._as_it_is:
            raw = onnx.ModelProto.FromString(read_bytes(path))
            self._forms.append(_Form(frozenset(main_tensors(raw)), lambda: read_bytes(path)))
            del raw
        if not pairing.requantised:
            self._forms.append(_Form(written.tensors, lambda: to_bytes(load(path))))
        #: Whether activations can be cut out only as one operator: somebody else uses what one is made of.
        self._whole = _is_cut_inside(written, pairing)
        self._forms.append(_Form(None, lambda: to_bytes(analysed(path, pairing.requantised))))

    @cached_property
    def itself(self) -> InferenceSession:
        """The source, in onnxruntime as pascalc runs it."""
        return InferenceSession(self.path if self._as_it_is else self._forms[0].make(), threads=self.threads)

    @cached_property
    def in_another_order(self) -> Probed:
        """The same without optimisations, and without what nothing uses: of a dead pool whose size onnxruntime infers
        wrongly it takes the memory for others."""
        names = [o.name for o in self.pairing.outputs]
        return Probed(self._forms[0].make, names, folder=self.path.parent, threads=self.threads, optimised=False)

    @cached_property
    def reference(self) -> Probed:
        """The source with its activations and what it computes shown."""
        names = [*self._cuts, *(o.name for o in self.pairing.outputs)]
        return Probed(self._form(names).make, names, folder=self.path.parent, threads=self.threads)

    @property
    def reference_is_itself(self) -> bool:
        """Whether the reference is what :attr:`itself` runs, with outputs added."""
        return self._form([*self._cuts, *(o.name for o in self.pairing.outputs)]) is self._forms[0]

    @cached_property
    def unoptimised(self) -> Probed:
        """The reference's outputs, operator by operator."""
        names = [o.name for o in self.pairing.outputs]
        form = self._form([*self._cuts, *names])
        return Probed(form.make, names, folder=self.path.parent, threads=self.threads, optimised=False)

    def release(self) -> None:
        """Let go of what only data needs."""
        for name in ("itself", "in_another_order", "unoptimised"):
            self.__dict__.pop(name, None)

    def learn(self, values: Values) -> None:
        """Take the kinds of what is fed from a run of the reference."""
        self._kinds = {name: Kind.of(values[name]) for name in self._cuts}
        if self._known is not None:
            AvoidFusions().run(self._known)
            self.bounds = AbsoluteProducts(self._known, self._kinds, self.pairing.shown(), self.threads)
            self._known = None

    @cached_property
    def stretches(self) -> Probed:
        """The source cut behind its neurons and computed operators."""
        names = self.pairing.shown()
        form = self._forms[-1] if self._whole else self._form([*self._cuts, *names])
        return Probed(form.make, names, self._kinds, folder=self.path.parent, threads=self.threads)

    def operators(self, fed: Values) -> Probed:
        """The source cut in front of its computed operators, too, with what they give shown."""
        if self._operators is None:
            names = [n for x in self.pairing.computed for n in x.outputs]
            form = self._form([*names, *fed])
            kinds = {name: Kind.of(array) for name, array in fed.items()}
            self._operators = Probed(form.make, names, kinds, folder=self.path.parent, threads=self.threads)
        return self._operators

    def _form(self, names: list[str]) -> _Form:
        """The most direct form of the source that has these tensors."""
        return next(f for f in self._forms if f.tensors is None or set(names) <= f.tensors)


class CompiledNetworks:
    """What the compiled file computes."""

    def __init__(self, path: Path, pairing: Pairing, threads: int | None) -> None:
        self.path, self.pairing, self.threads = path, pairing, threads

    @cached_property
    def itself(self) -> InferenceSession:
        """The file, in onnxruntime as it comes."""
        return InferenceSession(self.path, threads=self.threads, stock=True)

    @cached_property
    def observed(self) -> Probed:
        """The file with everything that is compared as outputs."""
        return self._probed(self.pairing.observed())

    @cached_property
    def with_trains(self) -> Probed:
        """The file in onnxruntime as it comes, with its trains and what it computes as outputs: as little as possible
        that could keep onnxruntime from fusing what it fuses in the file itself."""
        names = [x.train for x in self.pairing.layers] + [n for x in self.pairing.computed for n in x.outputs]
        names += [o.name for o in self.pairing.outputs]
        return self._probed(names, stock=True)

    def release(self) -> None:
        """Let go of what only data needs."""
        for name in ("itself", "observed", "with_trains"):
            self.__dict__.pop(name, None)

    def cut(self, fed: Values, names: Iterable[str]) -> Probed:
        """The file cut at the trains and computed tensors that are fed, with the named tensors shown."""
        return self._probed(names, {name: Kind.of(array) for name, array in fed.items()})

    def _probed(self, names: Iterable[str], cuts: Mapping[str, Kind] | None = None, stock: bool = False) -> Probed:
        return Probed(
            lambda: read_bytes(self.path), names, cuts, folder=self.path.parent, threads=self.threads, stock=stock
        )


def _is_cut_inside(written: Written, pairing: Pairing) -> bool:
    """Whether a cut lies between the current and the activation of a neuron in the source as it is written."""
    cuts = {n for x in pairing.computed for n in x.outputs} | {x.after for x in pairing.layers}
    for layer in pairing.layers:
        waiting = list(written.made_of.get(layer.after, ()))
        while waiting:
            name = waiting.pop()
            if name not in written.made_of or name == layer.before:
                continue
            if name in cuts:
                return True
            waiting += written.made_of[name]
    return False


def encode(neuron: Neuron, counts: Array) -> Array:
    """Counts as the neuron's output: a train of its code, or the counts themselves."""
    kind = neuron.threshold.dtype
    if neuron.model is None:
        return np.asarray(counts.astype(kind) * neuron.unit)
    train = np.multiply(neuron.model.code.encode(counts, neuron.steps_out), neuron.unit, dtype=kind)
    return np.asarray(train.reshape(neuron.steps_out * len(counts), *counts.shape[1:]))
