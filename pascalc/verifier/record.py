"""The answer of verify, and the figures that it rests on."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from pascalc.tables import counted

#: Root mismatches listed one by one; all are counted.
MAX_ROOTS_SHOWN = 1000


#: What is found on data, of the whole network.
_FOUND = {
    *("answers_compared", "argmax_mismatches", "source_self_mismatches", "max_abs_output_diff", "output_excess"),
    *("roots", "output_problems", "problems"),
}


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
    """One layer of neurons: how many there were over all samples, and what differed.

    Attributes:
        current_excess: the largest ratio of a current's difference from the source's to its rounding bound.
        half_points: of the root mismatches, those where the source's value lies on the point between the two levels, as
            far as floats can tell. A quantiser that rounds half to even differs there from QCFS. A neuron
            with a threshold for each level does not, but rounding of its current may move it across.
        most: the count that stands for theta: L, or another number of lossy neuron models. ``lossless``: whether its
            counts are to be the source's levels; else they only approach them, and there are no roots.
        off: over the data, the sum of |count*L - level*most| with the levels of the source's own run; ``own_off``: the
            same with the level of the very current that the neuron got.
        not_binary: spikes that are not those of a train of the neuron's code, or not of a spike's height.
        misfired: values of the train that are not, to the bit, what the neuron's kernel gives for the current it got.
        problems: what else is wrong with the layer.
    """

    name: str
    levels: int
    steps_in: int
    steps_out: int
    most: int
    lossless: bool
    neurons: int = 0
    root_mismatches: int = 0
    half_points: int = 0
    count_mismatches: int = 0
    max_root_margin: float = 0.0
    roots_beyond_bound: int = 0
    current_excess: float = 0.0
    not_binary: int = 0
    misfired: int = 0
    off: int = 0
    own_off: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, later: LayerCheck) -> None:
        """Add what was found on later samples."""
        self.neurons += later.neurons
        self.root_mismatches += later.root_mismatches
        self.half_points += later.half_points
        self.count_mismatches += later.count_mismatches
        self.max_root_margin = max(self.max_root_margin, later.max_root_margin)
        self.roots_beyond_bound += later.roots_beyond_bound
        self.current_excess = max(self.current_excess, later.current_excess)
        self.not_binary += later.not_binary
        self.misfired += later.misfired
        self.off += later.off
        self.own_off += later.own_off
        add_new(self.problems, later.problems)

    @property
    def conversion_error(self) -> float:
        """The mean difference of an activation from the source's, in units of theta; 0 without data."""
        return self.off / max(1, self.levels * self.most * self.neurons)

    @property
    def own_error(self) -> float:
        """The part of it that the neuron itself makes: the mean difference from QCFS of the current that it got."""
        return self.own_off / max(1, self.levels * self.most * self.neurons)

    @property
    def equivalent(self) -> bool:
        """Whether the layer is the source's; of a lossy neuron model, whether it is what the file says that it is."""
        return not (
            self.roots_beyond_bound or self.not_binary or self.misfired or self.problems or not self.current_excess <= 1
        )


@dataclass
class ComputedCheck:
    """An operator that is computed and not spiking: whether it is the source's, and how far off its inputs were."""

    name: str
    operator: str
    excess: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, later: ComputedCheck) -> None:
        """Add what was found on later samples."""
        self.excess = max(self.excess, later.excess)
        add_new(self.problems, later.problems)

    @property
    def equivalent(self) -> bool:
        return not self.problems and self.excess <= 1


@dataclass
class Verification:
    """The answer, and the figures that it rests on.

    Attributes:
        data: whether the samples are data; else they are random.
        probes: samples with random levels in every layer, and ``batch_sizes``: those they were run in. ``threads``: of
            onnxruntime in this process, None for as many as there are cores; a worker has one. Nothing is said of
            others. ``seed``: of what was random.
        disturbed: samples with inputs that no data gave, on which both files ran as they are; none where the source
            refuses such inputs.
        source_recorded: whether the compiled file says that it was made from this source file; None if it says nothing.
        trusted: what was taken from the compiled file's own word.
        answers_compared: samples in which no count differs, so that the two files' real outputs had to agree.
        equivalent: it is the source network: it is translated, and its neurons are lossless.
        translated: no root mismatch lies beyond its rounding bound, currents and outputs agree within theirs, every
            train is one of its neuron's code, and every neuron of the source was found.
        source_self_mismatches: classifications in which the source differs from itself with onnxruntime's graph
            optimisations off: what float rounding alone does.
        output_excess: the largest ratio of an output's difference to its rounding bound, given equal spike counts.
        computed: the operators that are computed and not spiking.
        requantised: layers compiled at other levels than the source's, (source, compiled), as the compiled file says
            of itself; the source network is then taken at the compiled levels.
        corrected: how the compiled file says that its network was corrected (`pascalc.planning.correction`), so that it
            has to be compared with the network that ``compile --save-ann`` wrote; empty where it was not, or where the
            source is that network.
        first_difference: the first layer, in the order of the graph, that is not the source's; empty if none.
        output_problems: what else is wrong with the outputs, and ``problems``: with the network as a whole.
    """

    samples: int = 0
    data: bool = True
    probes: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    threads: int | None = None
    seed: int = 0
    disturbed: int = 0
    source_recorded: bool | None = None
    corrected: str = ""
    trusted: list[str] = field(default_factory=list)
    answers_compared: int = 0
    argmax_mismatches: int = 0
    source_self_mismatches: int = 0
    max_abs_output_diff: float = 0.0
    output_excess: float = 0.0
    layers: list[LayerCheck] = field(default_factory=list)
    computed: list[ComputedCheck] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    output_problems: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    requantised: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, later: Verification) -> None:
        """Add what was found on later samples of the data, in their order."""
        self.answers_compared += later.answers_compared
        self.argmax_mismatches += later.argmax_mismatches
        self.source_self_mismatches += later.source_self_mismatches
        self.max_abs_output_diff = max(self.max_abs_output_diff, later.max_abs_output_diff)
        self.output_excess = max(self.output_excess, later.output_excess)
        for layer, more in zip(self.layers, later.layers, strict=True):
            layer.add(more)
        for check, found in zip(self.computed, later.computed, strict=True):
            check.add(found)
        self.roots += later.roots[: MAX_ROOTS_SHOWN - len(self.roots)]
        add_new(self.output_problems, later.output_problems)
        add_new(self.problems, later.problems)

    def take(self) -> Verification:
        """What was found so far; here, nothing of it stays."""
        found = deepcopy(self)
        records: list[Verification | LayerCheck | ComputedCheck] = [self, *self.layers, *self.computed]
        for record in records:
            for own in fields(record):
                if record is not self or own.name in _FOUND:
                    if own.default_factory is not MISSING:
                        setattr(record, own.name, own.default_factory())
                    elif own.default is not MISSING:  # else it says what was looked at
                        setattr(record, own.name, own.default)
        return found

    @property
    def first_difference(self) -> str:
        checks: list[LayerCheck | ComputedCheck] = [*self.layers, *self.computed]
        for check in checks:
            if not check.equivalent:
                return check.name
        return "the outputs" if self.output_excess > 1 or self.output_problems else ""

    @property
    def translated(self) -> bool:
        """Whether the file computes what it says: the source's network, with its activations by its neurons."""
        return not self.first_difference and not self.problems

    @property
    def lossy(self) -> bool:
        """Whether there are neurons whose counts only approach the source's levels."""
        return not all(layer.lossless for layer in self.layers)

    @property
    def equivalent(self) -> bool:
        return self.translated and not self.lossy

    def findings(self) -> list[str]:
        """What makes the network not equivalent, one sentence each, in the order of the graph."""
        lines = list(self.problems)
        for layer in self.layers:
            lines += [f"{layer.name}: {problem}" for problem in layer.problems]
            if layer.roots_beyond_bound:
                roots = counted(layer.roots_beyond_bound, "root mismatch", "root mismatches")
                lines.append(f"{layer.name}: {roots} beyond the rounding bound")
            if layer.current_excess > 1:
                lines.append(f"{layer.name}: its current is off by {layer.current_excess:.2g} times the rounding bound")
            if layer.misfired:
                values = counted(layer.misfired, "value is", "values are")
                lines.append(f"{layer.name}: {values} not what its neurons fire on their currents")
            if layer.not_binary:
                spikes = counted(layer.not_binary, "spike is", "spikes are")
                lines.append(f"{layer.name}: {spikes} not in a train of all spikes first")
        for check in self.computed:
            lines += [f"{check.name}: {problem}" for problem in check.problems]
            if check.excess > 1:
                lines.append(f"{check.name}: its input is off by {check.excess:.2g} times the rounding bound")
        lines += [f"the outputs: {problem}" for problem in self.output_problems]
        if self.output_excess > 1:
            lines.append(f"the outputs: they are off by {self.output_excess:.2g} times the rounding bound")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The verification as plain values."""
        layers = [{**asdict(x), "conversion_error": x.conversion_error, "own_error": x.own_error} for x in self.layers]
        verdict = {"equivalent": self.equivalent, "translated": self.translated, "lossy": self.lossy}
        return {**verdict, "first_difference": self.first_difference, **asdict(self), "layers": layers}


def add_new(problems: list[str], more: list[str]) -> None:
    """Keep the problems that are not yet among them."""
    problems += [problem for problem in more if problem not in problems]
