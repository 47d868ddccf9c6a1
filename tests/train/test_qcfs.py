"""QCFS: the formula, its gradients, and what it does with a theta that has no meaning."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pascalc.errors import CompileError  # noqa: E402
from pascalc.train import QCFS  # noqa: E402
from pascalc.train.qcfs import THETA_FLOOR  # noqa: E402
from tests.torch_networks import FloorThenClip  # noqa: E402


def formula(z: np.ndarray, theta: np.float32, levels: int) -> np.ndarray:
    """The module's order of operations in NumPy, float32 throughout."""
    u = np.clip(z / theta, np.float32(0), np.float32(1)) * np.float32(levels)
    return np.floor(u + np.float32(0.5)) / np.float32(levels) * theta


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7, 8, 16, 100, 255])
def test_forward_is_the_formula_bit_for_bit(levels: int) -> None:
    qcfs = QCFS(levels, theta=2.7)
    z = torch.linspace(-1.0, 4.0, 10_001)
    expected = formula(z.numpy(), np.float32(2.7), levels)
    np.testing.assert_array_equal(qcfs(z).detach().numpy(), expected)
    assert len(np.unique(expected)) == levels + 1


def test_both_published_orders_of_floor_and_clip_give_the_same_bits() -> None:
    z = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 3
    assert torch.equal(QCFS(4, theta=1.7)(z), FloorThenClip(4, theta=1.7)(z))


def test_half_points_round_up() -> None:
    # theta = L, so z + 1/2 is what is floored.
    z = torch.tensor([-0.5, 0.4999, 0.5, 1.5, 3.5, 3.4999, 9.0])
    assert QCFS(4, theta=4.0)(z).tolist() == [0.0, 0.0, 1.0, 2.0, 4.0, 3.0, 4.0]


def test_theta_per_channel_acts_along_axis_1() -> None:
    qcfs = QCFS(2, theta=1.0, channels=3)
    with torch.no_grad():
        qcfs.theta.copy_(torch.tensor([1.0, 2.0, 4.0]))
    for shape in [(2, 3), (2, 3, 5), (2, 3, 4, 5)]:
        out = qcfs(torch.full(shape, 10.0))
        assert out.shape == shape
        for channel, theta in enumerate((1.0, 2.0, 4.0)):
            assert (out[:, channel] == theta).all()


def test_gradient_passes_straight_through_floor_and_stops_at_the_clip() -> None:
    qcfs = QCFS(4, theta=2.0)
    z = torch.tensor([-1.0, 0.3, 1.1, 1.9, 5.0], requires_grad=True)
    qcfs(z).backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert z.grad is not None
    # Inside the clip the chain is /theta, *L, /L, *theta: slope 1. Outside: 0.
    assert z.grad.tolist() == pytest.approx([0.0, 2.0, 3.0, 4.0, 0.0])


@pytest.mark.parametrize(("z", "slope"), [(-1.0, 0.0), (0.3, 0.25 - 0.15), (1.1, 0.5 - 0.55), (5.0, 1.0)])
def test_gradient_of_theta(z: float, slope: float) -> None:
    # d(theta*q)/d theta with q = floor(u*L + 1/2)/L and u = z/theta: q - u inside the clip, 0 below, 1 above.
    qcfs = QCFS(4, theta=2.0)
    qcfs(torch.tensor([z])).sum().backward()
    assert qcfs.theta.grad is not None
    assert qcfs.theta.grad.item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("theta", [0.0, -3.0, THETA_FLOOR / 2, -float("inf")])
def test_theta_without_meaning_is_computed_as_the_floor(theta: float) -> None:
    qcfs = QCFS(4)
    with torch.no_grad():
        qcfs.theta.fill_(theta)
    z = torch.tensor([-1.0, 0.0, 1.0])
    assert qcfs.effective_theta().item() == THETA_FLOOR
    for mode in (True, False):
        assert qcfs.train(mode)(z).tolist() == [0.0, 0.0, THETA_FLOOR]


def test_theta_below_the_floor_comes_back_and_is_not_pushed_further_down() -> None:
    qcfs = QCFS(4)
    optimizer = torch.optim.SGD(qcfs.parameters(), lr=0.1)

    def step(target: float) -> float:
        optimizer.zero_grad()
        (qcfs(torch.tensor([10.0])) - target).square().sum().backward()
        optimizer.step()
        return float(qcfs.theta.item())

    with torch.no_grad():
        qcfs.theta.fill_(-0.5)
    assert step(target=-3.0) == -0.5  # a smaller output would be better: the gradient is held back
    for _ in range(100):
        step(target=3.0)
    assert qcfs.theta.item() == pytest.approx(3.0, abs=1e-3)


def test_training_never_meets_a_theta_that_divides_by_zero() -> None:
    # Steps so large that theta jumps across zero again and again.
    qcfs = QCFS(4, theta=0.1)
    optimizer = torch.optim.SGD(qcfs.parameters(), lr=3.0)
    generator = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(200):
        z = torch.randn(64, generator=generator)
        loss = (qcfs(z) - 0.3 * z).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        below += int(qcfs.theta.item() <= 0)
        assert torch.isfinite(loss)
        assert torch.isfinite(qcfs.theta).all()
    assert below > 0


def test_levels_may_change_between_two_passes() -> None:
    qcfs = QCFS(4, theta=1.0)
    z = torch.linspace(0, 1, 1000)
    assert len(qcfs(z).unique()) == 5
    qcfs.levels = 2
    assert len(qcfs(z).unique()) == 3


@pytest.mark.parametrize("levels", [0, -1, 256, 4.0, True, "4", None])
def test_levels_out_of_range_are_refused(levels: object) -> None:
    with pytest.raises(CompileError, match="whole number from 1 to 255"):
        QCFS(levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("theta", [0.0, -1.0, float("nan"), float("inf")])
def test_theta_out_of_range_is_refused(theta: float) -> None:
    with pytest.raises(CompileError, match="theta must be a positive number"):
        QCFS(4, theta=theta)


def test_no_channels_are_refused() -> None:
    with pytest.raises(CompileError, match="channels must be 1 or more"):
        QCFS(4, channels=0)


def test_repr_tells_levels_and_theta() -> None:
    assert repr(QCFS(8, theta=2.5)) == "QCFS(levels=8, theta=2.5)"
    assert repr(QCFS(8, channels=16)) == "QCFS(levels=8, channels=16)"


def test_importing_pascalc_does_not_import_torch() -> None:
    code = "import sys, pascalc; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
