"""Samples, read batch by batch: memory does not grow with their number, nor with how many of them are left out.

They come from

- an ``.npz``: a zip of ``.npy`` files, each read through the zip, compressed or not;
- a ``.npy``: the only input of a network, without labels;
- a folder of ``.npz`` files, its shards: one after the other by their names, numbers in these by value (``part-2``
  before ``part-10``);
- arrays in memory.

A ``.npy`` in C order holds sample after sample. Types and shapes are checked when a stream is opened, values with each
batch; a zip's check sums when a file has been read to its end.
"""

from __future__ import annotations

from pascalc.stream.opening import open_samples
from pascalc.stream.samples import Batch, SampleStream, hold

__all__ = ["Batch", "SampleStream", "hold", "open_samples"]
