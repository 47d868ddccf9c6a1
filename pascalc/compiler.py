"""compile: an ONNX file in, the spiking network as an ONNX file out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pascalc import ops, pipeline
from pascalc.al.plan import PLAN_KEY, Plan
from pascalc.errors import CompileError
from pascalc.files import beside, printable, same
from pascalc.graph import Model, Note, NoteKind, operators
from pascalc.inspector import Inspection, inspect_model
from pascalc.metadata import (
    ANN_DIGEST,
    CORRECTION,
    LEVELS,
    NOT_SPIKING,
    SOURCE_DIGEST,
    SOURCE_NAME,
    recorded_correction,
)
from pascalc.modelfile import check_output, digest_of, save_together
from pascalc.neurons import neurons
from pascalc.ops import neuron_model
from pascalc.passes import ANALYSIS, ANN, SCHEDULES, Pass
from pascalc.passes.annotate_al import AnnotateAl
from pascalc.passes.apply_correction import ApplyCorrection
from pascalc.passes.facts import QCFS
from pascalc.passes.free_batch import FreeBatch
from pascalc.planning.correction import Correction
from pascalc.planning.planner import Planned
from pascalc.source import Network, Source, network_of
from pascalc.version import __version__


@dataclass(frozen=True)
class Compilation:
    """What was compiled, and what was noted on the way.

    Attributes:
        source: the source file.
        output: the emitted file.
        ann: the file of the network that was compiled, as an ANN; None where it was not kept.
        network: the emitted network's neurons, steps and operation counts.
        notes: matches that were refused and why, and what does not spike.
        timing: name, rewrites and seconds of each pass.
    """

    source: Path
    output: Path
    ann: Path | None
    network: Inspection
    notes: list[Note]
    timing: list[tuple[str, int, float]]

    @property
    def verifiable(self) -> bool:
        """Whether there is a file that `pascalc verify` can compare the emitted one with: the ANN, or the source where
        that was not corrected."""
        return self.ann is not None or not recorded_correction(self.network.metadata)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "source": str(self.source),
            "output": str(self.output),
            **self.network.to_json(),
            "notes": [{"pass": n.source, "node": n.node, "reason": n.reason, "warning": n.warning} for n in self.notes],
            "passes": [{"name": name, "rewrites": count, "seconds": s} for name, count, s in self.timing],
        }


def compile_model(
    source: Network,
    output: str | Path | None = None,
    *,
    neuron: str = "pasc",
    steps: int | None = None,
    schedule: str = "unrolled",
    stop_after: str | None = None,
    dump_ir: str | Path | None = None,
    levels: Mapping[str, int] | Plan | Planned | None = None,
    correction: Correction | ApplyCorrection | None = None,
    save_ann: str | Path | None = None,
    dynamic_batch: bool = False,
) -> Compilation:
    """Compile a trained QCFS network into the spiking network that is mathematically the same.

    With ``levels`` or ``correction`` the function of the network changes first; the result is then the spiking network
    of that other network, which ``save_ann`` writes.

    Args:
        source: the ONNX file of the trained network.
        output: where the spiking network goes; by default ``<source>.snn.onnx`` beside the source.
        neuron: the neuron model: "pasc", or "if", which is not lossless.
        steps: the time steps T of neuron models that leave them free ("if").
        schedule: "unrolled" steps through time; "collapsed" lets neurons hand over spike counts, so that every layer
            runs once.
        stop_after: the name of the last pass to run; the network is written as it is then. The passes that apply
            ``levels``, ``correction`` and ``dynamic_batch`` cannot be left out.
        dump_ir: a folder for the network as ONNX text after every pass.
        levels: other levels L for the activations of these labels; or a plan of them, which the file then carries for
            ``pascalc report``; or what `pascalc.plan` gives, a plan with its correction, of which both are applied.
        correction: shifts and thresholds for activations, as `pascalc.planning.planner.correct_levels` gives them, for
            ``levels`` that hold none.
        save_ann: where the network that is compiled goes as an ANN, with explicit QCFS operators, so that
            ``pascalc verify`` can compare the spiking network with it; a stock onnxruntime runs it.
        dynamic_batch: give the spiking network a dynamic batch where the source's is fixed, if that is safe.

    Raises:
        CompileError: the source cannot be compiled, two corrections were given, or one that was fitted at other levels,
            ``stop_after`` leaves out what was asked for, or the output cannot be written. No output is left then.
    """
    read = source if isinstance(source, Source) or save_ann is None else Source(source)  # twice, for the ANN
    source = Path(source)
    if schedule not in SCHEDULES:
        raise CompileError(f"there is no schedule '{schedule}'", file=source, hint=f"There is: {', '.join(SCHEDULES)}.")
    passes: Sequence[Pass] = SCHEDULES[schedule](neuron_model(neuron, {"steps": steps}))
    output = default_output(source) if output is None else Path(output)
    ann = None if save_ann is None else Path(save_ann)
    check_output(source, output)
    if ann is not None:
        check_output(source, ann, "the ANN", "--save-ann")
        if same(ann, output):
            raise CompileError("the ANN would overwrite the output", file=ann, hint="Choose another --save-ann FILE.")
    levels, plan, fitted = _levels(levels)
    if fitted is not None and correction is not None:
        raise CompileError("the plan holds a correction, and another was given", hint="Give levels=planned.plan.")
    correction = fitted if correction is None else correction
    if isinstance(correction, Correction):
        correction = correction.as_pass()
    changes: list[Pass] = [] if levels is None else [AnnotateAl(levels)]
    changes += [] if correction is None else [correction]
    changes += [FreeBatch()] if dynamic_batch else []
    passes = _with(changes, passes)
    _refuse_stop_before(changes, passes, stop_after)
    model = network_of(read)
    _refuse_other_bodies(model)
    timing = pipeline.Timing()
    observers: list[pipeline.Observer] = [timing]
    if dump_ir is not None:
        observers.append(pipeline.Dump(Path(dump_ir)))
    established = pipeline.run(model, passes, observers, stop_after)
    found = neurons(model)
    if not found and QCFS in established:
        _refuse_without_neurons(model)
    model.metadata.update(_provenance(model, neuron, schedule, {n.name: n.levels for n in found}))
    if plan is not None:
        model.metadata[PLAN_KEY] = plan.to_json()
    for key in (ANN_DIGEST, CORRECTION):  # of the source, which may be a compiled file
        model.metadata.pop(key, None)
    if correction is not None:
        model.metadata[CORRECTION] = correction.method
    networks = [(model, output)]
    if ann is not None:
        trained = _ann(read, changes)
        model.metadata[ANN_DIGEST] = digest_of(trained)
        networks.append((trained, ann))
    save_together(networks)
    return Compilation(source, output, ann, inspect_model(model), model.notes, timing.rows)


def _levels(given: object) -> tuple[Mapping[str, int] | None, Plan | None, Correction | None]:
    """The levels by label, the plan that they come from, and the correction that was fitted at them."""
    plan, correction = (given.plan, given.correction) if isinstance(given, Planned) else (given, None)
    if isinstance(plan, Plan):
        return {layer.name: layer.levels for layer in plan.layers}, plan, correction
    if plan is not None and not isinstance(plan, Mapping):
        raise CompileError(
            f"levels must be a plan, or the L of each label, not {type(plan).__name__}",
            hint="Give what pascalc.plan(...) or pascalc.al.Plan.read('plan.json') gives, or {'label': 2}.",
        )
    return plan, None, None


def _with(changes: Sequence[Pass], passes: Sequence[Pass]) -> list[Pass]:
    """The passes with those that were asked for, where activations have just become explicit."""
    return [*passes[: len(ANALYSIS)], *changes, *passes[len(ANALYSIS) :]]


def _refuse_stop_before(changes: Sequence[Pass], passes: Sequence[Pass], stop_after: str | None) -> None:
    """A network that is written before what was asked for is applied would say that it was."""
    names = [step.name() for step in passes]
    last = names.index(stop_after) if stop_after in names else len(names)
    left_out = [change.name() for change in changes if change.name() in names[last + 1 :]]
    if left_out:
        raise CompileError(
            f"to stop after {stop_after} leaves out what was asked for: {', '.join(left_out)}",
            hint=f"Give stop_after (--stop-after) {left_out[-1]}, or a later pass.",
        )


def _ann(source: Network, changes: Sequence[Pass]) -> Model:
    """The network that is compiled, as an ANN."""
    model = network_of(source)
    pipeline.run(model, _with(changes, ANN))
    return model


def default_output(source: Path) -> Path:
    """``model.onnx`` -> ``model.snn.onnx``, beside it."""
    return beside(source, "snn")


def _refuse_other_bodies(model: Model) -> None:
    """A source whose own function bodies are not ours means something else than what would be compiled."""
    for other in model.noted(NoteKind.OTHER_BODY):
        raise CompileError(
            f"the source has a function body of {ops.DOMAIN}.{other.node} that is not this version's: the network "
            "would be compiled as another one than onnxruntime runs",
            file=model.file,
            node=other.node,
            hint="Remove the function from the file, if this version's is meant; else export the network again, or "
            "give the function, and the nodes that call it, another domain.",
        )


#: What a network may have instead of QCFS, for the message.
_ACTIVATIONS = frozenset(
    (
        *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish", "HardSwish"),
        *("Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign", "Clip", "Floor", "Round", "Ceil", "QuantizeLinear"),
    )
)


def _refuse_without_neurons(model: Model) -> None:
    present = {op: n for op, n in sorted(operators(model).items()) if op in _ACTIVATIONS}
    found = ", ".join(f"{op} ({n})" for op, n in present.items()) or "none"
    near = [str(note) for note in model.noted(NoteKind.NEAR_MISS)]
    reasons = f" Nearly QCFS: {'; '.join(near[:3])}." if near else ""
    raise CompileError(
        f"there is no QCFS activation in this network, so nothing would spike. Its activations: {found}.{reasons}",
        file=model.file,
        hint="Train with pascalc.train.QCFS in place of ReLU (pascalc.train.replace_relu) and export again.",
    )


def _provenance(model: Model, neuron: str, schedule: str, levels: Mapping[str, int]) -> dict[str, str]:
    not_spiking = [str(note) for note in model.noted(NoteKind.NOT_SPIKING)]
    return {
        "pascalc.version": __version__,
        "pascalc.neuron": neuron,
        "pascalc.schedule": schedule,
        LEVELS: json.dumps(levels),
        NOT_SPIKING: json.dumps(not_spiking),
        SOURCE_NAME: printable(model.file.name) if model.file else "",
        SOURCE_DIGEST: model.digest,
    }
