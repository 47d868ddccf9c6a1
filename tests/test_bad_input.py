"""Bad input on the command line: status 2, one readable paragraph on stderr, and nothing written or damaged."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import pascalc
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.passes.apply_correction import ApplyCorrection
from pascalc.runtime import InferenceSession
from tests.small_networks import Builder, linear_network, residual_network, rows, write


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(*arguments: object) -> str:
    """The message of a command that is refused in the way that every command refuses."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    message = result.stderr
    assert message.startswith("pascalc: ")
    assert message.endswith(".\n")
    assert message.count("\n") == 1
    assert "Traceback" not in message
    assert "internal error" not in message
    return message


def compile_refused(model: Path, *words: str, options: tuple[str, ...] = ()) -> str:
    """``compile`` refuses the model, names the file and the words, and leaves the folder as it was."""
    before = {p: p.read_bytes() for p in model.parent.iterdir() if p.is_file()}
    message = refused("compile", model, *options)
    assert str(model) in message
    for word in words:
        assert word in message
    assert {p: p.read_bytes() for p in model.parent.iterdir() if p.is_file()} == before
    return message


# --- files that are no models -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"this is text, not a model\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(1000),
        os.urandom(4096),
        b"\x08\x09",
        onnx.ModelProto(ir_version=9).SerializeToString(),
    ],
    ids=["text", "png", "zeros", "noise", "two bytes", "no graph"],
)
def test_not_an_onnx_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    compile_refused(path, "ONNX", "again")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    compile_refused(tmp_path / "model.onnx", "the file is empty")


def test_a_directory(tmp_path: Path) -> None:
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    compile_refused(folder, "this is a directory", "Name the .onnx file inside it")


def test_a_missing_file(tmp_path: Path) -> None:
    compile_refused(tmp_path / "model.onnx", "No such file or directory")


@pytest.mark.parametrize("command", ["inspect", "eval", "verify"])
def test_every_command_refuses_a_missing_file(command: str, tmp_path: Path) -> None:
    more = {"inspect": [], "eval": ["--data", "d.npz"], "verify": ["other.onnx", "--data", "d.npz"]}[command]
    assert "none.onnx: the file cannot be read: No such file" in refused(command, tmp_path / "none.onnx", *more)


def test_truncated_anywhere(tmp_path: Path) -> None:
    """A cut at a field's end can leave a valid message: then weights or outputs are missing, and that is told."""
    whole = residual_network().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in {1, 2, 3, 7, len(whole) - 1, len(whole) - 2, *range(10, len(whole), len(whole) // 60)}:
        path.write_bytes(whole[:length])
        message = refused("compile", path, "-o", tmp_path / "out.onnx")
        assert "model.onnx: " in message
        assert not (tmp_path / "out.onnx").exists()


def test_flipped_bytes_never_end_in_an_internal_error(tmp_path: Path) -> None:
    whole = bytearray(linear_network().SerializeToString())
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    rng = np.random.default_rng(0)
    refusals = 0
    for position in rng.choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        result = run("compile", path, "-o", out)
        assert "internal error" not in result.stderr, (position, result.stderr)
        assert result.exit_code in (0, 2)
        assert out.exists() == (result.exit_code == 0)
        out.unlink(missing_ok=True)
        refusals += result.exit_code == 2
    assert refusals > 10


# --- networks that cannot be compiled -----------------------------------------------------------------------------


def _model(tmp_path: Path, *operators: str, opset: int = 17) -> Path:
    b = Builder(1)
    x = b.gemm(b.input("x", ["N", 6]), "fc", (6, 5))
    for op in operators:
        x = b.node(op, [x], op.lower())
    options = {"opset_imports": [helper.make_opsetid("", opset)]}
    return write(b.model({"y": x}, **options), tmp_path / "model.onnx")


def test_no_qcfs_lists_the_activations(tmp_path: Path) -> None:
    compile_refused(_model(tmp_path, "Relu", "Sigmoid"), "no QCFS activation", "Relu (1), Sigmoid (1)", "replace_relu")


def test_no_activation_at_all(tmp_path: Path) -> None:
    compile_refused(_model(tmp_path), "no QCFS activation", "Its activations: none")


def test_nearly_qcfs_gives_the_reason(tmp_path: Path) -> None:
    compile_refused(_model(tmp_path, "Floor"), "Nearly QCFS: floor: not QCFS: nothing bounds it", "Floor (1)")


@pytest.mark.parametrize("theta", [0.0, -1.5, np.nan], ids=str)
def test_a_threshold_that_is_not_positive(theta: float, tmp_path: Path) -> None:
    path = write(linear_network(theta=theta), tmp_path / "model.onnx")
    compile_refused(path, "threshold is zero, negative or NaN", "(node '/act/Floor_4')", "larger initial threshold")


def test_one_channel_of_a_threshold_that_is_negative(tmp_path: Path) -> None:
    path = write(linear_network(theta=np.r_[np.ones(11), -1].reshape(1, 12)), tmp_path / "model.onnx")
    compile_refused(path, "threshold is zero, negative or NaN", "(node '/act/Floor_4')")


@pytest.mark.parametrize("schedule", ["unrolled", "collapsed"])
@pytest.mark.parametrize(
    ("theta", "levels", "reason"),
    [
        (5e-38, 32, "a threshold of 5e-38 is too small for 32 levels"),
        (np.r_[np.ones(11), 1e-37].reshape(1, 12), 32, "a threshold of 1e-37 is too small for 32 levels"),
        (1e-44, 1, "too small for 1 levels"),
        (3e38, 2, "a threshold of 3e+38 is too large for 2 levels"),
    ],
    ids=["gain overflows", "one channel", "subnormal", "gain subnormal"],
)
def test_a_threshold_beyond_the_normal_floats(
    theta: Any, levels: int, reason: str, schedule: str, tmp_path: Path
) -> None:
    path = write(linear_network(levels, theta), tmp_path / "model.onnx")
    compile_refused(path, reason, "(node 'act')", "It must lie from", options=("--schedule", schedule))


@pytest.mark.parametrize(("dtype", "theta"), [(np.float32, 5e-38), (np.float64, 1e-307)], ids=["float32", "float64"])
def test_a_threshold_of_an_operator_beyond_the_normal_floats(dtype: Any, theta: float, tmp_path: Path) -> None:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node("QCFS", ["x", "t"], ["y"], domain="ai.pascalc", levels=32, phi=0.5, label="act")
    values = [helper.make_tensor_value_info(name, kind, ["N", 3]) for name in "xy"]
    threshold = numpy_helper.from_array(np.asarray(theta, dtype), "t")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.pascalc", 1)]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [threshold])
    path = write(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "model.onnx")
    compile_refused(path, "is too small for 32 levels", f"not a normal {np.dtype(dtype).name}", "(node 'act')")


@pytest.mark.parametrize(
    ("gamma", "variance", "epsilon"), [(1, 0, 0), (0, 0, 0), (1, -1, 1e-5), (3e38, 1e-10, 0)], ids=str
)
def test_a_batch_normalization_that_gives_no_numbers(
    gamma: float, variance: float, epsilon: float, tmp_path: Path
) -> None:
    b = Builder(5)
    x = b.qcfs(b.input("x", ["N", 2, 2, 2]), "act", 4)
    model = b.model({"y": b.qcfs(b.batch_norm(x, "bn", 2), "second", 4)})
    for tensor in model.graph.initializer:
        if tensor.name in ("bn.gamma", "bn.var"):
            value = gamma if tensor.name == "bn.gamma" else variance
            tensor.CopyFrom(numpy_helper.from_array(np.full(2, value, np.float32), tensor.name))
    node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    node.attribute.append(helper.make_attribute("epsilon", float(epsilon)))
    path = write(model, tmp_path / "model.onnx")
    compile_refused(
        path, "gives infinite values or NaN, whatever goes in", f"(node '{node.name}')", "train or export again"
    )


def test_a_threshold_that_only_other_levels_or_a_correction_take_beyond_the_normal_floats(tmp_path: Path) -> None:
    path = write(linear_network(2, 1e-37), tmp_path / "model.onnx")
    pascalc.compile(path)
    with pytest.raises(CompileError, match="too small for 32 levels"):
        pascalc.compile(path, tmp_path / "more.onnx", levels={"act": 32}, save_ann=tmp_path / "ann.onnx")
    correction = ApplyCorrection({}, {"act": np.float64(1e-39)})
    with pytest.raises(CompileError, match="a threshold of 1e-39 is too small"):
        pascalc.compile(path, tmp_path / "more.onnx", correction=correction)
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "model.snn.onnx"}


def test_levels_that_are_not_an_integer(tmp_path: Path) -> None:
    path = write(linear_network(levels=3.3), tmp_path / "model.onnx")
    compile_refused(path, "number of levels, 3.3, is not an integer", "(node '/act/Floor_4')")


def test_an_input_without_rank(tmp_path: Path) -> None:
    model = linear_network()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    compile_refused(write(model, tmp_path / "model.onnx"), "rank", "(node 'x')")


@pytest.mark.parametrize("kind", ["sequence", "optional"])
def test_an_output_that_is_no_tensor(kind: str, tmp_path: Path) -> None:
    model = linear_network()
    tensor = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["N", 5])
    operator, wrap = {
        "sequence": ("SequenceConstruct", onnx.helper.make_sequence_type_proto),
        "optional": ("Optional", onnx.helper.make_optional_type_proto),
    }[kind]
    model.graph.node.append(onnx.helper.make_node(operator, [model.graph.output[0].name], ["wrapped"]))
    model.graph.output.append(onnx.helper.make_value_info("wrapped", wrap(tensor)))
    source = write(model, tmp_path / "model.onnx")
    compile_refused(source, f"an output is not a tensor ({kind})", "'wrapped'", "tensors as outputs")


def test_float16(tmp_path: Path) -> None:
    model = linear_network()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    compile_refused(write(model, tmp_path / "model.onnx"), "float16", "(node 'x')", "Export it in float32")


@pytest.mark.parametrize(
    ("name", "values", "word"),
    [
        ("bn1.mean", np.zeros(5, np.float32), "bn1"),
        ("fc1.weight", np.ones((16, 32), np.uint32), "fc1"),
        ("conv3.weight", np.ones(6, np.float32), "conv3"),
    ],
)
def test_weights_that_contradict_one_another(name: str, values: Any, word: str, tmp_path: Path) -> None:
    network = residual_network()
    tensor = next(t for t in network.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    compile_refused(write(network, tmp_path / "model.onnx"), "do not fit together", word)


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("conv3.weight", (6, 5, 3, 3), "weight [6, 5, 3, 3] is for 5 input channels, not 6"),
        ("conv3.bias", (5,), "bias [5] is not for 6 output channels"),
        ("conv3.bias", (1, 6), "bias [1, 6] is not for 6 output channels"),
    ],
)
def test_weights_that_do_not_fit_their_input(name: str, shape: tuple[int, ...], reason: str, tmp_path: Path) -> None:
    network = residual_network()
    tensor = next(t for t in network.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), name))
    compile_refused(write(network, tmp_path / "model.onnx"), reason, name.split(".")[0])


@pytest.mark.parametrize("name", ["conv1.weight", "fc2.weight"])
def test_weights_that_overflow_when_something_is_folded_into_them(name: str, tmp_path: Path) -> None:
    network = residual_network()
    tensor = next(t for t in network.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), 3e38), name))
    hidden = next(t for t in network.graph.initializer if t.name == "hidden.6")
    hidden.CopyFrom(numpy_helper.from_array(np.float32(4.8), hidden.name))
    for node in network.graph.node:
        if node.name == "/hidden/Div_0":
            node.input[1] = hidden.name
    message = compile_refused(write(network, tmp_path / "model.onnx"), "exceed the largest float")
    assert name.split(".")[0] in message


def test_a_type_that_numpy_does_not_have_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = linear_network()
    network.graph.initializer.append(helper.make_tensor("odd", TensorProto.FLOAT8E4M3FN, [2], [1.0, 2.0]))
    network.graph.value_info.append(helper.make_tensor_value_info("odd2", TensorProto.BFLOAT16, [2]))
    network.graph.node.append(helper.make_node("Cast", ["logits"], ["odd2"], to=TensorProto.BFLOAT16))
    pascalc.compile(write(network, tmp_path / "model.onnx"), tmp_path / "out.onnx")
    assert capfd.readouterr() == ("", "")


def test_an_opset_newer_than_known(tmp_path: Path) -> None:
    model = linear_network()
    newest = onnx.defs.onnx_opset_version()
    model.opset_import[0].version = newest + 1
    compile_refused(write(model, tmp_path / "m.onnx"), f"opset {newest + 1} is newer", f"Export with opset {newest} or")


def test_an_opset_too_old_to_convert(tmp_path: Path) -> None:
    b = Builder()
    x = b.node("Dropout", [b.input("x", ["N", 5])], "dropout", is_test=0)
    model = b.model({"y": b.node("Floor", [x], "floor")}, opset_imports=[helper.make_opsetid("", 6)])
    compile_refused(
        write(model, tmp_path / "m.onnx"), "opset 6 cannot be converted", "Export the model again with opset"
    )


def test_a_graph_with_a_cycle(tmp_path: Path) -> None:
    model = linear_network()
    model.graph.node[0].input[0] = "act_out"
    model.graph.node[1].output[0] = "act_out"
    compile_refused(write(model, tmp_path / "model.onnx"), "not a valid ONNX model")


def test_a_network_that_spikes_already(tmp_path: Path) -> None:
    pascalc.compile(write(linear_network(), tmp_path / "model.onnx"), tmp_path / "snn.onnx")
    compile_refused(tmp_path / "snn.onnx", "spiking network already", "(node '")


# --- reshapes with a baked-in batch -------------------------------------------------------------------------------


def _reshaping(tmp_path: Path, target: list[int]) -> Path:
    b = Builder(2)
    x = b.qcfs(b.conv(b.input("x", [4, 2, 4, 4]), "conv", (2, 3)), "act", 4)
    x = b.node("Reshape", [x, b.constant("target", target, np.int64)], "reshape")
    rows_out, inputs = target[0], 4 * 48 // target[0]
    return write(b.model({"y": b.gemm(x, "fc", (inputs, 5))}, [rows_out, 5]), tmp_path / "model.onnx")


def test_a_reshape_with_a_baked_in_batch_that_keeps_samples_whole(tmp_path: Path) -> None:
    path = _reshaping(tmp_path, [4, 48])
    result = run("compile", path, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0
    assert "not spiking" not in result.stdout
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(8, 2, 4, 4)).astype(np.float32))
    assert pascalc.verify(path, tmp_path / "out.onnx", tmp_path / "data.npz").equivalent


def test_a_reshape_that_mixes_samples_is_computed_and_stated(tmp_path: Path) -> None:
    path = _reshaping(tmp_path, [2, 96])
    result = run("compile", path, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0
    assert "Computed, not spiking (1): reshape: Reshape: " in result.stdout
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(4, 2, 4, 4)).astype(np.float32))
    outputs = [
        InferenceSession(p).run(None, {"x": np.load(tmp_path / "data.npz")["x"]})[0]
        for p in (path, tmp_path / "out.onnx")
    ]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


# --- external data ------------------------------------------------------------------------------------------------


def _external(folder: Path) -> Path:
    folder.mkdir()
    model = linear_network()
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data_that_is_there(tmp_path: Path) -> None:
    path = _external(tmp_path / "a")
    assert run("compile", path, "-o", tmp_path / "out.onnx").exit_code == 0
    assert (tmp_path / "a" / "weights.bin").stat().st_size > 0


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    path = _external(tmp_path / "a")
    (tmp_path / "a" / "weights.bin").unlink()
    compile_refused(path, "external data file 'weights.bin' is missing", "(node '", "Copy it beside the model")


def test_external_data_that_is_too_short(tmp_path: Path) -> None:
    path = _external(tmp_path / "a")
    with (tmp_path / "a" / "weights.bin").open("r+b") as file:
        file.truncate(50)
    compile_refused(path, "'weights.bin' (50 bytes)", "(node '", "damaged or of another model")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin"])
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    path = _external(tmp_path / "a")
    (tmp_path / "weights.bin").write_bytes((tmp_path / "a" / "weights.bin").read_bytes())
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    compile_refused(path, f"'{location}' lies outside the model's folder", "(node '", "Keep external data beside")


# --- outputs that cannot be written -------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(linear_network(), tmp_path / "model.onnx")


def test_an_output_in_a_folder_that_does_not_exist(model: Path, tmp_path: Path) -> None:
    message = refused("compile", model, "-o", tmp_path / "none" / "out.onnx")
    told = (
        f"the output cannot be written: the folder {tmp_path / 'none'} does not exist. Nothing was written; create it"
    )
    assert f"{tmp_path / 'none' / 'out.onnx'}: {told}" in message
    (tmp_path / "link.onnx").symlink_to(tmp_path / "gone" / "out.onnx")
    assert f"the folder {tmp_path / 'gone'} does not exist" in refused("compile", model, "-o", tmp_path / "link.onnx")
    (tmp_path / "link.onnx").unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_an_output_that_is_a_directory(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out.onnx").mkdir()
    assert "out.onnx: the output cannot be written: Is a directory" in refused(
        "compile", model, "-o", tmp_path / "out.onnx"
    )
    assert list((tmp_path / "out.onnx").iterdir()) == []


def test_an_output_below_a_file(model: Path, tmp_path: Path) -> None:
    message = refused("compile", model, "-o", model / "out.onnx")
    assert "cannot be written: Not a directory" in message
    assert "choose a writable place" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_an_output_in_a_read_only_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused("compile", model, "-o", tmp_path / "locked" / "out.onnx")


@pytest.mark.parametrize("way", ["same", "relative", "link"])
def test_an_output_that_is_the_source(way: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model.read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.onnx").symlink_to(model)
    output = {"same": model, "relative": Path("sub/../model.onnx"), "link": Path("link.onnx")}[way]
    (tmp_path / "sub").mkdir()
    assert "the output would overwrite the source. Choose another -o FILE." in refused("compile", model, "-o", output)
    assert model.read_bytes() == content


def test_a_report_that_would_overwrite_an_input(model: Path, tmp_path: Path) -> None:
    content = model.read_bytes()
    np.savez(tmp_path / "data.npz", x=rows(2))
    out = tmp_path / "out.onnx"
    for arguments in (
        ["compile", model, "-o", out, "--json", model],
        ["compile", model, "-o", out, "--json", out],
        ["inspect", model, "--json", model],
        ["eval", model, "--data", tmp_path / "data.npz", "--json", tmp_path / "data.npz"],
        ["verify", model, model, "--data", tmp_path / "data.npz", "--json", model],
        ["eval", model, "--data", tmp_path, "--json", tmp_path / "data.npz"],
        ["eval", model, "--data", tmp_path, "--json", tmp_path / "new.npz"],
    ):
        assert "the report would overwrite" in refused(*arguments)
    assert model.read_bytes() == content
    assert not out.exists()


def test_an_output_that_is_a_pipe_stays_one(model: Path, tmp_path: Path) -> None:
    """So do devices, such as /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-c", "from pascalc.cli import main; main()", "compile", str(model), "-o", str(pipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        content = pipe.read_bytes()
        assert process.wait(100) == 0
    assert pipe.is_fifo()
    assert [n.op_type for n in onnx.load_from_string(content).graph.node].count("PascIF") == 1


_FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from pascalc.cli import main
from pascalc.errors import CompileError
from pascalc.passes.apply_correction import ApplyCorrection
main(sys.argv[2:])
"""


@pytest.mark.parametrize("room", [0, 3000, 8000])
def test_a_disk_that_is_full_half_way(room: int, tmp_path: Path) -> None:
    model = write(residual_network(), tmp_path / "model.onnx")
    out = tmp_path / "out.onnx"
    out.write_bytes(b"what was there before")
    command = [sys.executable, "-c", _FULL_DISK, str(room), "compile", str(model), "-o", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert result.returncode == 2
    assert f"{out}: the output cannot be written: File too large. Nothing was written" in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "out.onnx"]
    assert out.read_bytes() == b"what was there before"


# --- options ------------------------------------------------------------------------------------------------------


def test_an_unknown_pass(model: Path) -> None:
    message = refused("compile", model, "--stop-after", "unroll")
    assert "there is no pass 'unroll'" in message
    assert "unroll-time, avoid-fusions, verify-types." in message


@pytest.mark.parametrize(
    "options",
    [["--schedule", "both"], ["--neuron", "lif"], ["--unknown"], ["a.onnx", "b.onnx"]],
    ids=lambda o: o[0],
)
def test_usage_errors(options: list[str], model: Path, tmp_path: Path) -> None:
    result = run("compile", model, *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("option", ["--limit", "--batch"])
@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_counts_that_are_not_positive(option: str, value: str, model: Path) -> None:
    result = run("eval", model, "--data", "d.npz", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


def test_a_dump_folder_that_is_a_file(model: Path, tmp_path: Path) -> None:
    message = refused("compile", model, "-o", tmp_path / "out.onnx", "--dump-ir", model)
    assert f"{model}: the folder cannot be made: File exists" in message
    assert not (tmp_path / "out.onnx").exists()


def test_debug_raises_the_error_itself(tmp_path: Path) -> None:
    result = run("--debug", "compile", tmp_path / "none.onnx")
    assert isinstance(result.exception, pascalc.CompileError)


# --- data ---------------------------------------------------------------------------------------------------------


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _zip(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def _corrupt() -> bytes:
    """Compressed data that does not decompress."""
    stream = io.BytesIO()
    np.savez_compressed(stream, x=rows(200))
    content = bytearray(stream.getvalue())
    content[300:340] = bytes(40)
    return bytes(content)


_X = rows(4)
_NAN = np.where(np.arange(24).reshape(4, 6) == 8, np.float32(np.nan), _X)

BAD_DATA: dict[str, tuple[bytes, str]] = {
    "text": (b"x,y\n1,2\n", "not an .npz of plain arrays"),
    "empty": (b"", "not an .npz of plain arrays"),
    "one array of objects": (_npy(np.array([{}, None], object)), "it is not a .npy of plain numbers"),
    "one torn array": (_npy(_X)[:140], "the data is truncated"),
    "truncated": (_npz(x=_X)[:150], "not an .npz of plain arrays"),
    "corrupt": (_corrupt(), "the data is damaged"),
    "pickled": (_npz(x=np.array([{}, None], object)), "not an .npz of plain arrays"),
    "no arrays": (_zip(), "no array for the input 'x' (the file has none)"),
    "no array of the format": (_zip(x=b"1, 2, 3"), "'x' is not an array"),
    "array without data": (_zip(x=_npy(_X)[:130]), "the data is truncated"),
    "other name": (_npz(images=_X, y=np.zeros(4, int)), "no array for the input 'x' (the file has images, y)"),
    "float64": (_npz(x=_X.astype(np.float64)), "'x' is float64, but the input 'x' wants float32"),
    "uint8": (_npz(x=_X.astype(np.uint8)), "'x' is uint8, but the input 'x' wants float32"),
    "shape": (_npz(x=_X[:, :5]), "'x' has shape [4, 5], but the input 'x' wants samples of 6"),
    "rank": (_npz(x=_X[0]), "'x' has shape [6], but the input 'x' wants samples of 6"),
    "scalar": (_npz(x=np.float32(1)), "'x' has shape [], but the input 'x' wants samples of 6"),
    "nan": (_npz(x=_NAN), "'x' holds NaN or infinite values"),
    "infinite": (_npz(x=np.full((2, 6), np.inf, np.float32)), "'x' holds NaN or infinite values"),
    "no samples": (_npz(x=_X[:0]), "'x' holds no samples"),
    "float labels": (_npz(x=_X, y=np.zeros(4)), "'y' must be one integer a sample, not float64 [4]"),
    "one-hot labels": (_npz(x=_X, y=np.eye(4, 5, dtype=int)), "'y' must be one integer a sample, not int64 [4, 5]"),
    "too few labels": (_npz(x=_X, y=np.zeros(3, int)), "'y' does not have one label a sample"),
    "labels of no class": (
        _npz(x=_X, y=np.array([0, 4, 5, 1])),
        "'y' holds the label 5, but the network has 5 classes",
    ),
    "negative labels": (_npz(x=_X, y=np.array([0, 4, -1, 1])), "'y' holds the label -1, but the network has 5 classes"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(case: str, model: Path, tmp_path: Path) -> None:
    content, expected = BAD_DATA[case]
    data = tmp_path / "data.npz"
    data.write_bytes(content)
    message = refused("eval", model, "--data", data)
    assert f"{data}: " in message
    assert expected in message


_CALIB = ["-o", "/dev/null", "--calib"]


def test_data_that_cannot_be_read(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    reason = "No such file or directory."
    for command in (["eval", model, "--data"], ["verify", model, model, "--data"], ["histogram", model, *_CALIB]):
        # and not how data is saved: it is the path that is wrong
        assert refused(*command, data).rstrip() == f"pascalc: {data}: the data cannot be read: {reason}"
    data.mkdir()
    assert f"{data}: the folder holds no .npz files." in refused("eval", model, "--data", data)


def test_a_folder_that_does_not_exist(model: Path, tmp_path: Path) -> None:
    for command in (["inspect"], ["eval", model, "--data"], ["compile", model, "--plan"]):
        message = refused(*command, tmp_path / "none" / "file")
        assert f"No such file or directory. There is no folder {tmp_path / 'none'}." in message


def test_stdin_by_a_dash(model: Path, tmp_path: Path) -> None:
    for command in (["compile"], ["inspect"], ["eval", model, "--data"], ["histogram", model, *_CALIB]):
        assert "'-' is not stdin here, which is not read: write the file to disk" in refused(*command, "-")
    for command in (["compile", model, "--plan"], ["plan", model, "--al-clusters", 1, "--histograms"]):
        assert "'-' is not stdin here: write /dev/stdin." in refused(*command, "-")


def test_data_damaged_anywhere(model: Path, tmp_path: Path) -> None:
    whole = _npz(x=_X, y=np.zeros(4, int))
    data = tmp_path / "data.npz"
    for position in range(0, len(whole), 7):
        for damaged in (whole[:position], whole[:position] + b"\xff" + whole[position + 1 :]):
            data.write_bytes(damaged)
            result = run("eval", model, "--data", data)
            assert "internal error" not in result.stderr, (position, result.stderr)
            assert result.exit_code in (0, 2)


# --- verify of what does not belong together ----------------------------------------------------------------------


def test_verify_of_unrelated_networks(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(4))
    pascalc.compile(write(residual_network(), tmp_path / "other.onnx"), tmp_path / "other.snn.onnx")
    message = refused("verify", model, tmp_path / "other.snn.onnx", "--data", tmp_path / "data.npz")
    assert f"{tmp_path / 'other.snn.onnx'}: it has no neuron of the source network" in message


def test_verify_of_a_source_against_itself(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(4))
    assert "it has no neuron of the source network" in refused("verify", model, model, "--data", tmp_path / "data.npz")


def test_verify_the_wrong_way_round(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(4))
    pascalc.compile(model, tmp_path / "snn.onnx")
    message = refused("verify", tmp_path / "snn.onnx", model, "--data", tmp_path / "data.npz")
    assert "spiking network already" in message


def test_verify_of_networks_with_other_interfaces(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(4))
    pascalc.compile(model, tmp_path / "snn.onnx")
    changed = onnx.load(tmp_path / "snn.onnx")
    changed.graph.output[0].name = changed.graph.node[-1].output[0] = "scores"
    write(changed, tmp_path / "snn.onnx")
    message = refused("verify", model, tmp_path / "snn.onnx", "--data", tmp_path / "data.npz")
    assert "its inputs and outputs are not those of the source" in message


def test_verify_with_a_neuron_that_lacks_an_attribute(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=rows(4))
    pascalc.compile(model, tmp_path / "snn.onnx")
    changed = onnx.load(tmp_path / "snn.onnx")
    (neuron,) = (n for n in changed.graph.node if n.op_type == "PascIF")
    neuron.attribute.remove(next(a for a in neuron.attribute if a.name == "levels"))
    write(changed, tmp_path / "snn.onnx")
    message = refused("verify", model, tmp_path / "snn.onnx", "--data", tmp_path / "data.npz")
    assert "snn.onnx: " in message
    assert "levels" in message
