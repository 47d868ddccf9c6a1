"""The pipeline: what happens to a network, in order."""

from __future__ import annotations

from collections.abc import Callable

from pascalc.errors import CompileError
from pascalc.ops import NeuronModel, Pasc
from pascalc.passes.avoid_fusions import AvoidFusions
from pascalc.passes.base import Pass
from pascalc.passes.check_thresholds import CheckThresholds
from pascalc.passes.fold_bn import FoldBn
from pascalc.passes.fold_constants import FoldConstants
from pascalc.passes.fold_thresholds import FoldThresholds
from pascalc.passes.infer_shapes import InferShapes
from pascalc.passes.lower_neurons import LowerNeurons
from pascalc.passes.recognise_qcfs import RecogniseQcfs
from pascalc.passes.sink_maxpool import SinkMaxpool
from pascalc.passes.unroll_time import UnrollTime
from pascalc.passes.verify_types import VerifyTypes

#: From any ONNX graph to one whose activations are explicit; the mathematics is untouched.
ANALYSIS: tuple[Pass, ...] = (
    InferShapes(),  # every shape; which axis is the batch
    FoldConstants(),  # parameters become values
    RecogniseQcfs(),  # every form of QCFS becomes one operator
)


def front(neuron: NeuronModel) -> tuple[Pass, ...]:
    """On to weights that are ready for the spikes of this neuron."""
    return (
        *ANALYSIS,
        CheckThresholds(neuron),  # every neuron can be computed in floats
        FoldBn(),  # one bias a layer is left, so that one bias is split
        SinkMaxpool(neuron),  # MaxPool works on spikes, behind the neuron
        FoldThresholds(neuron),  # a spike is 1 where the layers around can take its height
    )


def unrolled(neuron: NeuronModel) -> tuple[Pass, ...]:
    """The network stepped through time."""
    return (
        *front(neuron),
        LowerNeurons(neuron),  # QCFS becomes a spiking neuron
        UnrollTime(),  # time types, and what changes of type need
        AvoidFusions(),  # stock onnxruntime computes what is written
        VerifyTypes(),  # every rule is content with what it gets
    )


def collapsed(neuron: NeuronModel) -> tuple[Pass, ...]:
    """Neurons hand over spike counts, every layer runs once.

    Raises:
        CompileError: the neuron's count depends on when its input comes, which is not known then.
    """
    if not neuron.lossless:
        raise CompileError(
            f"the collapsed schedule has no time, and the count of '{neuron.name}' neurons depends on it: theirs are "
            "not the levels that it hands over",
            hint="Compile with --schedule unrolled; the collapsed network is the one of --neuron pasc.",
        )
    return (
        *front(neuron),
        AvoidFusions(),  # stock onnxruntime computes what is written
    )


#: The source network itself, with its activations as operators.
ANN: tuple[Pass, ...] = (
    *ANALYSIS,
    CheckThresholds(),
    AvoidFusions(),  # stock onnxruntime computes what is written
)

#: How a network is scheduled, and the passes that do it for a neuron model.
SCHEDULES: dict[str, Callable[[NeuronModel], tuple[Pass, ...]]] = {"unrolled": unrolled, "collapsed": collapsed}

#: The same for PASC neurons.
FRONT, UNROLLED, COLLAPSED = front(Pasc()), unrolled(Pasc()), collapsed(Pasc())

__all__ = [
    "ANALYSIS",
    "ANN",
    "COLLAPSED",
    "FRONT",
    "SCHEDULES",
    "UNROLLED",
    "Pass",
    "collapsed",
    "front",
    "unrolled",
]
