"""Whether the verifier can be trusted: compiled networks broken on purpose, one change at a time.

Every break must make the network "not equivalent" and name the first layer that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import pascalc
from pascalc.cli import main
from pascalc.verifier.record import Verification
from tests.small_networks import Array, Builder, images, linear_network, residual_network, rows, write

SAMPLES = 10


class Emitted:
    """A compiled network to be broken."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph

    def node(self, name: str) -> onnx.NodeProto:
        (found,) = (n for n in self.graph.node if n.name == name)
        return found

    def attribute(self, name: str, attribute: str) -> onnx.AttributeProto:
        (found,) = (a for a in self.node(name).attribute if a.name == attribute)
        return found

    def set(self, name: str, **attributes: int) -> None:
        for key, value in attributes.items():
            self.attribute(name, key).i = value

    def edit(self, name: str, index: int, change: Callable[[Array], Array]) -> None:
        """Change an initializer: the given input of the named node."""
        (tensor,) = (t for t in self.graph.initializer if t.name == self.node(name).input[index])
        values = change(numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    def constant(self, name: str, values: Array) -> str:
        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def insert_behind(self, name: str, *nodes: onnx.NodeProto) -> None:
        """Put nodes behind the named one. They take ``<in>`` and give ``<out>``, which all that follows sees."""
        node = self.node(name)
        out, hidden = node.output[0], f"{node.output[0]}/hidden"
        node.output[0] = hidden
        for new in nodes:
            new.input[:] = [hidden if t == "<in>" else t for t in new.input]
            new.output[:] = [out if t == "<out>" else t for t in new.output]
        self.put_behind(name, *nodes)

    def insert_before(self, name: str, index: int, *nodes: onnx.NodeProto) -> None:
        """Put nodes before an input of the named one. They take ``<in>`` and give ``<out>``."""
        node = self.node(name)
        given, changed = node.input[index], f"{node.input[index]}/changed"
        node.input[index] = changed
        for new in nodes:
            new.input[:] = [given if t == "<in>" else t for t in new.input]
            new.output[:] = [changed if t == "<out>" else t for t in new.output]
        position = [n.name for n in self.graph.node].index(name)
        kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in self.graph.node]
        del self.graph.node[:]
        self.graph.node.extend([*kept[:position], *nodes, *kept[position:]])

    def put_behind(self, name: str, *nodes: onnx.NodeProto) -> None:
        position = [n.name for n in self.graph.node].index(name) + 1
        rest = list(self.graph.node)[position:]
        before = list(self.graph.node)[:position]
        kept = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (*before, *nodes, *rest)]
        del self.graph.node[:]
        self.graph.node.extend(kept)


Check = Callable[[onnx.ModelProto], Verification]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mutations")
    write(residual_network(), place / "source.onnx")
    pascalc.compile(place / "source.onnx", place / "unrolled.onnx")
    pascalc.compile(place / "source.onnx", place / "collapsed.onnx", schedule="collapsed")
    np.savez(place / "data.npz", x=images(SAMPLES))
    return place


@pytest.fixture
def emitted(folder: Path) -> Emitted:
    return Emitted(onnx.load(folder / "unrolled.onnx"))


@pytest.fixture
def check(folder: Path, tmp_path: Path) -> Check:
    """Verifies a changed network: in the API, and its exit status and verdict on the command line."""

    def verify(model: onnx.ModelProto) -> Verification:
        broken = write(model, tmp_path / "broken.onnx")
        return pascalc.verify(folder / "source.onnx", broken, folder / "data.npz", batch=SAMPLES, threads=1)

    return verify


def test_what_is_not_broken_is_equivalent(folder: Path, check: Check) -> None:
    for schedule in ("unrolled", "collapsed"):
        result = check(onnx.load(folder / f"{schedule}.onnx"))
        assert (result.equivalent, result.first_difference, result.findings()) == (True, "", [])
        assert [x.levels for x in result.layers] == [4, 8, 2, 4, 3]
        assert all(0 < x.current_excess < 1 and x.not_binary == 0 for x in result.layers)
        assert 0 < result.output_excess < 1


# --- weights, biases and thresholds -------------------------------------------------------------------------------

LAYERS = {"conv1": "stem", "conv2": "left", "conv3": "join", "conv4": "deep", "fc1": "hidden", "fc2": "the outputs"}
STEPS = {"conv2": 4, "conv3": 8, "conv4": 2, "fc1": 4, "fc2": 3}


@pytest.mark.parametrize("layer", STEPS)
def test_a_bias_that_is_not_split(layer: str, emitted: Emitted, check: Check) -> None:
    emitted.edit(layer, 2, lambda bias: bias * np.float32(STEPS[layer]))
    assert check(emitted.model).first_difference == LAYERS[layer]


@pytest.mark.parametrize("layer", LAYERS)
def test_one_weight_off_by_a_thousandth(layer: str, emitted: Emitted, check: Check) -> None:
    def perturb(weight: Array) -> Array:
        flat = weight.reshape(-1)
        flat[np.argsort(np.abs(flat))[flat.size // 2]] *= np.float32(1.001)
        return weight

    emitted.edit(layer, 1, perturb)
    assert check(emitted.model).first_difference == LAYERS[layer]


@pytest.mark.parametrize("layer", ["conv1", "conv3", "fc2"])
def test_one_weight_missing(layer: str, emitted: Emitted, check: Check) -> None:
    emitted.edit(layer, 1, lambda weight: np.where(np.arange(weight.size).reshape(weight.shape) == 7, 0, weight))
    assert check(emitted.model).first_difference == LAYERS[layer]


@pytest.mark.parametrize("layer", ["conv4", "fc2"])
def test_two_channels_swapped(layer: str, emitted: Emitted, check: Check) -> None:
    for index in (1, 2):
        emitted.edit(layer, index, lambda x: x[[1, 0, *range(2, len(x))]])
    assert check(emitted.model).first_difference == LAYERS[layer]


@pytest.mark.parametrize("layer", ["conv2", "fc1"])
def test_two_input_channels_swapped(layer: str, emitted: Emitted, check: Check) -> None:
    emitted.edit(layer, 1, lambda x: x[:, [1, 0, *range(2, x.shape[1])]])
    assert check(emitted.model).first_difference == LAYERS[layer]


NEURONS = ["stem", "left", "join", "deep", "hidden"]


def _ulps(count: int) -> Callable[[Array], Array]:
    return lambda theta: (theta.view(np.int32) + np.int32(count)).view(np.float32)


@pytest.mark.parametrize(("neuron", "ulps"), list(zip(NEURONS, [1000, -1000, -1000, 1000, 1000], strict=True)))
def test_a_threshold_off_by_a_thousand_ulp(neuron: str, ulps: int, emitted: Emitted, check: Check) -> None:
    emitted.edit(f"{neuron}/PascIF", 1, _ulps(ulps))
    assert check(emitted.model).first_difference == neuron


@pytest.mark.parametrize("neuron", NEURONS)
def test_a_threshold_off_by_one_ulp_is_rounding(neuron: str, emitted: Emitted, check: Check) -> None:
    emitted.edit(f"{neuron}/PascIF", 1, _ulps(1))
    assert check(emitted.model).equivalent


@pytest.mark.parametrize(("layer", "value"), [("conv2", np.nan), ("conv2", np.inf), ("fc2", np.nan), ("fc2", -np.inf)])
def test_a_bias_that_is_not_finite(layer: str, value: float, emitted: Emitted, check: Check) -> None:
    emitted.edit(layer, 2, lambda bias: np.where(np.arange(bias.size) == 1, np.float32(value), bias))
    result = check(emitted.model)
    assert result.first_difference == LAYERS[layer]
    assert any("infinite or NaN" in line for line in result.findings())


def test_a_threshold_that_is_nan(emitted: Emitted, check: Check) -> None:
    emitted.edit("join/PascIF", 1, lambda theta: theta * np.float32(np.nan))
    assert check(emitted.model).first_difference == "join"


# --- neurons and their steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("neuron", "more"), list(zip(NEURONS, [1, -1, 1, 1, -1], strict=True)))
def test_levels_changed_by_one(neuron: str, more: int, emitted: Emitted, check: Check) -> None:
    levels = emitted.attribute(f"{neuron}/PascIF", "levels").i + more
    emitted.set(f"{neuron}/PascIF", levels=levels)
    result = check(emitted.model)
    assert result.first_difference == neuron
    assert any(f"{levels} levels" in line for line in result.findings())


@pytest.mark.parametrize(("neuron", "more"), list(zip(NEURONS, [1, -1, 1, 1, -1], strict=True)))
def test_a_train_of_other_length(neuron: str, more: int, emitted: Emitted, check: Check) -> None:
    steps = emitted.attribute(f"{neuron}/PascIF", "steps_out").i + more
    emitted.set(f"{neuron}/PascIF", steps_out=steps)
    result = check(emitted.model)
    assert result.first_difference == neuron
    assert any(f"sends a train of {steps} steps" in line for line in result.findings())


def test_levels_and_steps_changed_together_all_along(emitted: Emitted, check: Check) -> None:
    """A network that runs and is consistent in itself, at another number of levels than the source."""
    emitted.set("hidden/PascIF", levels=2, steps_out=2)
    emitted.set("logits/train/Accumulate", steps=2)
    emitted.edit("fc2", 2, lambda bias: bias * np.float32(1.5))
    result = check(emitted.model)
    assert result.first_difference == "hidden"
    assert "hidden: it has 2 levels, the source's has 3" in result.findings()


@pytest.mark.parametrize(("neuron", "steps"), [("left", 2), ("join", 4), ("deep", 1), ("hidden", 2), ("join", 3)])
def test_a_neuron_that_integrates_too_few_steps(neuron: str, steps: int, emitted: Emitted, check: Check) -> None:
    emitted.set(f"{neuron}/PascIF", steps_in=steps)
    assert check(emitted.model).first_difference == neuron


@pytest.mark.parametrize("neuron", ["stem", "hidden"])
def test_a_membrane_that_starts_at_zero(neuron: str, emitted: Emitted, check: Check) -> None:
    emitted.attribute(f"{neuron}/PascIF", "phi").f = 0.0
    result = check(emitted.model)
    assert result.first_difference == neuron
    assert f"{neuron}: its membrane starts at 0 of a spike, not at 0.5" in result.findings()


def test_an_unknown_label(emitted: Emitted, check: Check) -> None:
    emitted.attribute("join/PascIF", "label").s = b"other"
    result = check(emitted.model)
    assert not result.equivalent
    assert result.findings()[:2] == [
        "the neuron 'join' of the source is not in the compiled network",
        "the neuron 'other' is not in the source network",
    ]


def test_two_labels_swapped(emitted: Emitted, check: Check) -> None:
    emitted.attribute("stem/PascIF", "label").s = b"deep"
    emitted.attribute("deep/PascIF", "label").s = b"stem"
    result = check(emitted.model)
    assert result.first_difference == "stem"
    assert "stem: its activation is not computed by the neuron with its label" in result.findings()


def test_two_neurons_of_one_label(emitted: Emitted, check: Check) -> None:
    emitted.attribute("deep/PascIF", "label").s = b"stem"
    result = check(emitted.model)
    assert not result.equivalent
    assert "two neurons are labelled 'stem'" in result.problems


@pytest.mark.parametrize("neuron", ["stem", "join"])
def test_a_neuron_that_is_missing(neuron: str, emitted: Emitted, check: Check) -> None:
    node = emitted.node(f"{neuron}/PascIF")
    node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output, name=node.name))
    result = check(emitted.model)
    assert not result.equivalent
    assert f"the neuron '{neuron}' of the source is not in the compiled network" in result.problems


# --- time ---------------------------------------------------------------------------------------------------------


def _reordered(emitted: Emitted, neuron: str, order: list[int]) -> None:
    """The neuron's steps in another order; step -1 is silence."""
    steps = len(order)
    zero = helper.make_node("Sub", ["step0", "step0"], ["step-1"])
    split = helper.make_node("Split", ["<in>"], [f"step{i}" for i in range(steps)], axis=0)
    split.input.append(emitted.constant("sizes", np.full(steps, SAMPLES, np.int64)))
    concat = helper.make_node("Concat", [f"step{i}" for i in order], ["<out>"], axis=0)
    emitted.insert_behind(f"{neuron}/PascIF", split, zero, concat)


@pytest.mark.parametrize("neuron", ["left", "hidden"])
def test_a_train_with_a_zero_step_in_front(neuron: str, emitted: Emitted, check: Check) -> None:
    """Its last step is lost."""
    steps = emitted.attribute(f"{neuron}/PascIF", "steps_out").i
    _reordered(emitted, neuron, [-1, *range(steps - 1)])
    result = check(emitted.model)
    assert result.first_difference == neuron
    assert result.layers[NEURONS.index(neuron)].not_binary


@pytest.mark.parametrize("neuron", ["left", "hidden"])
def test_a_train_with_its_spikes_last(neuron: str, emitted: Emitted, check: Check) -> None:
    """Its sum is right, and so is every count; but it is not the train of a PASC neuron."""
    steps = emitted.attribute(f"{neuron}/PascIF", "steps_out").i
    _reordered(emitted, neuron, list(range(steps))[::-1])
    result = check(emitted.model)
    assert result.first_difference == neuron
    layer = result.layers[NEURONS.index(neuron)]
    assert layer.not_binary
    assert layer.root_mismatches == 0


def test_trains_of_unequal_order_into_a_maxpool(emitted: Emitted, check: Check) -> None:
    """Every second channel has its spikes last: the maximum in each step is no longer that of the counts."""
    mask = emitted.constant("mask", (np.arange(6) % 2).astype(bool).reshape(1, 6, 1, 1))
    shape = emitted.constant("by_pixel", np.array([4 * SAMPLES, 6, 12, 12], np.int64))
    indices = emitted.constant("backwards", np.arange(11, -1, -1))
    flip = helper.make_node("Gather", ["<in>", indices], ["flipped"], axis=2)
    keep = helper.make_node("Where", [mask, "flipped", "<in>"], ["mixed"])
    same = helper.make_node("Reshape", ["mixed", shape], ["<out>"])
    emitted.insert_behind("stem/PascIF", flip, keep, same)
    assert check(emitted.model).first_difference == "stem"


def test_a_train_that_is_repeated_instead_of_aligned(emitted: Emitted, check: Check) -> None:
    align = emitted.node("/stem/Mul_6_out/Align")
    repeat = helper.make_node("Concat", [align.input[0]] * 2, align.output, name=align.name, axis=0)
    align.CopyFrom(repeat)
    assert check(emitted.model).first_difference == "join"


def test_a_train_that_is_aligned_to_the_wrong_length(emitted: Emitted, check: Check) -> None:
    emitted.set("/stem/Mul_6_out/Align", steps_out=6)
    result = check(emitted.model)
    assert result.first_difference == "join"
    assert any("cannot be run" in line for line in result.findings())


def test_zero_steps_in_front_are_the_same_current_by_a_foreign_operator(emitted: Emitted, check: Check) -> None:
    """The sum over time is all that a neuron uses, so zero steps in front of a train that only joins others change no
    count. But a Concat along time is none of the compiler's operators, and what it does at other batch sizes shows
    nowhere."""
    align = emitted.node("/stem/Mul_6_out/Align")
    zeros = helper.make_node("Sub", [align.input[0]] * 2, ["zeros"], name="zeros")
    emitted.put_behind("conv3", zeros)
    align = emitted.node("/stem/Mul_6_out/Align")
    align.CopyFrom(helper.make_node("Concat", ["zeros", align.input[0]], align.output, name=align.name, axis=0))
    result = check(emitted.model)
    assert result.findings() == ["the operator '/stem/Mul_6_out/Align' (Concat) is not in the source network"]
    assert sum(x.count_mismatches for x in result.layers) == 0


def test_an_output_that_is_the_mean(emitted: Emitted, check: Check) -> None:
    third = emitted.constant("third", np.float32(1 / 3).reshape(1))
    emitted.insert_behind("logits/train/Accumulate", helper.make_node("Mul", ["<in>", third], ["<out>"]))
    assert check(emitted.model).first_difference == "the outputs"


def test_an_output_that_is_not_accumulated(emitted: Emitted, check: Check) -> None:
    node = emitted.node("logits/train/Accumulate")
    node.CopyFrom(helper.make_node("Identity", node.input, node.output, name=node.name))
    result = check(emitted.model)
    assert result.first_difference == "the outputs"
    assert result.argmax_mismatches == SAMPLES


def test_an_output_that_sums_too_few_steps(emitted: Emitted, check: Check) -> None:
    emitted.set("logits/train/Accumulate", steps=2)
    assert check(emitted.model).first_difference == "the outputs"


# --- operators ----------------------------------------------------------------------------------------------------


def test_maxpool_on_the_wrong_side_of_a_spiking_neuron(emitted: Emitted, check: Check) -> None:
    """The maximum of currents in each step is not the maximum of their sums."""
    neuron, pool = emitted.node("deep/PascIF"), emitted.node("maxpool2")
    current, between, after = neuron.input[0], neuron.output[0], pool.output[0]
    pool.input[0], pool.output[0], neuron.input[0], neuron.output[0] = current, between, between, after
    nodes = {n.name: onnx.NodeProto.FromString(n.SerializeToString()) for n in (neuron, pool)}
    neuron.CopyFrom(nodes["maxpool2"])
    pool.CopyFrom(nodes["deep/PascIF"])
    (info,) = (v for v in emitted.graph.value_info if v.name == between)
    emitted.graph.value_info.remove(info)
    assert check(emitted.model).first_difference == "deep"


@pytest.mark.parametrize(("pool", "neuron"), [("maxpool", "stem"), ("maxpool2", "deep")])
def test_maxpool_replaced_by_averagepool(pool: str, neuron: str, emitted: Emitted, check: Check) -> None:
    emitted.node(pool).op_type = "AveragePool"
    assert check(emitted.model).first_difference == neuron


def test_averagepool_replaced_by_maxpool(emitted: Emitted, check: Check) -> None:
    emitted.node("avgpool").op_type = "MaxPool"
    assert check(emitted.model).first_difference == "hidden"


def test_a_residual_connection_from_elsewhere(emitted: Emitted, check: Check) -> None:
    emitted.node("add").input[1] = emitted.node("add").input[0]
    assert check(emitted.model).first_difference == "join"


def test_other_padding(emitted: Emitted, check: Check) -> None:
    del emitted.node("conv2").attribute[:]
    pads = emitted.node("conv2").attribute.add()
    pads.CopyFrom(helper.make_attribute("pads", [0, 0, 0, 0]))
    result = check(emitted.model)
    assert result.first_difference == "left"


def test_samples_that_are_mixed(emitted: Emitted, check: Check) -> None:
    order = emitted.constant("order", np.r_[1, 0, 2 : 4 * SAMPLES].astype(np.int64))
    emitted.insert_behind("conv2", helper.make_node("Gather", ["<in>", order], ["<out>"], axis=0))
    assert check(emitted.model).first_difference == "left"


@pytest.mark.parametrize("function", ["PascIF", "Accumulate", "Align"])
def test_a_function_body_that_is_not_ours(function: str, emitted: Emitted, check: Check) -> None:
    (body,) = (f for f in emitted.model.functions if f.name == function)
    (last,) = (n for n in body.node if n.output[0] == "Y")
    last.output[0] = "before"
    body.node.append(helper.make_node("Neg", ["before"], ["Y"]))
    result = check(emitted.model)
    assert not result.equivalent
    assert result.problems[0] == f"the file's body of {function} is not this version's"


# --- collapsed networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv1", "conv3", "fc2"])
def test_a_collapsed_network_with_a_wrong_weight(layer: str, folder: Path, check: Check) -> None:
    emitted = Emitted(onnx.load(folder / "collapsed.onnx"))
    emitted.edit(layer, 1, lambda w: w * np.where(np.arange(w.size).reshape(w.shape) == 5, 1.001, 1).astype(np.float32))
    assert check(emitted.model).first_difference == LAYERS[layer]


@pytest.mark.parametrize("neuron", ["left", "hidden"])
def test_a_collapsed_network_with_other_levels(neuron: str, folder: Path, check: Check) -> None:
    emitted = Emitted(onnx.load(folder / "collapsed.onnx"))
    emitted.set(f"{neuron}/QCFS", levels=emitted.attribute(f"{neuron}/QCFS", "levels").i + 1)
    assert check(emitted.model).first_difference == neuron


# --- what is computed, and outputs that are not floats ------------------------------------------------------------


def _head(tmp_path: Path, *tail: tuple[str, dict[str, object]], kind: int = TensorProto.FLOAT) -> tuple[Path, Emitted]:
    """A linear network with operators behind its logits, compiled."""
    b = Builder(3)
    x = b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "act", 4, 1.5)
    x = b.gemm(x, "fc2", (12, 5))
    for op, attributes in tail:
        x = b.node(op, [x], op.lower(), **attributes)
    shape = ["N", 5] if kind == TensorProto.FLOAT else ["N"]
    source = write(b.model({"y": x}, shape, types={"y": kind}), tmp_path / "source.onnx")
    pascalc.compile(source, tmp_path / "out.onnx")
    np.savez(tmp_path / "rows.npz", x=rows(40))
    return source, Emitted(onnx.load(tmp_path / "out.onnx"))


def _verdict(tmp_path: Path, source: Path, emitted: Emitted) -> Verification:
    return pascalc.verify(source, write(emitted.model, tmp_path / "out.onnx"), tmp_path / "rows.npz", threads=1)


HEADS = {
    "softmax": ((("Softmax", {"axis": 1}),), TensorProto.FLOAT),
    "argmax": ((("ArgMax", {"axis": 1, "keepdims": 0}),), TensorProto.INT64),
    "exp": ((("Exp", {}), ("Sigmoid", {})), TensorProto.FLOAT),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_bias_before_a_computed_operator(head: str, tmp_path: Path) -> None:
    source, emitted = _head(tmp_path, *HEADS[head][0], kind=HEADS[head][1])
    assert _verdict(tmp_path, source, emitted).equivalent
    emitted.edit("fc2", 2, lambda bias: bias * np.float32(1.0001))
    assert _verdict(tmp_path, source, emitted).first_difference == head
    emitted.edit("fc2", 2, lambda bias: bias * np.float32(4))
    assert _verdict(tmp_path, source, emitted).first_difference == head


def test_another_computed_operator(tmp_path: Path) -> None:
    source, emitted = _head(tmp_path, ("ArgMax", {"axis": 1, "keepdims": 0}), kind=TensorProto.INT64)
    emitted.node("argmax").op_type = "ArgMin"
    result = _verdict(tmp_path, source, emitted)
    assert result.first_difference == "argmax"
    assert "argmax: the compiled network has another ArgMin in place of the source's ArgMax" in result.findings()


def test_a_computed_operator_with_other_attributes(tmp_path: Path) -> None:
    source, emitted = _head(tmp_path, ("Softmax", {"axis": 1}))
    emitted.attribute("softmax", "axis").i = 0
    assert _verdict(tmp_path, source, emitted).first_difference == "softmax"


def test_a_layer_behind_a_computed_operator(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.node("Sigmoid", [b.qcfs(b.gemm(b.input("x", ["N", 6]), "fc1", (6, 12)), "one", 4, 1.5)], "sigmoid")
    x = b.qcfs(b.gemm(x, "fc2", (12, 8)), "two", 4, 1.1)
    source = write(b.model({"y": b.gemm(x, "fc3", (8, 5))}), tmp_path / "source.onnx")
    pascalc.compile(source, tmp_path / "out.onnx")
    np.savez(tmp_path / "rows.npz", x=rows(40))
    emitted = Emitted(onnx.load(tmp_path / "out.onnx"))
    assert _verdict(tmp_path, source, emitted).equivalent
    emitted.edit("fc2", 1, lambda weight: weight * np.float32(1.0001))
    assert _verdict(tmp_path, source, emitted).first_difference == "two"


# --- on the command line ------------------------------------------------------------------------------------------


def test_the_command_line_says_so_with_status_1(folder: Path, tmp_path: Path, emitted: Emitted) -> None:
    emitted.edit("conv4", 2, lambda bias: bias * np.float32(2))
    broken = write(emitted.model, tmp_path / "broken.onnx")
    arguments = ["verify", str(folder / "source.onnx"), str(broken), "--data", str(folder / "data.npz")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "NOT equivalent: deep"
    assert "deep: its current is off by" in result.stdout
    assert result.stderr == ""


def test_weights_of_another_network(tmp_path: Path) -> None:
    source = write(linear_network(theta=1.5), tmp_path / "a.onnx")
    other = write(linear_network(theta=1.6), tmp_path / "b.onnx")
    pascalc.compile(other, tmp_path / "b.snn.onnx")
    np.savez(tmp_path / "rows.npz", x=rows(30))
    result = pascalc.verify(source, tmp_path / "b.snn.onnx", tmp_path / "rows.npz")
    assert result.first_difference == "act"
