"""Export: the file computes what the module computes, says it in readable names, and is whole or absent."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import pascalc  # noqa: E402
from pascalc.errors import CompileError  # noqa: E402
from pascalc.train import QCFS, export, replace_relu  # noqa: E402
from pascalc.train.qcfs import THETA_FLOOR  # noqa: E402
from tests.torch_networks import cifar_resnet20, randomise  # noqa: E402


def small(levels: int = 4) -> nn.Sequential:
    """Conv, BatchNormalization, pooling and linear layers, with two QCFS."""
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 3, 3, padding=1, bias=False),
            bn=nn.BatchNorm2d(3),
            pool=nn.MaxPool2d(2),
            act1=nn.ReLU(),
            flatten=nn.Flatten(),
            linear=nn.Linear(48, 6),
            act2=nn.ReLU(),
            out=nn.Linear(6, 5),
        )
    )
    replace_relu(model, levels=levels, theta=2.0)
    randomise(model, torch.Generator().manual_seed(1))
    return model


def images(n: int = 1) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def run(file: Path | bytes, x: Tensor, outputs: list[str] | None = None) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(file if isinstance(file, bytes) else str(file))
    return list(session.run(outputs, {session.get_inputs()[0].name: x.numpy()}))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Constant"]


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("fold_bn", [True, False])
def test_file_computes_what_the_model_computes(tmp_path: Path, fold_bn: bool) -> None:
    model = small().eval()
    file = tmp_path / "small.onnx"
    export(model, images(), file, fold_bn=fold_bn)
    x = images(17)
    (logits,) = run(file, x)
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(x).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fold_bn", [True, False])
def test_spike_counts_are_equal(tmp_path: Path, fold_bn: bool) -> None:
    """Every QCFS output, as a level. (On other images a sum that rounds differently could cross a half point.)"""
    model = small().eval()
    file = tmp_path / "small.onnx"
    export(model, images(), file, fold_bn=fold_bn)
    proto = onnx.load(file)
    outputs = [node.output[0] for node in proto.graph.node if node.name in ("/act1/Mul_1", "/act2/Mul_1")]
    assert len(outputs) == 2
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in outputs)
    x = images(200)
    seen: dict[str, Tensor] = {}
    for name in ("act1", "act2"):
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        model(x)
    for name, found in zip(("act1", "act2"), run(proto.SerializeToString(), x, outputs), strict=True):
        np.testing.assert_array_equal(np.rint(found * 4 / 2.0), torch.round(seen[name] * 4 / 2.0).numpy())


def test_every_level_count_exports(tmp_path: Path) -> None:
    """All of 1..255 in one network, one QCFS each."""

    class All(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(QCFS(levels, theta=1.0 + levels / 100) for levels in range(1, 256))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([part(x) for part in self.parts], dim=1)

    model = All()
    export(model, torch.zeros(1, 3), tmp_path / "all.onnx")
    x = torch.linspace(-0.5, 4.0, 300).reshape(-1, 3)
    np.testing.assert_array_equal(run(tmp_path / "all.onnx", x)[0], model(x).detach().numpy())


def test_names_and_interface(tmp_path: Path) -> None:
    file = tmp_path / "small.onnx"
    export(small(), images(), file)
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    (input_,), (output,) = model.graph.input, model.graph.output
    assert (input_.name, output.name) == ("input", "logits")
    assert [d.dim_param or d.dim_value for d in input_.type.tensor_type.shape.dim] == ["batch", 1, 8, 8]
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", 5]
    names = [node.name for node in model.graph.node]
    for name in ("/conv/Conv", "/pool/MaxPool", "/act1/Div", "/act1/Floor", "/act2/Floor", "/linear/Gemm"):
        assert name in names
    assert set(initializers(model)) == {
        "conv.weight",
        "conv.bias",
        "act1.theta",
        "linear.weight",
        "linear.bias",
        "act2.theta",
        "out.weight",
        "out.bias",
    }
    assert {entry.domain for entry in model.opset_import} == {""}


def test_input_and_output_names_can_be_given(tmp_path: Path) -> None:
    export(small(), images(), tmp_path / "a.onnx", input_name="pixels", output_name="scores")
    model = onnx.load(tmp_path / "a.onnx")
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("pixels", "scores")


def test_chain_of_a_qcfs(tmp_path: Path) -> None:
    export(small(), images(), tmp_path / "a.onnx", fold_bn=False)
    chain = ["Div", "Clip", "Mul", "Add", "Floor", "Div", "Mul"]
    expected = ["Conv", "BatchNormalization", "MaxPool", *chain, "Flatten", "Gemm", *chain, "Gemm"]
    assert operators(onnx.load(tmp_path / "a.onnx")) == expected


def test_batch_normalization_is_folded_or_kept(tmp_path: Path) -> None:
    model = cifar_resnet20()
    for fold_bn, count in ((True, 0), (False, 21)):
        export(model, torch.zeros(1, 3, 32, 32), tmp_path / "r.onnx", fold_bn=fold_bn)
        found = operators(onnx.load(tmp_path / "r.onnx"))
        assert found.count("BatchNormalization") == count
        assert found.count("Conv") == 21
        assert found.count("Floor") == 19
        assert "Identity" not in found


def test_equal_thetas_keep_their_own_names(tmp_path: Path) -> None:
    """torch stores equal initializers once; a threshold has to be its layer's own."""
    export(small(), images(), tmp_path / "a.onnx", fold_bn=False)
    model = onnx.load(tmp_path / "a.onnx")
    for node in model.graph.node:
        if node.name in ("/act1/Div", "/act2/Div"):
            assert node.input[1] == node.name.split("/")[1] + ".theta"
    assert {name: value.tolist() for name, value in initializers(model).items() if "theta" in name} == {
        "act1.theta": [2.0],
        "act2.theta": [2.0],
    }


def test_effective_theta_is_written(tmp_path: Path) -> None:
    model = small()
    with torch.no_grad():
        model.act1.theta.fill_(-4.0)  # type: ignore[union-attr, operator]
    export(model, images(), tmp_path / "a.onnx")
    assert initializers(onnx.load(tmp_path / "a.onnx"))["act1.theta"].tolist() == [THETA_FLOOR]
    assert model.act1.theta.item() == -4.0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_theta_per_channel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    qcfs = QCFS(4, channels=3)
    with torch.no_grad():
        qcfs.theta.copy_(torch.tensor([0.5, 1.0, 2.0]))
    export(nn.Sequential(OrderedDict(act=qcfs)), torch.zeros(shape), tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    assert initializers(model)["act.theta"].shape == (3,) + (1,) * (len(shape) - 2)
    assert operators(model)[:2] == ["Div", "Clip"]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(run(tmp_path / "a.onnx", x)[0], qcfs(x).detach().numpy())


def test_one_qcfs_under_two_names(tmp_path: Path) -> None:
    qcfs = QCFS(4, theta=1.0)
    with torch.no_grad():
        qcfs.theta.fill_(-1.0)
    export(nn.Sequential(qcfs, nn.Sequential(qcfs)), torch.zeros(1, 3), tmp_path / "a.onnx")
    found = initializers(onnx.load(tmp_path / "a.onnx"))
    assert found
    assert all(value.tolist() == [THETA_FLOOR] for value in found.values())


PARTS = {"conv": lambda: nn.Conv2d(3, 4, 1), "relu": nn.ReLU, "relu6": nn.ReLU6, "qcfs": QCFS, "sigmoid": nn.Sigmoid}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("conv", "relu"), ["still has 1 ReLU, computed and not spiking: block.relu", "no QCFS: nothing would spike"]),
        (("conv", "qcfs", "relu", "relu6"), ["2 ReLUs, computed and not spiking: block.relu, block.relu6"]),
        (("conv", "sigmoid"), ["no QCFS: nothing would spike, and `pascalc compile` refuses"]),
        (("conv", "qcfs", "sigmoid"), []),
    ],
)
def test_what_does_not_spike_is_told(parts: tuple[str, ...], told: list[str], tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(block=nn.Sequential(OrderedDict((name, PARTS[name]()) for name in parts))))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        export(model, torch.zeros(1, 3, 4, 4), tmp_path / "a.onnx")
    (text,) = [str(w.message) for w in caught] or [""]
    assert bool(text) == bool(told)
    assert all(part in text for part in told)
    assert ("no QCFS" in text) == ("qcfs" not in parts)
    if text:
        assert caught[0].filename == __file__  # where the export is called
    if "qcfs" not in parts:
        with pytest.raises(CompileError, match="nothing would spike"):
            pascalc.compile(tmp_path / "a.onnx")


def test_a_functional_relu_is_told(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict(act=QCFS(), tail=Apply(torch.relu)))
    with pytest.warns(UserWarning, match="1 ReLU, computed and not spiking: a function in tail"):
        export(model, torch.ones(2, 4), tmp_path / "a.onnx")


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_not_changed(tmp_path: Path, training: bool) -> None:
    model = small().train(training)
    model.bn.eval()  # one part in another mode than the rest
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    export(model, images(4), tmp_path / "a.onnx", fold_bn=False)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert isinstance(model.act1, QCFS)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(p.requires_grad for p in model.parameters())


# What torch's exporters say of themselves and of their own calls.
@pytest.mark.filterwarnings("ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The feature will be removed:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.parametrize("exporter", ["old", "dynamo"])
def test_torch_exports_the_module_itself_as_standard_operators(tmp_path: Path, exporter: str) -> None:
    """Users call torch.onnx.export too: the file of either exporter computes the formula, the guard folded away."""
    model = small().eval()
    file = str(tmp_path / "a.onnx")
    if exporter == "old":
        torch.onnx.export(model, (images(2),), file, dynamo=False, opset_version=18)
    else:
        pytest.importorskip("onnxscript")
        torch.onnx.export(model, (images(2),), file, dynamo=True, verbose=False, external_data=False)
    found = operators(onnx.load(file))
    assert found.count("Floor") == 2
    assert found.count("Div") == 4
    x = images(2)
    with torch.no_grad():
        np.testing.assert_allclose(run(Path(file), x)[0], model(x).numpy(), rtol=1e-5, atol=1e-5)


class Apply(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x @ torch.ones(3, 3), "fails on an input of shape"),
        (lambda x: (x, x), "gives tuple"),
        (lambda x: x.sum(), r"gives a tensor of shape \[\]"),
        (lambda x: x.T.contiguous(), r"gives a tensor of shape \[4, 2\]"),
        (lambda x: x + torch.ones(int(x.shape[0]), 1).cumsum(0), "batch of 2 only"),
        (torch.special.bessel_j0, "cannot export"),
    ],
)
def test_models_that_cannot_be_exported(tmp_path: Path, function: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        export(Apply(function), torch.ones(2, 4), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("theta", [float("nan"), float("inf")])
def test_theta_of_a_diverged_training_is_refused(tmp_path: Path, theta: float) -> None:
    model = small()
    with torch.no_grad():
        model.act2.theta.fill_(theta)  # type: ignore[union-attr, operator]
    with pytest.raises(CompileError, match="not a finite number") as error:
        export(model, images(), tmp_path / "a.onnx")
    assert error.value.node == "act2"


def test_levels_are_checked_again(tmp_path: Path) -> None:
    model = small()
    model.act1.levels = 300  # type: ignore[assignment]
    with pytest.raises(CompileError, match="from 1 to 255"):
        export(model, images(), tmp_path / "a.onnx")


def test_a_model_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    linear = nn.Linear(4, 4)
    linear.cache = linear(torch.ones(1, 4))  # type: ignore[assignment]
    with pytest.raises(CompileError, match="cannot be copied"):
        export(linear, torch.ones(1, 4), tmp_path / "a.onnx")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.onnx"
    export(small(), images(), file)
    before = file.read_bytes()

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CompileError, match="No space left") as error:
        export(small(levels=8), images(), file)
    assert error.value.file == str(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="cannot be written"):
        export(small(), images(), tmp_path / "missing" / "a.onnx")
