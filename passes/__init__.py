"""The pipeline: what happens to a network, in order."""

from __future__ import annotations

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

#: On to weights that are ready for spikes.
FRONT: tuple[Pass, ...] = (
    *ANALYSIS,
    CheckThresholds(),  # every neuron can be computed in floats
    FoldBn(),  # one bias a layer is left, so that one bias is split
    SinkMaxpool(),  # MaxPool works on spikes, behind the neuron
    FoldThresholds(),  # a spike is 1 where the layers around can take its height
)

#: The source network itself, with its activations as operators.
ANN: tuple[Pass, ...] = (
    *ANALYSIS,
    CheckThresholds(),
    AvoidFusions(),
)

#: Neurons hand over spike counts, every layer runs once.
COLLAPSED: tuple[Pass, ...] = (
    *FRONT,
    AvoidFusions(),  # stock onnxruntime computes what is written
)

#: The network stepped through time.
UNROLLED: tuple[Pass, ...] = (
    *FRONT,
    LowerNeurons(),  # QCFS becomes a spiking neuron
    UnrollTime(),  # time types, and what changes of type need
    AvoidFusions(),  # stock onnxruntime computes what is written
    VerifyTypes(),  # every rule is content with what it gets
)

SCHEDULES: dict[str, tuple[Pass, ...]] = {"unrolled": UNROLLED, "collapsed": COLLAPSED}

__all__ = ["ANALYSIS", "ANN", "COLLAPSED", "FRONT", "SCHEDULES", "UNROLLED", "Pass"]
