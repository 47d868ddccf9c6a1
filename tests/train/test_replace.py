"""replace_relu: what it replaces, and that nothing is left behind in silence."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from pascalc.errors import CompileError  # noqa: E402
from pascalc.train import QCFS, replace_relu  # noqa: E402


def nested() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU6(), nn.Sequential(nn.ReLU(inplace=True)))
    )


def activations(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.ReLU | nn.ReLU6 | QCFS)}


class Forward(nn.Module):
    """A linear layer and a ReLU module, with the forward of a test."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.compute = forward

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.compute(self, x)
        return out


def test_nested_modules_get_a_qcfs_each() -> None:
    model = nested()
    assert replace_relu(model, levels=8, theta=3.0) == ["1", "2.1", "2.2.0"]
    found = activations(model)
    assert list(found) == ["1", "2.1", "2.2.0"]
    assert len({id(module) for module in found.values()}) == 3
    for module in found.values():
        assert isinstance(module, QCFS)
        assert module.levels == 8
        assert module.theta.tolist() == [3.0]
    assert model(torch.randn(2, 4)).shape == (2, 4)


def test_levels_by_name() -> None:
    model = nested()
    replace_relu(model, levels={"1": 4, "2.1": 2, "2.2.0": 1})
    assert [module.levels for module in activations(model).values()] == [4, 2, 1]


@pytest.mark.parametrize(
    ("levels", "node", "message"),
    [
        ({"1": 4, "2.1": 2}, "2.2.0", "no entry"),
        ({"1": 4, "2.1": 2, "2.2.0": 1, "0": 4}, "0", "not a ReLU module"),
        ({"1": 4, "2.1": 2, "2.2.0": 256}, None, "from 1 to 255"),
        (0, None, "from 1 to 255"),
    ],
)
def test_bad_levels_are_refused_and_leave_the_model_alone(levels: Any, node: str | None, message: str) -> None:
    model = nested()
    with pytest.raises(CompileError, match=message) as error:
        replace_relu(model, levels=levels)
    assert error.value.node == node
    assert not any(isinstance(module, QCFS) for module in model.modules())


def test_qcfs_takes_over_mode_and_dtype() -> None:
    model = nested().double()
    model[2].eval()
    replace_relu(model)
    found = activations(model)
    assert [module.training for module in found.values()] == [True, False, False]
    assert all(p.dtype == torch.float64 for p in model.parameters())


def test_one_module_at_two_places_is_refused() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)
    with pytest.raises(CompileError, match=r"2 places \(1, 3\)") as error:
        replace_relu(model)
    assert error.value.node == "1"
    assert model[1] is relu


def test_a_module_called_twice_is_refused() -> None:
    model = Forward(lambda self, x: self.relu(self.linear(self.relu(x))))
    with pytest.raises(CompileError, match="called 2 times") as error:
        replace_relu(model)
    assert error.value.node == "relu"
    assert isinstance(model.relu, nn.ReLU)


def test_a_block_called_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.block(self.block(x))
            return out

    with pytest.raises(CompileError, match="called 2 times") as error:
        replace_relu(Twice())
    assert error.value.node == "block.1"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (F.relu, "relu"),
        (F.relu6, "relu6"),
        (torch.relu, "relu"),
        (torch.relu_, "relu_"),
        (lambda x: x.relu(), "x.relu"),
        (lambda x: x.relu_(), "x.relu_"),
    ],
)
def test_a_functional_relu_is_refused_with_its_place(function: Any, told: str) -> None:
    inner = Forward(lambda self, x: function(self.linear(self.relu(x))))
    model = nn.Sequential(nn.Linear(4, 4), inner)
    with pytest.raises(CompileError, match=rf"forward of this Forward calls .* \({told}\(\)\)") as error:
        replace_relu(model)
    assert error.value.node == "1"
    assert isinstance(inner.relu, nn.ReLU)


def test_a_functional_relu_in_a_nested_module() -> None:
    inner = Forward(lambda self, x: F.relu(self.relu(x)))
    model = nn.Sequential(OrderedDict(outer=nn.Sequential(OrderedDict(inner=inner))))
    with pytest.raises(CompileError) as error:
        replace_relu(model)
    assert error.value.node == "outer.inner"


def test_a_functional_relu_of_the_model_itself() -> None:
    with pytest.raises(CompileError, match=r"forward of this Forward calls .* \(relu\(\)\)") as error:
        replace_relu(Forward(lambda self, x: F.relu(self.relu(x))))
    assert error.value.node is None


def test_a_model_that_cannot_be_traced_is_replaced_with_a_warning() -> None:
    model = Forward(lambda self, x: self.relu(x) if x.sum() > 0 else x)
    with pytest.warns(UserWarning, match="cannot trace the model"):
        assert replace_relu(model) == ["relu"]
    assert isinstance(model.relu, QCFS)


def test_tracing_leaves_nothing_on_the_model() -> None:
    model = Forward(lambda self, x: self.relu(x) + torch.ones(4))
    before = set(vars(model))
    replace_relu(model)
    assert set(vars(model)) == before


def test_a_model_without_relu_is_refused() -> None:
    with pytest.raises(CompileError, match="nothing to replace"):
        replace_relu(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()))


def test_a_model_that_is_a_relu_is_refused() -> None:
    with pytest.raises(CompileError, match="itself a ReLU"):
        replace_relu(nn.ReLU())
