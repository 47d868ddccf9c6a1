"""The Fashion-MNIST example: its scripts, run on a few random images in the data set's format."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion-mnist"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, n in (("train", 64), ("t10k", 500)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (n, 28, 28), np.uint8)),
            ("labels-idx1", rng.integers(0, 10, n, np.uint8)),
        ):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
            (folder / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def arguments(network: str, data: Path, out: Path) -> list[object]:
    options = {"--data": data, "--batch": 32, "--threads": 1, "--levels": 8, "--epochs": 1, "--out": out}
    return [network, *(part for option in options.items() for part in option)]


def operators(file: Path) -> set[str]:
    return {node.op_type for node in onnx.load(file).graph.node}


def test_resnet_keeps_its_batch_normalizations(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "resnet.onnx"
    assert "epoch 1/1: loss" in run("train.py", *arguments("resnet", data, out))
    assert {"BatchNormalization", "Floor"} <= operators(out)
    assert out.stat().st_size < 2_000_000


def test_vgg_folds_them_and_resumes_from_a_checkpoint(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "vgg.onnx"
    command = [*arguments("vgg", data, out), "--checkpoint", tmp_path / "vgg.pt"]
    assert "epoch 1/1: loss" in run("train.py", *command)
    assert "Floor" in operators(out)
    assert "BatchNormalization" not in operators(out)
    assert out.stat().st_size < 2_000_000
    first = out.read_bytes()
    # The training is done, so the second run only exports what the checkpoint holds.
    assert "epoch" not in run("train.py", *command)
    assert out.read_bytes() == first


def test_data_as_npz(tmp_path: Path, data: Path) -> None:
    run("data.py", tmp_path / "a.npz", "--data", data, "--limit", 7)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        x, y = arrays["x"], arrays["y"]
    assert (x.dtype, x.shape) == (np.float32, (7, 1, 28, 28))
    assert (y.dtype, y.shape) == (np.int64, (7,))
    raw = gzip.decompress((data / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    pixels = np.frombuffer(raw, np.uint8)[: 7 * 28 * 28].reshape(7, 1, 28, 28)
    np.testing.assert_allclose(x, (pixels / 255 - 0.2860) / 0.3530, rtol=1e-5, atol=1e-6)


def test_the_test_images_that_come_with_the_example() -> None:
    with np.load(EXAMPLE / "test-1000.npz", allow_pickle=False) as arrays:
        assert (arrays["x"].dtype, arrays["x"].shape) == (np.float32, (1000, 1, 28, 28))
        assert (arrays["y"].dtype, arrays["y"].shape) == (np.int64, (1000,))
