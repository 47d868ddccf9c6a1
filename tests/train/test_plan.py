"""Level histograms of a PyTorch model, plans applied to it, histograms in the exported file."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from pascalc.al import LayerPlan, Plan, make_plan  # noqa: E402
from pascalc.errors import CompileError  # noqa: E402
from pascalc.modelfile import load  # noqa: E402
from pascalc.neurons import neurons  # noqa: E402
from pascalc.passes import ANALYSIS  # noqa: E402
from pascalc.pipeline import run  # noqa: E402
from pascalc.train import QCFS, apply_plan, export, level_histograms  # noqa: E402


class Block(nn.Module):
    """Registers its activation last and calls it first, so the two orders differ."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.late = QCFS(levels=4, theta=2.0, channels=6)
        self.early = QCFS(levels=8, theta=3.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.late(self.linear(self.early(x)))
        return out


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(6), block=Block(), classifier=nn.Linear(6, 3)))


def batches(n: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [4 * torch.randn(16, 6, generator=generator) for _ in range(n)]


def plan(**levels: int) -> Plan:
    return Plan(tuple(LayerPlan(name=name, levels=value) for name, value in levels.items()))


def test_histograms_count_every_activation_exactly() -> None:
    network = model().eval()
    found = level_histograms(network, batches())
    assert list(found) == ["block/early", "block/late"]  # as they are called
    x = torch.cat(batches())
    with torch.no_grad():
        early = network.block.early(network.norm(x))
        late = network.block.late(network.block.linear(early))
    for name, activation, height in (("early", early, 3.0 / 8), ("late", late, 2.0 / 4)):
        levels = np.rint(activation.double().numpy() / height).astype(int)
        expected = np.bincount(levels.ravel(), minlength=found[f"block/{name}"].levels + 1)
        assert found[f"block/{name}"].counts.tolist() == expected.tolist()


@pytest.mark.parametrize("levels", [3, 7, 255])
def test_levels_survive_the_rounding_of_theta(levels: int) -> None:
    """theta * k / L in float32, taken apart again, gives k for every k."""
    qcfs = QCFS(levels=levels, theta=0.7123)
    x = torch.arange(levels + 1) * (0.7123 / levels)
    (histogram,) = level_histograms(nn.Sequential(qcfs), [x[None]]).values()
    assert histogram.counts.tolist() == [1] * (levels + 1)


def test_batches_add_up_and_labels_are_ignored() -> None:
    network = model()
    pairs = ((x, torch.zeros(len(x))) for x in batches())  # a stream, as a DataLoader gives it
    assert level_histograms(network, pairs) == level_histograms(network, [torch.cat(batches())])


def test_the_model_is_left_as_it_was() -> None:
    network = model().train()
    network.block.eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modes = {name: module.training for name, module in network.named_modules()}
    level_histograms(network, batches())
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_after_an_error_too() -> None:
    network = model().train()
    with pytest.raises(CompileError, match=r"calibration batch of shape \[2, 5\]"):
        level_histograms(network, [torch.zeros(2, 5)])
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "no calibration batches"),
        ([np.zeros((2, 6), np.float32)], "must be a tensor"),
        ([torch.zeros(0, 6)], r"shape \[0, 6\]"),
        ([[]], "must be a tensor"),
        ([torch.full((2, 6), float("nan"))], "NaN"),
    ],
)
def test_calibration_that_is_refused(calibration: list[object], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        level_histograms(model(), calibration)  # type: ignore[arg-type]


def test_a_model_without_qcfs_is_refused() -> None:
    with pytest.raises(CompileError, match="no QCFS"):
        level_histograms(nn.Linear(6, 3), batches())


def test_a_plan_sets_the_levels() -> None:
    network = model()
    apply_plan(network, plan(**{"block/early": 2, "block/late": 1}))
    assert (network.block.early.levels, network.block.late.levels) == (2, 1)
    assert network.block.early.theta.item() == 3.0


def test_names_with_dots_and_wrapped_models() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model()

    network = Wrapper()
    apply_plan(network, plan(**{"block.early": 2, "block/late": 3}))
    assert (network.module.block.early.levels, network.module.block.late.levels) == (2, 3)


def test_labels_that_repeat_the_name_of_a_sequential(tmp_path: Path) -> None:
    network = nn.Sequential(OrderedDict(blocks=nn.Sequential(nn.Linear(6, 6), QCFS(8, 2.0), nn.Linear(6, 3), QCFS(8))))
    export(network, torch.zeros(1, 6), tmp_path / "a.onnx")
    source = load(tmp_path / "a.onnx")
    run(source, ANALYSIS)
    labels = [n.name for n in neurons(source)]
    assert labels == ["blocks/blocks.1", "blocks/blocks.3"]
    apply_plan(network, plan(**dict(zip(labels, (2, 4), strict=True))))
    assert [m.levels for m in network.modules() if isinstance(m, QCFS)] == [2, 4]


@pytest.mark.parametrize(
    ("levels", "message", "node"),
    [
        ({"block/early": 2, "block/other": 1}, "no QCFS of the model", "block/other"),
        ({"block": 2, "block/late": 1}, "no QCFS of the model", "block"),
        ({"late": 2, "block.late": 1}, "twice", "block.late"),
        ({"block/early": 2}, "no levels for this QCFS", "block/late"),
    ],
)
def test_plans_that_do_not_fit_change_nothing(levels: dict[str, int], message: str, node: str) -> None:
    network = model()
    with pytest.raises(CompileError, match=message) as error:
        apply_plan(network, plan(**levels))
    assert error.value.node == node
    assert (network.block.early.levels, network.block.late.levels) == (8, 4)


def test_a_name_that_could_be_several_is_refused() -> None:
    network = nn.ModuleList([model(), model()])
    with pytest.raises(CompileError, match="several QCFS: 0/block/early, 1/block/early"):
        apply_plan(network, plan(**{"block/early": 2}))


def test_export_records_the_histograms_under_the_compilers_names(tmp_path: Path) -> None:
    network = model()
    export(network, torch.zeros(1, 6), tmp_path / "a.onnx", calibration=batches())
    (entry,) = onnx.load(tmp_path / "a.onnx").metadata_props
    assert entry.key == "pascalc.histograms"
    recorded = json.loads(entry.value)
    assert recorded == {name: h.counts.tolist() for name, h in level_histograms(network, batches()).items()}
    source = load(tmp_path / "a.onnx")
    run(source, ANALYSIS)
    assert [n.name for n in neurons(source)] == list(recorded)
    # A plan made from a network fits that network.
    apply_plan(network, make_plan(level_histograms(network, batches()), 2, [4, 2]))


def test_without_calibration_there_is_no_record(tmp_path: Path) -> None:
    export(model(), torch.zeros(1, 6), tmp_path / "a.onnx")
    assert not onnx.load(tmp_path / "a.onnx").metadata_props
