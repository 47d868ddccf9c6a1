"""The operator table: what its rows say is measured on one node of each operator, and one row and rule are all it takes
to teach the whole compiler a new one.

Inputs are quarters, so sums and products are exact.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

import pascalc
from pascalc import pipeline, timing
from pascalc.errors import CompileError
from pascalc.modelfile import load
from pascalc.neurons import neurons
from pascalc.operators import TABLE, UNKNOWN, Apart, Bound, Factor, Linear, Row, operator
from pascalc.passes import ANALYSIS
from pascalc.probes import Kind
from pascalc.rounding import AbsoluteProducts
from pascalc.timing import Decision, Declined, Types
from tests.helpers import Array, loaded, parse, run, with_bodies, with_output_ranks

#: Each operator on x, [N,2,4,4], along an axis other than the batch; where none is given, "y = <operator> (x)".
NODES = {
    "Conv": "y = Conv (x, kernel)",
    "ConvTranspose": "y = ConvTranspose (x, kernel)",
    "Gemm": "f = Flatten (x)\n y = Gemm (f, matrix, two)",
    "MatMul": "f = Flatten (x)\n y = MatMul (f, matrix)",
    "BatchNormalization": "y = BatchNormalization <epsilon = 0.0> (x, two, two, two, ones)",
    **{name: f"y = {name} (x, x)" for name in ("Add", "Sub", "Sum")},
    **{name: f"y = {name} (x, half)" for name in ("Mul", "Div", "Max", "Min", "PRelu", "Pow")},
    "AveragePool": "y = AveragePool <kernel_shape = [2, 2]> (x)",
    "MaxPool": "y = MaxPool <kernel_shape = [2, 2]> (x)",
    **{name: f"y = {name} (x, one)" for name in ("ReduceMean", "ReduceSum", "Unsqueeze")},
    "Resize": "y = Resize (x, , scales)",
    "Pad": "y = Pad (x, pads)",
    "Concat": "y = Concat <axis = 1> (x, x)",
    "Reshape": "y = Reshape (x, shape)",
    "Transpose": "y = Transpose <perm = [0, 3, 2, 1]> (x)",
    "Squeeze": "u = Unsqueeze (x, one)\n y = Squeeze (u, one)",
    "Slice": "y = Slice (x, one, end, one)",
    "Split": "y, z = Split <axis = 2, num_outputs = 2> (x)",
    "Gather": "y = Gather <axis = 1> (x, one)",
    "Expand": "y = Expand (x, five)",
    "DepthToSpace": "z = Concat <axis = 1> (x, x)\n y = DepthToSpace <blocksize = 2> (z)",
    "SpaceToDepth": "y = SpaceToDepth <blocksize = 2> (x)",
    "Cast": "y = Cast <to = 1> (x)",
    "InstanceNormalization": "y = InstanceNormalization (x, two, two)",
    "LRN": "y = LRN <size = 1> (x)",
    "QuantizeLinear": "y = QuantizeLinear (x, half)",
    "DequantizeLinear": "q = QuantizeLinear (x, half)\n y = DequantizeLinear (q, half)",
    "Where": "b = Cast <to = 9> (x)\n y = Where (b, x, half)",
    **{name: f"y = {name} <axis = 1> (x)" for name in ("ArgMax", "ArgMin", "LogSoftmax", "Softmax")},
    "LayerNormalization": "y = LayerNormalization <axis = 3> (x, four)",
    "TopK": "y, z = TopK <axis = 1> (x, one)",
}
CONSTANTS = """
    float[2,2,1,1] kernel = {1, -2, 3, 1}, float[32,2] matrix = {MATRIX}, float[2] two = {2, 3}, float[2] ones = {1, 1},
    float half = {0.5}, float[4] four = {1, 2, 3, 4}, int64[1] one = {1}, int64[1] end = {2},
    float[4] scales = {1, 1, 2, 2}, int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}, int64[3] shape = {0, 2, 16},
    int64[5] five = {1, 1, 1, 1, 1}
""".replace("MATRIX", ", ".join(str(v % 5 - 2) for v in range(64)))
INTEGERS = {"Shape": "int64", "Size": "int64", "ArgMax": "int64", "ArgMin": "int64", "QuantizeLinear": "uint8"}
RANDOM = [name for name, row in TABLE.items() if row.random]


def network(name: str) -> onnx.ModelProto:
    """x -> y by the operator."""
    body = NODES.get(name, f"y = {name} (x)")
    proto = parse(
        f'<ir_version: 10, opset_import: ["": 20]>\nnetwork (float[N,2,4,4] x) => ({INTEGERS.get(name, "float")}[] y)'
        f"<{CONSTANTS}>\n{{ {body} }}"
    )
    used = {tensor for node in proto.graph.node for tensor in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return with_output_ranks(proto)


def apply(proto: onnx.ModelProto, x: Array) -> Array:
    return run(proto, {"x": x.astype(np.float32)}, optimised=False)[0]


A, B = (np.random.default_rng(seed).integers(-16, 17, (3, 2, 4, 4)) / 4 for seed in (0, 1))
BY_CHANNEL = np.array([2, 4]).reshape(2, 1, 1)


@pytest.mark.parametrize("name", [name for name in TABLE if name not in RANDOM])
def test_what_a_row_says(name: str) -> None:
    row, proto = TABLE[name], network(name)
    result = apply(proto, A)
    if row.linear in (Linear.FLOATS, Linear.ALWAYS):
        np.testing.assert_array_equal(result + apply(proto, B), apply(proto, A + B) + apply(proto, 0 * A))
    if row.linear is Linear.MAXIMUM:
        np.testing.assert_array_equal(np.maximum(result, apply(proto, B)), apply(proto, np.maximum(A, B)))
    if row.factor is not Factor.NONE:
        np.testing.assert_array_equal(result * 2, apply(proto, A * 2))
    if row.factor in (Factor.CHANNEL, Factor.COMMON):
        np.testing.assert_array_equal(result * BY_CHANNEL, apply(proto, A * BY_CHANNEL))
    if row.shift:
        np.testing.assert_array_equal(result + BY_CHANNEL, apply(proto, A + BY_CHANNEL))
    if row.apart is not Apart.UNKNOWN:
        alone = np.concatenate([apply(proto, A[i : i + 1]) for i in range(len(A))])
        np.testing.assert_allclose(result, alone, rtol=1e-6)
    if row.bound is not Bound.ESTIMATED:
        assert np.all(np.abs(result) <= absolute(proto))


def absolute(proto: onnx.ModelProto) -> Array:
    """The sum of absolute products for the input A."""
    model = loaded(proto)
    pipeline.run(model, ANALYSIS)
    x = A.astype(np.float32)
    return AbsoluteProducts(model, {"x": Kind.of(x)}, ["y"], threads=1).run({}, {"x": x})["y"]


@pytest.mark.parametrize(("apart", "default"), [(Apart.FIRST_AXIS, 0), (Apart.LAST_AXIS, -1)])
def test_the_default_of_axis(apart: Apart, default: int) -> None:
    names = [name for name, row in TABLE.items() if row.apart is apart]
    assert names
    assert {onnx.defs.get_schema(name).attributes["axis"].default_value.i for name in names} == {default}


def test_what_is_random_has_a_seed() -> None:
    seeded = {s.name for s in onnx.defs.get_all_schemas() if not s.domain and "seed" in s.attributes}
    assert set(RANDOM) == seeded - {"Dropout"}  # which is random in training alone


def test_every_row_is_a_standard_operator() -> None:
    assert all(onnx.defs.has(name) for name in TABLE)


def test_every_rule_has_a_row_that_verify_can_use() -> None:
    """Without a bound, or where nothing is known to be linear, the verifier takes it for one that is computed."""
    for name, info in timing.RULES.items():
        assert info.row is TABLE[name]
        assert info.row.bound is not Bound.ESTIMATED
        assert info.row.linear is not Linear.NO


def test_a_rule_without_a_row_is_none() -> None:
    with pytest.raises(KeyError, match="Tile"):
        timing._rule("shape", "over axes other than the batch", "Tile")(tile)
    assert "Tile" not in timing.RULES


def test_operators_of_other_domains_have_no_row() -> None:
    assert operator(gs.Node("Conv")) is operator(gs.Node("Conv", domain="")) is TABLE["Conv"]
    assert operator(gs.Node("Conv", domain="com.example")) is operator(gs.Node("Einsum")) is UNKNOWN


# --- a row and a rule are all it takes ------------------------------------------------------------------------------

TILE = Row(bound=Bound.MOVES, linear=Linear.ALWAYS, factor=Factor.SCALAR, apart=Apart.YES)
NETWORK = """
network (float[4,2,4,4] x) => (float[4,4,4,4] y) <float theta = {2}, int64[4] repeats = {1, 1, 2, 1}, BIG> {
    a = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "first"> (x, theta)
    b = Conv (a, w1, b1)
    c = ai.pascalc.QCFS <levels = 4, phi = 0.5, label = "second"> (b, theta)
    d = Tile (c, repeats)
    e = Conv <strides = [2, 1]> (d, w2, b1)
    f = ai.pascalc.QCFS <levels = 8, phi = 0.5, label = "third"> (e, theta)
    y = Conv (f, w3)
}""".replace(
    "BIG",
    "float[4,2,1,1] w1 = {1, 0.5, -1, 2, 0.25, 1, 1, -0.5}, float[4] b1 = {0.5, 0.25, -0.5, 1}, "
    f"float[4,4,1,1] w2 = {{{', '.join(str((v % 7 - 2) / 4) for v in range(16))}}}, "
    f"float[4,4,1,1] w3 = {{{', '.join(str((v % 5 - 2) / 4) for v in range(16))}}}",
)


def tile(node: gs.Node, types: Types) -> Decision:
    """The rule."""
    data = timing._data_and_constants(types)
    if timing._integers(node, 1)[0] != 1:
        raise Declined("it repeats the batch")
    return Decision(types, timing._moved(node, data))


def teach(monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    """What a person adds: a line in operators.py, a function in timing.py."""
    monkeypatch.setitem(TABLE, "Tile", row)
    monkeypatch.setattr(timing, "RULES", dict(timing.RULES))
    timing._rule("shape", "over axes other than the batch", "Tile")(tile)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(with_bodies(parse(NETWORK)), path)
    return path


def test_an_operator_without_a_row_is_computed(source: Path) -> None:
    emitted = pascalc.compile(source)
    assert [line for line in emitted.network.not_spiking if "Tile has no spiking form" in line]
    assert [n.steps_in for n in emitted.network.neurons] == [1, 4, 1]
    assert pascalc.verify(source, emitted.output).equivalent
    with pytest.raises(CompileError, match="Tile may mix samples"):
        pascalc.compile(source, dynamic_batch=True)


def test_an_operator_with_a_row_and_a_rule_spikes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(monkeypatch, TILE)
    emitted = pascalc.compile(source, dynamic_batch=True)  # apart
    assert emitted.network.not_spiking == []
    assert [n.steps_in for n in emitted.network.neurons] == [1, 4, 4]  # the rule
    thresholds = {n.name: float(n.threshold) for n in neurons(load(emitted.output))}
    assert thresholds["second"] == 4  # factor: through the operator, into the weights behind it
    check = pascalc.verify(source, emitted.output)
    assert check.equivalent
    assert [(x.name, x.steps_in, x.not_binary) for x in check.layers] == [
        ("first", 1, 0),
        ("second", 4, 0),
        ("third", 4, 0),
    ]
    assert check.computed == []  # bound, linear: it is part of what lies between neurons


def test_a_rule_over_a_row_that_knows_nothing_is_seen(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teach(monkeypatch, Row())
    emitted = pascalc.compile(source)
    check = pascalc.verify(source, emitted.output)
    assert not check.equivalent
    assert [x.operator for x in check.computed] == ["Tile"]
