"""The example layerwise-retraining, run on a few random images."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from pascalc.al import Plan
from pascalc.planning.planner import plan_by_metric

SCRIPT = Path(__file__).parents[2] / "examples" / "layerwise-retraining" / "retrain.py"


def test_the_whole_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (100, 28, 28), np.uint8)),
            ("labels-idx1", rng.integers(0, 10, 100, np.uint8)),
        ):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
            (tmp_path / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    work = tmp_path / "work"
    options = ["--epochs", "3", "--batch", "50", "--threads", "1", "--al-levels", "4,2,1", "--quick"]
    command = [sys.executable, str(SCRIPT), str(work), "--data", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "T_eff is" in done.stdout
    uniform, layerwise = json.loads((work / "results.json").read_text())
    assert uniform["levels"] == [8] * 13
    plan = Plan.read(work / "plan.json")
    assert layerwise["levels"] == [row.levels for row in plan.layers]
    # The exported file alone gives the same plan.
    assert plan_by_metric(work / "uniform.onnx", 3, [4, 2, 1]).plan == plan
    assert layerwise["effective_steps"] < 0.45 * uniform["effective_steps"]
    assert uniform["verified"]
    assert layerwise["verified"]
    assert layerwise["ann_accuracy"] == layerwise["snn_accuracy"]
