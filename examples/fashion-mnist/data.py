"""Fashion-MNIST as the example networks want it, and a script that writes the test images as .npz.

    python data.py OUT.npz [--limit N] [--data FOLDER]

The folder holds the four ``*-ubyte.gz`` files of the data set, as the Debian package dataset-fashion-mnist installs
them. OUT.npz gets ``x``, float32 ``[N, 1, 28, 28]``, exactly as the networks want it, and ``y``, int64 ``[N]``.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where the Debian package dataset-fashion-mnist puts the data."""

# Mean and standard deviation of pixel / 255 over the 60,000 training images.
MEAN, STD = 0.2860, 0.3530


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in one gzipped IDX file of unsigned bytes: two zero bytes, type, rank, sizes (big-endian), data."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(folder: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The images, float32 ``[N, 1, 28, 28]``, normalised, and the labels, int64 ``[N]``, of "train" or "t10k"."""
    pixels = read_idx(folder / f"{split}-images-idx3-ubyte.gz")[:, None]
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    images = (pixels.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return images, labels.astype(np.int64)


@click.command(help="Write the test images of Fashion-MNIST to OUT as x and y.")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N images.")
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=DEBIAN_FOLDER, show_default=True)
def main(out: Path, limit: int | None, data: Path) -> None:
    images, labels = load(data, "t10k")
    np.savez_compressed(out, x=images[:limit], y=labels[:limit])


if __name__ == "__main__":
    main()
