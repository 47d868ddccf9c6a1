"""What a file is that should have been another: told by its content, not by its name, and without running any of it."""

from __future__ import annotations

import codecs
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import google.protobuf.message
import onnx

_EXPORT = "torch.onnx.export(model, example, 'model.onnx')"
_AGAIN = "Export or download the model again."
_UNPACK = "Unpack it and name the file inside."
_DATA = "Give it where data is asked for (--data, --calib), and the network's .onnx file here."
_LFS = "Run git lfs pull, which fetches the file itself."
_DOWNLOAD = "It is the page of a site or an error, not the file behind it: download the file itself."
_TENSORFLOW = "Convert it with tf2onnx: python -m tf2onnx.convert"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: what it is, with its article.
        for_model: the way from it to an ONNX file, as a sentence.
        for_data: the way from it to an ``.npz``, where there is one.
    """

    name: str
    for_model: str = _AGAIN
    for_data: str = ""


_ONNX = Kind("an ONNX model", "", "Give the network first, and behind --data or --calib an .npz of its inputs.")
NPZ = Kind("a NumPy .npz of arrays", _DATA)
NPY = Kind("a single NumPy array (.npy)", _DATA)
_CHECKPOINT = Kind(
    "a PyTorch checkpoint",
    f"Export the model: {_EXPORT}; where it holds a state_dict, load that into the model first.",
    "Write its tensors as numpy.savez('data.npz', x=images.numpy(), y=labels.numpy()).",
)
_TORCHSCRIPT = Kind("a TorchScript archive", f"Export the model that it was made of: {_EXPORT}.")
_EXPORTED = Kind("a program of torch.export (.pt2)", f"Export the model that it was made of: {_EXPORT}.")
_PICKLE = Kind(
    "a Python pickle",
    f"If it holds a PyTorch model, export that: {_EXPORT}.",
    "Load it where you trust it, and write its arrays with numpy.savez.",
)
_SAFETENSORS = Kind(
    "a safetensors file, which holds weights and no network",
    f"Load it into the PyTorch model and export that: {_EXPORT}.",
    "Write its tensors with numpy.savez.",
)
_SAVED_MODEL = Kind("a TensorFlow SavedModel", f"{_TENSORFLOW} --saved-model FOLDER --output model.onnx.")
_FROZEN = Kind(
    "a TensorFlow graph", f"{_TENSORFLOW} --graphdef FILE --inputs NAME:0 --outputs NAME:0 --output model.onnx."
)
_TENSOR = Kind("a single ONNX tensor, not a model", _DATA, "Write it as an array: onnx.numpy_helper.to_array.")
_ONNX_TEXT = Kind(
    "an ONNX model as text",
    "Make it a binary file: onnx.save(onnx.parser.parse_model(open(FILE).read()), 'model.onnx').",
)
_ONNX_JSON = Kind("an ONNX model as JSON", "Make it a binary file: onnx.save(onnx.load(FILE, 'json'), 'model.onnx').")
_ONNX_PROTOTEXT = Kind(
    "an ONNX model as protobuf text", "Make it a binary file: onnx.save(onnx.load(FILE, 'textproto'), 'model.onnx')."
)
_POINTER = Kind("a git-LFS pointer: the name of a file that is not here", _LFS, _LFS)
_HTML = Kind("an HTML page", _DOWNLOAD, _DOWNLOAD)
_OPENVINO = Kind("an OpenVINO network", "Give the ONNX file that it was converted from.")
_XML = Kind("XML")
_JSON = Kind("JSON")
_TEXT = Kind("text", for_data="Read it, with numpy.loadtxt for example, and write its arrays with numpy.savez.")
_ZEROS = Kind(
    "nothing but zeros", "The copy or download was not finished: make it again.", "Copy or download it again."
)
_ZIP = Kind("a zip archive", _UNPACK, _UNPACK)
_KERAS = Kind("a Keras model", f"{_TENSORFLOW}, or model.export('model.onnx', format='onnx') in Keras.")
_HDF5 = Kind("an HDF5 file", _KERAS.for_model, "Read its arrays with h5py and write them with numpy.savez.")

#: (position, bytes there, kind)
_SIGNATURES: Sequence[tuple[int, bytes, Kind]] = (
    (0, b"version https://git-lfs.github.com/spec/", _POINTER),
    (0, b"\x93NUMPY", NPY),
    (0, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", _CHECKPOINT),  # before torch 1.6: its magic number, pickled
    (4, b"ORTM", Kind("an .ort file of onnxruntime", "Give the .onnx file that it was converted from.")),
    (4, b"TFL3", Kind("a TensorFlow Lite model", f"{_TENSORFLOW} --tflite FILE --output model.onnx.")),
    (4, b"ET12", Kind("an ExecuTorch program", f"Export the model that it was made of: {_EXPORT}.")),
    (0, b"\x89HDF\r\n\x1a\n", _HDF5),
    (0, b"GGUF", Kind("a GGUF file", "Such networks have no QCFS activations.")),
    (0, b"\x1f\x8b", Kind("compressed with gzip", "Unpack it: gunzip FILE.", "Unpack it: gunzip FILE.")),
    (0, b"\xfd7zXZ\x00", Kind("compressed with xz", "Unpack it: unxz FILE.", "Unpack it: unxz FILE.")),
    (0, b"BZh", Kind("compressed with bzip2", "Unpack it: bunzip2 FILE.", "Unpack it: bunzip2 FILE.")),
    (0, b"\x28\xb5\x2f\xfd", Kind("compressed with zstd", "Unpack it: unzstd FILE.", "Unpack it: unzstd FILE.")),
    (0, b"\x04\x22\x4d\x18", Kind("compressed with lz4", "Unpack it: unlz4 FILE.", "Unpack it: unlz4 FILE.")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", _UNPACK, _UNPACK)),
    (0, b"Rar!\x1a\x07", Kind("a RAR archive", _UNPACK, _UNPACK)),
    (257, b"ustar", Kind("a tar archive", _UNPACK, _UNPACK)),
    (0, b"\x89PNG\r\n\x1a\n", Kind("a PNG image", _AGAIN, "Read the images into one array, one sample a row.")),
    (0, b"\xff\xd8\xff", Kind("a JPEG image", _AGAIN, "Read the images into one array, one sample a row.")),
    (0, b"%PDF-", Kind("a PDF document")),
    (0, b"\x7fELF", Kind("a program or library (ELF)")),
    (0, b"PAR1", Kind("a Parquet table", _AGAIN, "Read it with pandas and write its arrays with numpy.savez.")),
    (
        0,
        b"MATLAB 5.0 MAT-file",
        Kind("a MATLAB file", _AGAIN, "Read it with scipy.io.loadmat and write its arrays with numpy.savez."),
    ),
    (
        0,
        b"\x00\x00\x08",
        Kind("an IDX file, as of MNIST", _AGAIN, "Read it with torchvision, and write its arrays with numpy.savez."),
    ),
)


def kind_of(data: bytes) -> Kind | None:
    """What the file is; None where nothing is known of it."""
    for position, signature, kind in _SIGNATURES:
        if data.startswith(signature, position):
            return kind
    for recognise in (_zip, _zeros, _safetensors, _pickle, _text, _tensorflow, _protobuf):
        found = recognise(data)
        if found is not None:
            return found
    return None


def kind_of_file(path: Path) -> Kind | None:
    """What the file is; None where nothing is known of it, or it is too large or not to be read."""
    try:
        return kind_of(path.read_bytes()) if path.is_file() and path.stat().st_size <= _LARGEST else None
    except OSError:
        return None


#: Larger files are not read only to say what they are.
_LARGEST = 1 << 28


def _zip(data: bytes) -> Kind | None:
    if not data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = file.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, zlib.error):
        return Kind("a zip archive that is damaged or truncated", "Download or copy it again.", "Write it again.")
    ends: Sequence[tuple[str, Kind]] = (
        ("constants.pkl", _TORCHSCRIPT),
        ("archive_format", _EXPORTED),
        ("data.pkl", _CHECKPOINT),
        ("model.weights.h5", _KERAS),
    )
    for end, kind in ends:
        if any(name == end or name.endswith(f"/{end}") for name in names):
            return kind
    return NPZ if names and all(name.endswith(".npy") for name in names) else _ZIP


def _zeros(data: bytes) -> Kind | None:
    return _ZEROS if data and data.count(0) == len(data) else None


def _safetensors(data: bytes) -> Kind | None:
    """A length in 8 bytes, and so much JSON."""
    if len(data) < 10 or data[8:9] != b"{":
        return None
    (length,) = struct.unpack("<Q", data[:8])
    return _SAFETENSORS if length <= len(data) - 8 and data[8 : 8 + length].rstrip().endswith(b"}") else None


def _pickle(data: bytes) -> Kind | None:
    return _PICKLE if data[:1] == b"\x80" and data[1:2] in (b"\2", b"\3", b"\4", b"\5") and data[-1:] == b"." else None


def _text(data: bytes) -> Kind | None:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data[: 1 << 16])  # the cut may be within a character
    except UnicodeDecodeError:
        return None
    if not text.strip() or any(ord(c) < 32 and c not in "\t\n\v\f\r\x1b" for c in text):
        return None
    start = text.lstrip()[:500].lower()
    kinds: Sequence[tuple[Callable[[str], bool], Kind]] = (
        (lambda s: s.startswith(("<!doctype html", "<html", "<head", "<body")), _HTML),
        (lambda s: s.startswith("<") and "<html" in s, _HTML),
        (lambda s: s.startswith("<") and "<net " in s, _OPENVINO),
        (lambda s: s.startswith("<?xml"), _XML),
        (lambda s: s.startswith("<") and "ir_version" in s, _ONNX_TEXT),
        (lambda s: s.startswith("ir_version:"), _ONNX_PROTOTEXT),
        (lambda s: s.startswith("{") and '"irversion"' in s, _ONNX_JSON),
        (lambda s: s.startswith(("{", "[")), _JSON),
    )
    return next((kind for fits, kind in kinds if fits(start)), _TEXT)


def _tensorflow(data: bytes) -> Kind | None:
    """Their messages have no magic number; these strings stand near the start of every one."""
    if data.startswith(b"\x08\x01\x12") and (b"tensorflow" in data or b"serve" in data):
        return _SAVED_MODEL
    head = data[: 1 << 16]
    return _FROZEN if data.startswith(b"\x0a") and (b"\x0bPlaceholder" in head or b"\x12\x05Const" in head) else None


def _protobuf(data: bytes) -> Kind | None:
    try:
        model = onnx.ModelProto.FromString(data)
        if model.graph.node and model.opset_import:
            return _ONNX
    except google.protobuf.message.DecodeError:
        pass
    try:
        tensor = onnx.TensorProto.FromString(data)
    except google.protobuf.message.DecodeError:
        return None
    return _TENSOR if tensor.data_type in onnx.TensorProto.DataType.values() and _has_values(tensor) else None


def _has_values(tensor: onnx.TensorProto) -> bool:
    return any(tensor.HasField(f) if f == "raw_data" else getattr(tensor, f) for f in ("raw_data", *_TYPED))


_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
