"""The verifier's ingredients: the network of absolute products, and the rounding bound that it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import pascalc
from pascalc import pipeline
from pascalc.errors import CompileError
from pascalc.passes import ANALYSIS
from pascalc.probes import Kind
from pascalc.rounding import AbsoluteProducts, allowance
from pascalc.runtime import InferenceSession
from pascalc.verifier.record import LayerCheck, Verification
from tests.helpers import loaded
from tests.small_networks import Array, Builder, images, linear_network, residual_network, rows, write

EPS = float(np.finfo(np.float32).eps)


def absolute(proto: onnx.ModelProto, feeds: dict[str, Array], cuts: dict[str, Array], wanted: str = "y") -> Array:
    """The sums of absolute products of a tensor, as the verifier gets them."""
    model = loaded(proto)
    pipeline.run(model, ANALYSIS)
    network = AbsoluteProducts(model, {name: Kind.of(value) for name, value in cuts.items()}, [wanted], threads=1)
    return network.run(feeds, cuts)[wanted]


def absolute_by_weights(proto: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    """The same for a network without subtractions or neurons: itself in float64, with all parameters and inputs by
    their absolute value."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(values.astype(np.float64)), tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    session = onnx.reference.ReferenceEvaluator(copy)
    return np.asarray(session.run(None, {k: np.abs(v.astype(np.float64)) for k, v in feeds.items()})[0])


def in_float64(proto: onnx.ModelProto, feeds: dict[str, Array]) -> Array:
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float64), tensor.name))
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    session = onnx.reference.ReferenceEvaluator(copy)
    return np.asarray(session.run(None, {k: v.astype(np.float64) for k, v in feeds.items()})[0])


# --- the sums of absolute products --------------------------------------------------------------------------------


def test_a_convolution_summed_by_hand() -> None:
    b = Builder(5)
    proto = b.model({"y": b.conv(b.input("x", ["N", 3, 5, 5]), "conv", (3, 4), strides=[2, 2])}, ["N", 4, 3, 3])
    weight, bias = (numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer)
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)
    padded = np.pad(np.abs(x.astype(np.float64)), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((2, 4, 3, 3))
    for n, o, i, j in np.ndindex(expected.shape):
        window = padded[n, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected[n, o, i, j] = np.sum(np.abs(weight[o]) * window) + abs(bias[o])
    np.testing.assert_allclose(absolute(proto, {"x": x}, {}), expected, rtol=1e-6)


def test_batch_normalization_by_hand() -> None:
    b = Builder(5)
    proto = b.model({"y": b.batch_norm(b.input("x", ["N", 4, 2, 2]), "bn", 4)}, ["N", 4, 2, 2])
    gamma, beta, mean, var = (numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array((-gamma).astype(np.float32), "bn.gamma"))
    x = np.random.default_rng(0).normal(size=(2, 4, 2, 2)).astype(np.float32)
    channel = [v.reshape(1, 4, 1, 1) for v in (gamma, beta, mean, var)]
    expected = (np.abs(x) + np.abs(channel[2])) * channel[0] / np.sqrt(channel[3] + 1e-5) + np.abs(channel[1])
    np.testing.assert_allclose(absolute(proto, {"x": x}, {}), expected, rtol=1e-5)


def test_subtraction_adds_and_division_by_a_constant_scales() -> None:
    b = Builder(5)
    x = b.input("x", ["N", 6])
    left = b.node("Div", [x, b.constant("c", -4.0)], "div")
    right = b.node("Neg", [b.node("Mul", [x, b.constant("d", np.array([1, -2, 3, -4, 5, -6.0]))], "mul")], "neg")
    proto = b.model({"y": b.node("Sub", [left, right], "sub")}, ["N", 6])
    x = rows(3)
    expected = np.abs(x) / 4 + np.abs(x) * np.arange(1, 7)
    np.testing.assert_allclose(absolute(proto, {"x": x}, {}), expected, rtol=1e-6)


def test_padding_with_a_negative_value() -> None:
    b = Builder(5)
    x = b.input("x", ["N", 6])
    pads, value = b.constant("pads", [0, 1, 0, 0], np.int64), b.constant("value", -3.0)
    proto = b.model({"y": b.node("Pad", [x, pads, value], "pad")}, ["N", 7])
    result = absolute(proto, {"x": rows(2)}, {})
    np.testing.assert_array_equal(result, np.abs(np.pad(rows(2), ((0, 0), (1, 0)), constant_values=-3)))


def test_a_softmax_counts_with_the_largest_sum_that_goes_in() -> None:
    b = Builder(5)
    logits = b.gemm(b.input("x", ["N", 6]), "fc", (6, 5))
    proto = b.model({"y": b.node("Softmax", [logits], "softmax", axis=1)})
    weight, bias = (numpy_helper.to_array(t) for t in proto.graph.initializer)
    x = rows(4)
    z = x @ weight.T + bias
    probabilities = np.exp(z - z.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    largest = (np.abs(x) @ np.abs(weight).T + np.abs(bias)).max()
    np.testing.assert_allclose(absolute(proto, {"x": x}, {}), probabilities + largest, rtol=1e-5)


def test_integers_on_the_way_do_not_matter() -> None:
    b = Builder(5)
    x = b.input("x", ["N", 6])
    largest = b.node("Cast", [b.node("ArgMax", [x], "argmax", axis=1, keepdims=1)], "cast", to=onnx.TensorProto.FLOAT)
    proto = b.model({"y": b.node("Add", [x, largest], "add")}, ["N", 6])
    x = rows(3)
    expected = np.abs(x) + x.argmax(1).reshape(3, 1)
    np.testing.assert_allclose(absolute(proto, {"x": x}, {}), expected, rtol=1e-6)


def test_the_sum_is_cut_at_the_neurons() -> None:
    proto = linear_network()
    weight, bias = (numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in ("fc2.weight", "fc2.bias"))
    after = next(n for n in proto.graph.node if n.op_type == "Gemm" and n.name == "fc2").input[0]
    levels = np.random.default_rng(0).integers(0, 5, (3, 12)).astype(np.float32)
    expected = levels @ np.abs(weight).T + np.abs(bias)
    np.testing.assert_allclose(absolute(proto, {"x": rows(3)}, {after: levels}, "logits"), expected, rtol=1e-6)


# --- random networks ----------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Linear networks of one to four steps, without subtractions, and an input."""
    b = Builder(draw(st.integers(0, 10_000)))
    channels = draw(st.sampled_from([2, 4]))
    size = 8
    x = b.input("x", ["N", channels, size, size])
    for index in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "groups", "pool", "max", "add", "concat", "mul"]))
        name = f"{kind}{index}"
        if kind == "conv":
            wider = draw(st.sampled_from([2, 4, 6]))
            x, channels = b.conv(x, name, (channels, wider), draw(st.sampled_from([1, 3]))), wider
        elif kind == "groups":
            weight = b.random(f"{name}.weight", (channels, 1, 3, 3), 0.5)
            x = b.node("Conv", [x, weight], name, pads=[1] * 4, group=channels)
        elif kind in ("pool", "max") and size > 2:
            op = "AveragePool" if kind == "pool" else "MaxPool"
            x, size = b.node(op, [x], name, kernel_shape=[2, 2], strides=[2, 2]), size // 2
        elif kind == "add":
            x = b.node("Add", [x, b.conv(x, f"{name}.conv", (channels, channels))], name)
        elif kind == "concat":
            x = b.node("Concat", [x, b.conv(x, f"{name}.conv", (channels, 2))], name, axis=1)
            channels += 2
        else:
            x = b.node("Mul", [x, b.random(f"{name}.by", (1, channels, 1, 1), 1)], name)
    if draw(st.booleans()):
        x = b.gemm(b.node("Flatten", [x], "flatten"), "head", (channels * size * size, 5))
    feeds = {"x": b.rng.normal(0, 10 ** b.rng.uniform(-2, 2), (2, b_channels(b), 8, 8)).astype(np.float32)}
    rank = 2 if x == "head_out" else 4
    return b.model({"y": x}, ["N", *[None] * (rank - 1)]), feeds


def b_channels(b: Builder) -> int:
    return int(b.inputs[0].type.tensor_type.shape.dim[1].dim_value)


@settings(max_examples=40, deadline=None)
@given(networks())
def test_random_networks_of_absolute_products(case: tuple[onnx.ModelProto, dict[str, Array]]) -> None:
    """MaxPool takes the largest sum of its window, which bounds that of the largest value."""
    proto, feeds = case
    np.testing.assert_allclose(absolute(proto, feeds, {}), absolute_by_weights(proto, feeds), rtol=2e-5)


@settings(max_examples=60, deadline=None)
@given(networks())
def test_float32_is_within_the_bound(case: tuple[onnx.ModelProto, dict[str, Array]]) -> None:
    """Whatever the network and however large its values: the error of float32 sums, optimised or not, is below the
    allowance for one sum of products times the sum of absolute products."""
    proto, feeds = case
    exact = in_float64(proto, feeds)
    bound = allowance(1) * EPS * absolute_by_weights(proto, feeds)
    error = np.abs(InferenceSession(proto.SerializeToString(), threads=1).run(None, feeds)[0] - exact)
    assert np.all(error <= bound)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_residual_networks_of_random_weights_are_equivalent(tmp_path_factory: Any, seed: int) -> None:
    folder = tmp_path_factory.mktemp("random")
    source = write(residual_network(seed), folder / "model.onnx")
    np.savez(folder / "data.npz", x=images(3, seed))
    for schedule in ("unrolled", "collapsed"):
        pascalc.compile(source, folder / "out.onnx", schedule=schedule)
        result = pascalc.verify(source, folder / "out.onnx", folder / "data.npz", threads=1)
        assert result.equivalent, result.findings()


# --- what the figures mean ----------------------------------------------------------------------------------------


def test_a_root_within_the_bound_is_no_difference_and_one_beyond_is() -> None:
    layer = LayerCheck("a", 4, 4, 4, 4, True, root_mismatches=3, max_root_margin=1e-7)
    result = Verification(layers=[layer])
    assert (result.equivalent, result.first_difference, result.findings()) == (True, "", [])
    layer.roots_beyond_bound = 1
    assert (result.equivalent, result.first_difference) == (False, "a")
    assert result.findings() == ["a: 1 root mismatch beyond the rounding bound"]
    assert result.to_json()["equivalent"] is False


def test_what_follows_from_a_root_is_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights off by so much that counts flip: the flips of the layer itself are roots, those behind follow."""
    for module in ("compare", "record"):
        monkeypatch.setattr(f"pascalc.verifier.{module}.MAX_ROOTS_SHOWN", 100)
    source = write(residual_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "out.onnx")
    model = onnx.load(tmp_path / "out.onnx")
    name = next(n for n in model.graph.node if n.name == "conv1").input[1]
    weight = next(t for t in model.graph.initializer if t.name == name)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), name))
    np.savez(tmp_path / "data.npz", x=images(10))
    result = pascalc.verify(source, write(model, tmp_path / "out.onnx"), tmp_path / "data.npz", threads=1, batch=4)
    stem, *rest = result.layers
    assert stem.root_mismatches == stem.count_mismatches == stem.roots_beyond_bound > 0
    assert stem.not_binary == 0
    assert [x.roots_beyond_bound for x in rest] == [0] * 4
    assert any(x.count_mismatches for x in rest)
    assert len(result.roots) == min(100, stem.root_mismatches)
    assert all(r.layer == "stem" and r.margin > r.bound and 0 <= r.sample < 10 for r in result.roots)
    assert {abs(r.count - r.source_count) for r in result.roots} == {1}


def test_the_batch_does_not_matter(tmp_path: Path) -> None:
    source = write(residual_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "out.onnx")
    np.savez(tmp_path / "data.npz", x=images(7))
    results = []
    for batch in (1, 3, 7, 100):
        seen: list[tuple[int, int]] = []
        result = pascalc.verify(
            source,
            tmp_path / "out.onnx",
            tmp_path / "data.npz",
            batch=batch,
            threads=1,
            progress=lambda done, total, seen=seen: seen.append((done, total)),
        )
        assert seen[-1] == (7, 7)
        assert len(seen) == -(-7 // batch)
        results.append([(x.name, x.neurons, x.count_mismatches) for x in result.layers])
    assert results == results[:1] * 4


@pytest.mark.parametrize("levels", [2, 6])
def test_levels_that_the_file_says_it_was_compiled_to(levels: int, tmp_path: Path) -> None:
    """A layer requantised on purpose, and said so in the metadata, is compared with the source at those levels."""
    source = write(linear_network(), tmp_path / "model.onnx")
    pascalc.compile(source, tmp_path / "out.onnx", schedule="collapsed")
    model = onnx.load(tmp_path / "out.onnx")
    (neuron,) = (n for n in model.graph.node if n.op_type == "QCFS")
    next(a for a in neuron.attribute if a.name == "levels").i = levels
    np.savez(tmp_path / "data.npz", x=rows(30))
    for recorded, equivalent in ((4, False), (levels, True)):
        next(p for p in model.metadata_props if p.key == "pascalc.levels").value = json.dumps({"act": recorded})
        write(model, tmp_path / "out.onnx")
        result = pascalc.verify(source, tmp_path / "out.onnx", tmp_path / "data.npz", threads=1)
        assert result.equivalent is equivalent
        assert result.requantised == ({"act": (4, levels)} if equivalent else {})


def verified(network: onnx.ModelProto, x: Array, folder: Path) -> Verification:
    source = write(network, folder / "model.onnx")
    pascalc.compile(source, folder / "out.onnx")
    np.savez(folder / "data.npz", x=x)
    return pascalc.verify(source, folder / "out.onnx", folder / "data.npz", threads=1)


def test_steps_added_up_before_a_computed_operator_widen_the_bound(tmp_path: Path) -> None:
    """A train of 255 steps is accumulated for the Softplus; the neuron behind it integrates one step."""
    b = Builder(0)
    train = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc", (6, 64)), "long", 255, 0.65)
    y = b.qcfs(b.node("Softplus", [train], "softplus"), "short", 1, 1.4)
    result = verified(b.model({"y": y}, ("N", 64)), rows(200), tmp_path)
    assert [(x.name, x.steps_in) for x in result.layers] == [("long", 1), ("short", 1)]
    assert result.equivalent, result.findings()


def test_infinite_currents_are_refused(tmp_path: Path) -> None:
    """Where products overflow, the order of the sum decides: no count is right or wrong."""
    network = linear_network()
    weight = next(t for t in network.graph.initializer if t.name == "fc1.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e38), weight.name))
    with pytest.raises(CompileError, match=r"rounding alone can move .* 'act'"):
        verified(network, rows(20), tmp_path)


def test_nan_in_the_source_is_no_difference_but_refused(tmp_path: Path) -> None:
    b = Builder(0)
    x = b.node("Sqrt", [b.input("x", ["N", 6])], "root")
    y = b.gemm(b.qcfs(x, "act", 4, 1.0), "fc", (6, 5))
    with pytest.raises(CompileError, match=r"source network computes NaN .*'act'"):
        verified(b.model({"y": y}), rows(3), tmp_path)


def test_a_sequence_inside_is_refused(tmp_path: Path) -> None:
    b = Builder(0)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc", (6, 4)), "act", 4, 1.0)
    parts = b.node("SplitToSequence", [x, b.constant("two", 2, np.int64)], "parts", axis=1)
    y = b.gemm(b.node("SequenceAt", [parts, b.constant("place", 1, np.int64)], "second"), "head", (2, 5))
    with pytest.raises(CompileError, match=r"gives a sequence, which cannot be compared \(node 'parts_out'\)\. Export"):
        verified(b.model({"y": y}), rows(3), tmp_path)


def test_zeros_padded_in_front_of_a_max_pool_are_zeros(tmp_path: Path) -> None:
    """onnxruntime's Pad_Fusion takes them for the -inf that MaxPool itself pads with, and changes the source."""
    b = Builder(0)
    train = b.qcfs(b.input("x", ["N", 1, 4, 4]), "act", 4, 1.0)
    x = b.node("Neg", [train], "negative")
    x = b.node("Pad", [x, b.constant("pads", [0, 0, 1, 1, 0, 0, 1, 1], np.int64)], "pad")
    x = b.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.gemm(b.node("Flatten", [x], "flat"), "fc", (9, 5))
    images_ = np.random.default_rng(0).uniform(0.5, 1, (4, 1, 4, 4)).astype(np.float32)
    result = verified(b.model({"y": x}), images_, tmp_path)
    assert result.equivalent, result.findings()
    given = InferenceSession(tmp_path / "model.onnx").run(None, {"x": images_})[0]
    expected = onnx.reference.ReferenceEvaluator(onnx.load(tmp_path / "model.onnx")).run(None, {"x": images_})[0]
    np.testing.assert_allclose(given, expected, rtol=1e-5)


def test_a_normalised_product_of_what_is_also_a_current(tmp_path: Path) -> None:
    """onnxruntime's MatMul_BatchNormalization_Fusion loses what feeds the MatMul and another operator."""
    b = Builder(0)
    x = b.input("x", ["N", 6])
    first = b.qcfs(x, "first", 1, 1.3)
    product = b.node("MatMul", [x, b.random("weight", (6, 4), 0.5)], "product")
    second = b.qcfs(b.batch_norm(product, "bn", 4), "second", 1, 0.6)
    y = b.node("Add", [b.gemm(first, "fc1", (6, 5)), b.gemm(second, "fc2", (4, 5))], "sum")
    result = verified(b.model({"y": y}), rows(20), tmp_path)
    assert result.equivalent, result.findings()
