"""Files made to do harm: each is refused in a sentence or compiled, in bounded time and memory, and leaves nothing.

Every file holds a neuron, so that nothing but its hostility keeps it from going through the whole pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.fuzz.limits import COMPILED, REFUSED, compile_only, limited
from tests.helpers import constant, model_of

node = helper.make_node
HUGE = 2**60

Make = Callable[[], "onnx.ModelProto | bytes"]
CASES: dict[str, tuple[Make, str]] = {}


def case(name: str, verdict: str = REFUSED) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        CASES[name] = make, verdict
        return make

    return register


def network(
    nodes: Sequence[onnx.NodeProto] = (),
    last: str = "x",
    constants: Sequence[onnx.TensorProto] = (),
    shape: Sequence[int | str] = ("N", 4),
    opset: int = 18,
    rank: int | None = None,
) -> onnx.ModelProto:
    """The nodes, and a neuron behind the last tensor, of the input's rank unless told."""
    result = ["N", *(f"d{i}" for i in range(1, len(shape) if rank is None else rank))]
    qcfs = node("QCFS", [last, "theta"], ["y"], domain="ai.pascalc", levels=4, phi=0.5, label="neuron")
    return model_of([*nodes, qcfs], {"x": shape}, {"y": result}, [constant("theta", 1.0), *constants], opset=opset)


def hollow(name: str, dims: Sequence[int], dtype: int = TensorProto.FLOAT) -> onnx.TensorProto:
    """An initializer without any data."""
    return onnx.TensorProto(name=name, dims=dims, data_type=dtype)


# --- dimensions and data ------------------------------------------------------------------------------------------

for label, dims in {
    "2^60 elements": [HUGE],
    "a product beyond 64 bits": [2**40, 2**40],
    "a product that wraps to 0": [2**32, 2**32],
    "a product that wraps to 4": [2**62 + 1, 4],
    "many dimensions": [2] * 100,
    "a terabyte of zeros and none": [2**40, 0],
}.items():
    for form in ("raw", "typed"):

        @case(f"initializer of {label}, {form}")
        def initializer(dims: Sequence[int] = tuple(dims), form: str = form) -> onnx.ModelProto:
            weight = hollow("w", dims)
            if form == "raw":
                weight.raw_data = b"\0" * 16
            else:
                weight.float_data.extend([0.0] * 4)
            return network([node("Mul", ["x", "w"], ["z"])], "z", [weight])


for kind in (
    TensorProto.INT4,
    TensorProto.STRING,
    TensorProto.COMPLEX128,
    TensorProto.FLOAT16,
    TensorProto.FLOAT8E4M3FN,
):

    @case(f"initializer of 2^60 elements, {TensorProto.DataType.Name(kind)}")
    def initializer_of(kind: int = kind) -> onnx.ModelProto:
        return network(
            [node("Cast", ["w"], ["c"], to=1), node("Mul", ["x", "c"], ["z"])], "z", [hollow("w", [HUGE], kind)]
        )


@case("input of 2^60 features", COMPILED)
def huge_input() -> onnx.ModelProto:
    return network(shape=("N", HUGE))


@case("input dimensions beyond 64 bits", REFUSED)
def wide_input() -> onnx.ModelProto:
    return network([node("Flatten", ["x"], ["z"])], "z", shape=("N", 2**40, 2**40), rank=2)


@case("input of a negative dimension", COMPILED)
def negative_input() -> onnx.ModelProto:
    return network(shape=("N", -7))


@case("input of 10,000 dimensions", COMPILED)
def deep_input() -> onnx.ModelProto:
    return network(shape=("N", *[1] * 10_000))


@case("weights that are not a number")
def not_a_number() -> onnx.ModelProto:
    return network([node("MatMul", ["x", "w"], ["z"])], "z", [constant("w", np.full((4, 4), np.nan))])


@case("weights that are infinite", COMPILED)
def infinite() -> onnx.ModelProto:
    return network([node("MatMul", ["x", "w"], ["z"])], "z", [constant("w", np.full((4, 4), np.inf))])


@case("convolution with absurd padding", REFUSED)
def padding() -> onnx.ModelProto:
    conv = node("Conv", ["x", "w"], ["z"], pads=[2**62] * 4)
    return network([conv], "z", [constant("w", np.ones((1, 1, 1, 1)))], ("N", 1, 4, 4))


@case("convolution with strides of zero", REFUSED)
def strides() -> onnx.ModelProto:
    conv = node("Conv", ["x", "w"], ["z"], strides=[0, 0])
    return network([conv], "z", [constant("w", np.ones((1, 1, 1, 1)))], ("N", 1, 4, 4))


@case("pool with an absurd kernel", COMPILED)
def kernel() -> onnx.ModelProto:
    return network([node("AveragePool", ["x"], ["z"], kernel_shape=[2**62, 2**62])], "z", shape=("N", 1, 4, 4))


@case("neuron of 2^62 levels")
def levels() -> onnx.ModelProto:
    model = network()
    model.graph.node[-1].attribute[0].i = 2**62
    return model


@case("decomposed neuron of 10^30 levels")
def decomposed() -> onnx.ModelProto:
    nodes = [node("Mul", ["x", "l"], ["a"]), node("Add", ["a", "h"], ["b"]), node("Floor", ["b"], ["c"])]
    nodes += [node("Clip", ["c", "zero", "l"], ["d"]), node("Div", ["d", "l"], ["z"])]
    values = [constant("l", 1e30), constant("h", 0.5), constant("zero", 0.0)]
    return model_of(nodes, {"x": ["N", 4]}, {"z": ["N", 4]}, values)


# --- constants that ask for terabytes -----------------------------------------------------------------------------

GROW = {
    "ConstantOfShape": [node("ConstantOfShape", ["big"], ["w"])],
    "Expand": [node("Expand", ["one", "big"], ["w"])],
    "Tile": [node("Tile", ["one", "big"], ["w"])],
    "Range": [node("Range", ["zero", "count", "step"], ["i"]), node("Cast", ["i"], ["w"], to=1)],
    "Pad": [node("Pad", ["one", "pads"], ["w"])],
    "Resize": [node("Resize", ["one", "", "scale"], ["w"])],
    "OneHot": [node("OneHot", ["index", "count", "pair"], ["w"])],
    "EyeLike": [node("ConstantOfShape", ["square"], ["s"]), node("EyeLike", ["s"], ["w"])],
    "Reshape": [node("Reshape", ["one", "big"], ["w"])],
}
for operator, growing in GROW.items():

    @case(f"{operator} of a terabyte", COMPILED)
    def grown(growing: Sequence[onnx.NodeProto] = tuple(growing)) -> onnx.ModelProto:
        values = [
            *(constant("big", [2**40], np.int64), constant("square", [2**20, 2**20], np.int64)),
            *(constant("zero", 0, np.int64), constant("count", 2**40, np.int64), constant("step", 1, np.int64)),
            *(constant("one", [1.0]), constant("pads", [0, 2**40], np.int64), constant("scale", [2.0**40])),
            *(constant("index", [0], np.int64), constant("pair", [0.0, 1.0])),
        ]
        return network(
            [*growing, node("ReduceSum", ["w"], ["s0"], keepdims=0), node("Mul", ["x", "s0"], ["z"])], "z", values
        )


@case("shapes that square themselves", COMPILED)
def squaring() -> onnx.ModelProto:
    """Shape arithmetic of small results: a product of dimensions repeated until it overflows."""
    nodes = [node("Shape", ["x"], ["s0"])]
    nodes += [node("Mul", [f"s{i}", f"s{i}"], [f"s{i + 1}"]) for i in range(64)]
    nodes += [node("ConstantOfShape", ["s64"], ["w"]), node("ReduceSum", ["w"], ["r"], keepdims=0)]
    return network([*nodes, node("Mul", ["x", "r"], ["z"])], "z")


@case("constants that double 40 times", COMPILED)
def doubling() -> onnx.ModelProto:
    nodes = [node("Concat", [f"w{i}", f"w{i}"], [f"w{i + 1}"], axis=0) for i in range(40)]
    nodes += [node("ReduceSum", ["w40"], ["r"], keepdims=0), node("Mul", ["x", "r"], ["z"])]
    return network(nodes, "z", [constant("w0", np.ones(1024))])


@case("doubled currents", COMPILED)
def doubled() -> onnx.ModelProto:
    nodes = [node("Concat", [f"w{i}", f"w{i}"], [f"w{i + 1}"], axis=1) for i in range(40)]
    return network([node("Identity", ["x"], ["w0"]), *nodes], "w40")


@case("Loop of 2^62 rounds of constants", COMPILED)
def loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, []),
        ],
    )
    values = [constant("count", 2**62, np.int64), constant("truth", True, np.bool_), constant("one", 1.0)]
    nodes = [node("Loop", ["count", "truth", "one"], ["r"], body=body), node("Mul", ["x", "r"], ["z"])]
    return network(nodes, "z", values)


@case("Reshape to absurd sizes", REFUSED)
def reshape() -> onnx.ModelProto:
    shape = constant("s", [-1, 2**40, 2**40], np.int64)
    return network([node("Reshape", ["x", "s"], ["z"])], "z", [shape], rank=3)


@case("currents expanded to a terabyte", COMPILED)
def expanded() -> onnx.ModelProto:
    return network([node("Expand", ["x", "s"], ["z"])], "z", [constant("s", [1, 2**38, 4], np.int64)], ("N", 1, 4))


# --- structure ----------------------------------------------------------------------------------------------------


def nested(depth: int) -> onnx.ModelProto:
    """If in If in If."""
    out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 4])]
    graph = helper.make_graph([node("Relu", ["x"], ["r"])], "g", [], out)
    other = helper.make_graph([node("Neg", ["x"], ["r"])], "g", [], out)
    for _ in range(depth):
        graph = helper.make_graph([node("If", ["truth"], ["r"], then_branch=graph, else_branch=other)], "g", [], out)
    return network(list(graph.node), "r", [constant("truth", True, np.bool_)])


@case("If nested 10 deep", COMPILED)
def nested_a_little() -> onnx.ModelProto:
    return nested(10)


@case("If nested 28 deep", COMPILED)
def nested_a_lot() -> onnx.ModelProto:
    """As deep as protobuf allows."""
    return nested(28)


@case("If nested 1000 deep")
def nested_too_much() -> bytes:
    """Written by hand: onnx's own objects do not nest that deep."""
    text = b""
    for _ in range(1000):
        attribute = field(1, b"then_branch") + field(6, text) + b"\xa0\x01\x05"
        text = field(1, field(1, b"truth") + field(2, b"r") + field(4, b"If") + field(5, attribute))
    model = network(constants=[constant("truth", True, np.bool_)])
    graph = field(1, field(1, b"truth") + field(2, b"r") + field(4, b"If") + field(5, attribute))
    return model.SerializeToString() + field(7, graph)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    out, size = bytearray([number << 3 | 2]), len(content)
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size]) + content


def with_functions(functions: dict[str, list[str]], opset: int = 18) -> onnx.ModelProto:
    """A network that calls the first of some functions; each maps to the functions that it calls, one after another."""
    model = network([node(next(iter(functions)), ["x"], ["z"], domain="f")], "z", opset=opset)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("f", 1)]
    for name, callees in functions.items():
        nodes = [node(c, [f"t{i}"], [f"t{i + 1}"], domain="f" if c in functions else "") for i, c in enumerate(callees)]
        model.functions.append(helper.make_function("f", name, ["t0"], [f"t{len(callees)}"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("f", 1))
    return model


@case("a function that calls itself")
def recursive() -> onnx.ModelProto:
    return with_functions({"a": ["Relu", "a"]})


@case("functions that call each other")
def mutual() -> onnx.ModelProto:
    return with_functions({"a": ["b"], "b": ["c"], "c": ["Relu", "a"]})


@case("functions that grow exponentially")
def laughs() -> onnx.ModelProto:
    return with_functions({**{f"f{i}": [f"f{i + 1}"] * 10 for i in range(12)}, "f12": ["Relu"]})


@case("functions called in a chain 2,000 long")
def long_calls() -> onnx.ModelProto:
    return with_functions({**{f"f{i}": [f"f{i + 1}"] for i in range(2000)}, "f2000": ["Relu"]})


@case("a recursive function that is not called")
def unused() -> onnx.ModelProto:
    return with_functions({"a": ["Relu"], "b": ["b"]})


@case("a recursive function in an old opset")
def old_recursive() -> onnx.ModelProto:
    return with_functions({"a": ["Relu", "a"]}, opset=13)


@case("a cycle")
def cycle() -> onnx.ModelProto:
    return network([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], "b")


@case("a node that feeds itself")
def own_input() -> onnx.ModelProto:
    return network([node("Add", ["x", "a"], ["a"])], "a")


@case("two nodes of one output")
def twice() -> onnx.ModelProto:
    return network([node("Relu", ["x"], ["a"]), node("Neg", ["x"], ["a"])], "a")


@case("a node whose output is an input")
def shadow() -> onnx.ModelProto:
    return network([node("Relu", ["x"], ["x"])])


@case("a node whose output is an initializer")
def overwritten() -> onnx.ModelProto:
    return network([node("Relu", ["x"], ["w"])], "w", [constant("w", np.ones(4))])


@case("two inputs of one name")
def inputs_of_one_name() -> onnx.ModelProto:
    model = network()
    model.graph.input.append(model.graph.input[0])
    return model


@case("nodes of one name", COMPILED)
def names() -> onnx.ModelProto:
    return network([node("Relu", ["x"], ["a"], name="n"), node("Relu", ["a"], ["b"], name="n")], "b")


@case("a name of a megabyte", COMPILED)
def long_name() -> onnx.ModelProto:
    return network([node("Relu", ["x"], ["a" * 2**20], name="b" * 2**20)], "a" * 2**20)


@case("10,000 inputs", COMPILED)
def many_inputs() -> onnx.ModelProto:
    model = network()
    value = model.graph.input[0]
    for index in range(10_000):
        model.graph.input.add().CopyFrom(value)
        model.graph.input[-1].name = f"x{index}"
    return model


@case("a sum of 100,000 inputs", COMPILED)
def many_operands() -> onnx.ModelProto:
    return network([node("Sum", ["x"] * 100_000, ["z"])], "z")


@case("10,000 outputs", COMPILED)
def many_outputs() -> onnx.ModelProto:
    split = node("Split", ["x"], [f"s{i}" for i in range(10_000)], axis=1, num_outputs=10_000)
    return network([split], "s7", shape=("N", 10_000))


@case("10,000 initializers that nothing uses", COMPILED)
def many_initializers() -> onnx.ModelProto:
    return network(constants=[constant(f"w{i}", [1.0]) for i in range(10_000)])


def chain(length: int, op: str = "Relu", **attributes: Any) -> onnx.ModelProto:
    nodes = [node(op, [f"t{i}" if i else "x"], [f"t{i + 1}"], **attributes) for i in range(length)]
    return network(nodes, f"t{length}", shape=("N", 1, 4, 4), rank=2 if op == "Flatten" else 4)


for op, given in {
    "Relu": {},
    "Identity": {},
    "Flatten": {},
    "Neg": {},
    "Transpose": {"perm": [0, 1, 3, 2]},
    "MaxPool": {"kernel_shape": [1, 1]},
}.items():

    @case(f"{op} 3,000 times", COMPILED)
    def long_chain(op: str = op, given: dict[str, Any] = given) -> onnx.ModelProto:
        return chain(3000, op, **given)


@case("a million nodes")
def million() -> bytes:
    """The names stay the same: it is the number that is refused."""
    model = network()
    return model.SerializeToString() + field(7, field(1, chain(1).graph.node[0].SerializeToString()) * 1_000_000)


@case("constants resized slowly", COMPILED)
def slow_constants() -> onnx.ModelProto:
    nodes = [node("Resize", ["one", "", "scale"], ["w"], mode="linear")]
    nodes += [node("ReduceSum", ["w"], ["r"], keepdims=0), node("Mul", ["x", "r"], ["z"])]
    return network(nodes, "z", [constant("one", [1.0, 2.0]), constant("scale", [2.0**19])])


@case("an attribute of a million numbers", REFUSED)
def long_attribute() -> onnx.ModelProto:
    return network([node("Transpose", ["x"], ["z"], perm=list(range(1_000_000)))], "z")


@pytest.mark.parametrize("name", CASES)
def test_hostile_file(name: str, tmp_path: Path) -> None:
    make, verdict = CASES[name]
    made = make()
    path = tmp_path / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    outcome = limited(compile_only, path)
    assert outcome.verdict == verdict, outcome.message
    expected = {"model.onnx", "model.snn.onnx"} if verdict == COMPILED else {"model.onnx"}
    assert {p.name for p in tmp_path.iterdir()} == expected
    if verdict == REFUSED:
        assert outcome.message.startswith(f"{path}: ")
        assert len(outcome.message) < 1000
        assert "\n" not in outcome.message
