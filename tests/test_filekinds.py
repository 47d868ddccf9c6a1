"""Files that are not what a command wants: the message says what they are and what to do, whatever their names."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.printer
import pytest
from click.testing import CliRunner
from google.protobuf import json_format, text_format

from pascalc.cli import main
from pascalc.filekinds import kind_of, kind_of_file
from tests.small_networks import linear_network, rows, write


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            file.writestr(name, b"content")
    return stream.getvalue()


def arrays(save: Callable[..., None], *args: object, **named: object) -> bytes:
    stream = io.BytesIO()
    save(stream, *args, **named)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        file.addfile(tarfile.TarInfo("model.onnx"))
    return stream.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message; short enough for lengths of one byte."""
    return bytes([number << 3 | 2, len(content)]) + content


NODE = field(1, b"x") + field(2, b"Placeholder")
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + b"more"
MODEL = linear_network()

#: content, what it is, words of the way from it to a network
NO_MODELS: dict[str, tuple[bytes, str, str]] = {
    "pt": (zipped("m/data.pkl", "m/data/0"), "a PyTorch checkpoint", "torch.onnx.export(model, example, 'model.onnx')"),
    "legacy pt": (LEGACY, "a PyTorch checkpoint", "torch.onnx.export"),
    "torchscript": (zipped("m/data.pkl", "m/constants.pkl", "m/code/a.py"), "a TorchScript archive", "onnx.export"),
    "pt2": (zipped("m/archive_format", "m/data.pkl"), "a program of torch.export", "torch.onnx.export"),
    "pickle": (pickle.dumps({"w": 1}), "a Python pickle", "torch.onnx.export"),
    "ort": (struct.pack("<I", 20) + b"ORTM" + bytes(20), "an .ort file of onnxruntime", "converted from"),
    "tflite": (struct.pack("<I", 28) + b"TFL3" + bytes(20), "a TensorFlow Lite model", "tf2onnx.convert --tflite"),
    "saved model": (b"\x08\x01\x12" + field(2, b"serve")[1:], "a TensorFlow SavedModel", "--saved-model"),
    "frozen": (field(1, NODE), "a TensorFlow graph", "--graphdef"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file", "tf2onnx"),
    "safetensors": (safetensors(), "a safetensors file", "torch.onnx.export"),
    "zip": (zipped("model.onnx"), "a zip archive", "Unpack it"),
    "torn zip": (zipped("model.onnx")[:-30], "a zip archive that is damaged or truncated", "again"),
    "npz": (arrays(np.savez, x=rows(2)), "a NumPy .npz of arrays", "--data"),
    "npy": (arrays(np.save, rows(2)), "a single NumPy array", "--data"),
    "gzip": (gzip.compress(b"model"), "compressed with gzip", "gunzip"),
    "xz": (lzma.compress(b"model"), "compressed with xz", "unxz"),
    "bz2": (bz2.compress(b"model"), "compressed with bzip2", "bunzip2"),
    "tar": (tarred(), "a tar archive", "Unpack it"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page", "download the file itself"),
    "html, no doctype": (b"<!-- x --><html lang='en'>", "an HTML page", "download the file itself"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a git-LFS pointer",
        "git lfs pull",
    ),
    "json": (b'\n{"a": 1}', "JSON", "again"),
    "xml": (b"<?xml version='1.0'?><a/>", "XML", "again"),
    "openvino": (b"<?xml version='1.0'?><net name='a' version='11'>", "an OpenVINO network", "converted from"),
    "text": ("Größe\n".encode(), "text", "again"),
    "utf-16": ("model\n".encode("utf-16"), "text", "again"),
    "zeros": (bytes(4096), "nothing but zeros", "not finished"),
    "onnx text": (onnx.printer.to_text(MODEL).encode(), "an ONNX model as text", "onnx.parser.parse_model"),
    "onnx json": (json_format.MessageToJson(MODEL).encode(), "an ONNX model as JSON", "onnx.load(FILE, 'json')"),
    "onnx prototext": (text_format.MessageToString(MODEL).encode(), "an ONNX model as protobuf text", "'textproto'"),
    "tensor": (onnx.numpy_helper.from_array(rows(2)).SerializeToString(), "a single ONNX tensor", "--data"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG image", "again"),
}


@pytest.mark.parametrize("case", NO_MODELS)
def test_no_model(case: str, tmp_path: Path) -> None:
    content, what, way = NO_MODELS[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    result = CliRunner().invoke(main, ["inspect", str(path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{path}: this is {what}" in result.stderr
    assert "not an ONNX file" in result.stderr
    assert way in result.stderr


#: content, what it is, words of the way from it to an .npz
NO_DATA: dict[str, tuple[bytes, str, str]] = {
    "onnx": (MODEL.SerializeToString(), "an ONNX model", "Give the network first"),
    "pt": (zipped("m/data.pkl", "m/data/0"), "a PyTorch checkpoint", "images.numpy()"),
    "pickle": (pickle.dumps({"w": 1}), "a Python pickle", "where you trust it"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a git-LFS pointer", "git lfs pull"),
    "gzip": (gzip.compress(b"x"), "compressed with gzip", "gunzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file", "h5py"),
    "idx": (b"\x00\x00\x08\x03" + bytes(range(20)), "an IDX file", "torchvision"),
    "csv": (b"1,2,3\n", "text", "numpy.loadtxt"),
    "zip": (zipped("a.png", "b.png"), "a zip archive", "Unpack it"),
}


@pytest.mark.parametrize("command", ["eval", "plan"])
@pytest.mark.parametrize("case", NO_DATA)
def test_no_data(case: str, command: str, tmp_path: Path) -> None:
    content, what, way = NO_DATA[case]
    model, path = write(MODEL, tmp_path / "model.onnx"), tmp_path / "data.npz"
    path.write_bytes(content)
    options = {"eval": ["--data", str(path)], "plan": ["--al-clusters", "1", "--calib", str(path)]}[command]
    result = CliRunner().invoke(main, [command, str(model), *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{path}: the data cannot be read: this is {what}" in result.stderr
    assert way in result.stderr


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (tmp_path / "harm",))

    model, path = write(MODEL, tmp_path / "model.onnx"), tmp_path / "other"
    path.write_bytes(pickle.dumps(Harm()))
    assert CliRunner().invoke(main, ["inspect", str(path)]).exit_code == 2
    assert CliRunner().invoke(main, ["eval", str(model), "--data", str(path)]).exit_code == 2
    assert not (tmp_path / "harm").exists()


def test_what_nothing_is_known_of(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(128, 256, 5000).astype(np.uint8).tobytes()
    assert kind_of(noise) is None
    assert kind_of(MODEL.SerializeToString()[:-20]) is None
    assert kind_of(b"") is None
    assert kind_of_file(tmp_path / "none") is None
    assert kind_of_file(tmp_path) is None
