"""What is known of each standard ONNX operator: one table, one row an operator.

Whoever has to know whether an operator is linear, what bounds its results, whether a factor passes through it or
whether it keeps samples apart asks :func:`operator`. What it does to trains is a function, its rule in
pascalc/timing.py, and an operator with a rule has a row here.

A row speaks of the operator. Where the node decides (a quotient by a constant, a lookup at constant places, a batch
among the axes), who asks looks at the node, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import onnx_graphsurgeon as gs


class Bound(Enum):
    """What its sum of absolute products is, which bounds what rounding does to it (pascalc/rounding.py)."""

    ESTIMATED = "its own absolute value and the largest sum among its inputs, an estimate"
    PRODUCTS = "the same operator on the sums of all its inputs"
    MOVES = "the same operator on the sum of input 0; the other inputs stay as they are"
    BOUNDED = "that of input 0, whose errors it does not make larger"


class Linear(Enum):
    """Whether it is linear in each of its inputs, the others being constant."""

    NO = "it has kinks or jumps, or nothing is known"
    MAXIMUM = "it takes the maximum of some of its values: a kink, and no jump"
    FLOATS = "on floats: integers wrap around, and their quotients are rounded"
    ALWAYS = "it only says where values go, whatever their type"


class Factor(Enum):
    """Which factors of its input its result has, too."""

    NONE = "none that is known of"
    COMMON = "one value, or one for each entry of axis 1, that all its inputs have"
    SCALAR = "one value"
    CHANNEL = "one value, or one for each entry of axis 1, which stays where it is"


class Apart(Enum):
    """Whether it computes each sample, an entry of axis 0, from itself alone."""

    UNKNOWN = "it may mix samples"
    YES = "wherever its result has the batch as its first axis, and nowhere else"
    FIRST_AXIS = "unless the batch is its attribute `axis`, by default 0"
    LAST_AXIS = "unless the batch is its attribute `axis`, by default -1"
    AXES = "unless the batch is among its axes"


@dataclass(frozen=True)
class Row:
    """What is known of an operator. The defaults know nothing, and are right for every operator.

    Attributes:
        adds: it adds, and so rounds a sum.
        multiplies: it multiplies its inputs with one another.
        bound: what its sum of absolute products is.
        linear: whether it is linear in each of its inputs.
        factor: which factors of its input its result has, too.
        shift: a constant that is added to its input, one value or one for each entry of axis 1, is added to its result.
        apart: whether it computes each sample from itself alone.
        random: it gives something else each time.
    """

    adds: bool = False
    multiplies: bool = False
    bound: Bound = Bound.ESTIMATED
    linear: Linear = Linear.NO
    factor: Factor = Factor.NONE
    shift: bool = False
    apart: Apart = Apart.UNKNOWN
    random: bool = False


UNKNOWN = Row()

TABLE: dict[str, Row] = {
    # layers
    "Conv": Row(adds=True, multiplies=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, apart=Apart.YES),
    "ConvTranspose": Row(adds=True, multiplies=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, apart=Apart.YES),
    "Gemm": Row(adds=True, multiplies=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, apart=Apart.YES),
    "MatMul": Row(adds=True, multiplies=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, apart=Apart.YES),
    "BatchNormalization": Row(adds=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, apart=Apart.YES),
    # sums and products
    "Add": Row(adds=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, factor=Factor.COMMON, apart=Apart.YES),
    "Sub": Row(adds=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, factor=Factor.COMMON, apart=Apart.YES),
    "Sum": Row(adds=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, factor=Factor.COMMON, apart=Apart.YES),
    "Mul": Row(multiplies=True, bound=Bound.PRODUCTS, linear=Linear.FLOATS, apart=Apart.YES),
    "Div": Row(bound=Bound.PRODUCTS, linear=Linear.FLOATS, apart=Apart.YES),  # by a constant
    "Neg": Row(bound=Bound.BOUNDED, linear=Linear.FLOATS, apart=Apart.YES),
    # pools and reductions
    "AveragePool": Row(adds=True, bound=Bound.MOVES, linear=Linear.FLOATS, factor=Factor.CHANNEL, apart=Apart.YES),
    "GlobalAveragePool": Row(
        adds=True, bound=Bound.MOVES, linear=Linear.FLOATS, factor=Factor.CHANNEL, apart=Apart.YES
    ),
    "MaxPool": Row(bound=Bound.MOVES, linear=Linear.MAXIMUM, factor=Factor.CHANNEL, shift=True, apart=Apart.YES),
    "GlobalMaxPool": Row(bound=Bound.MOVES, linear=Linear.MAXIMUM, factor=Factor.CHANNEL, apart=Apart.YES),
    "ReduceMean": Row(adds=True, bound=Bound.MOVES, linear=Linear.FLOATS, factor=Factor.SCALAR, apart=Apart.YES),
    "ReduceSum": Row(adds=True, bound=Bound.MOVES, linear=Linear.FLOATS, factor=Factor.SCALAR, apart=Apart.YES),
    "Resize": Row(adds=True, bound=Bound.MOVES, linear=Linear.FLOATS, apart=Apart.YES),
    "Pad": Row(bound=Bound.MOVES, linear=Linear.FLOATS, apart=Apart.YES),
    # where values go
    "Identity": Row(bound=Bound.BOUNDED, linear=Linear.ALWAYS, factor=Factor.CHANNEL, shift=True, apart=Apart.YES),
    "Dropout": Row(bound=Bound.BOUNDED, linear=Linear.FLOATS, factor=Factor.CHANNEL, apart=Apart.YES),
    "Concat": Row(bound=Bound.PRODUCTS, linear=Linear.ALWAYS, apart=Apart.YES),
    "Flatten": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, factor=Factor.SCALAR, apart=Apart.YES),
    "Reshape": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, factor=Factor.SCALAR, apart=Apart.YES),
    "Transpose": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, factor=Factor.SCALAR, apart=Apart.YES),
    "Squeeze": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, factor=Factor.SCALAR, apart=Apart.YES),
    "Unsqueeze": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, factor=Factor.SCALAR, apart=Apart.YES),
    "Slice": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, apart=Apart.AXES),
    "Split": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, apart=Apart.FIRST_AXIS),
    "Gather": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, apart=Apart.FIRST_AXIS),  # at constant places
    "Expand": Row(bound=Bound.MOVES, linear=Linear.ALWAYS),
    "DepthToSpace": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, apart=Apart.YES),
    "SpaceToDepth": Row(bound=Bound.MOVES, linear=Linear.ALWAYS, apart=Apart.YES),
    # sizes, which no value changes
    "Shape": Row(linear=Linear.ALWAYS),
    "Size": Row(linear=Linear.ALWAYS),
    # element by element, or sample by sample
    "Abs": Row(bound=Bound.BOUNDED, apart=Apart.YES),
    "Cast": Row(apart=Apart.YES),
    "Ceil": Row(apart=Apart.YES),
    "Celu": Row(apart=Apart.YES),
    "Clip": Row(bound=Bound.BOUNDED, apart=Apart.YES),
    "DequantizeLinear": Row(apart=Apart.YES),
    "Elu": Row(apart=Apart.YES),
    "Erf": Row(apart=Apart.YES),
    "Exp": Row(apart=Apart.YES),
    "Floor": Row(apart=Apart.YES),
    "Gelu": Row(apart=Apart.YES),
    "HardSigmoid": Row(apart=Apart.YES),
    "HardSwish": Row(apart=Apart.YES),
    "InstanceNormalization": Row(apart=Apart.YES),
    "LRN": Row(apart=Apart.YES),
    "LeakyRelu": Row(bound=Bound.BOUNDED, apart=Apart.YES),
    "Log": Row(apart=Apart.YES),
    "Max": Row(apart=Apart.YES),
    "Min": Row(apart=Apart.YES),
    "Mish": Row(apart=Apart.YES),
    "PRelu": Row(apart=Apart.YES),
    "Pow": Row(apart=Apart.YES),
    "QuantizeLinear": Row(apart=Apart.YES),
    "Reciprocal": Row(apart=Apart.YES),
    "Relu": Row(bound=Bound.BOUNDED, apart=Apart.YES),
    "Round": Row(apart=Apart.YES),
    "Selu": Row(apart=Apart.YES),
    "Sigmoid": Row(apart=Apart.YES),
    "Sign": Row(apart=Apart.YES),
    "Softplus": Row(apart=Apart.YES),
    "Softsign": Row(apart=Apart.YES),
    "Sqrt": Row(apart=Apart.YES),
    "Tanh": Row(apart=Apart.YES),
    "ThresholdedRelu": Row(apart=Apart.YES),
    "Where": Row(apart=Apart.YES),
    # along an axis
    "ArgMax": Row(apart=Apart.FIRST_AXIS),
    "ArgMin": Row(apart=Apart.FIRST_AXIS),
    "LayerNormalization": Row(apart=Apart.LAST_AXIS),
    "LogSoftmax": Row(apart=Apart.LAST_AXIS),
    "Softmax": Row(apart=Apart.LAST_AXIS),
    "TopK": Row(apart=Apart.LAST_AXIS),
    # at random
    "Bernoulli": Row(random=True),
    "Multinomial": Row(random=True),
    "RandomNormal": Row(random=True),
    "RandomNormalLike": Row(random=True),
    "RandomUniform": Row(random=True),
    "RandomUniformLike": Row(random=True),
}


def operator(node: gs.Node) -> Row:
    """The row of a node's operator; that of an operator of another domain, or without a row, knows nothing.

    Nor is anything known of a BatchNormalization whose mean or variance is computed: by itself, from the batch, or
    before it. It is another operator in all but the name.
    """
    if node.domain or (node.op == "BatchNormalization" and not _is_affine(node)):
        return UNKNOWN
    return TABLE.get(node.op, UNKNOWN)


def _is_affine(node: gs.Node) -> bool:
    """Whether a BatchNormalization has a mean and a variance that are constants."""
    return not node.attrs.get("training_mode", 0) and all(isinstance(t, gs.Constant) for t in node.inputs[3:5])
