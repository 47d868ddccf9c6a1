"""A network's file, read once for all who want it.

Planning, correcting and compiling each look at the source, some of them several times; its weights may be large, and
what is in the file may change in between. So a path that several of them get is made a :class:`Source` first.
"""

from __future__ import annotations

import os
from pathlib import Path

from pascalc.graph import Model
from pascalc.modelfile import load


class Source(os.PathLike[str]):
    """An ONNX file that is read when its network is first wanted.

    Copies that are pickled, for a worker, read it again.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._model: Model | None = None

    @classmethod
    def of(cls, source: Network) -> Source:
        """The source itself, or that of a path."""
        return source if isinstance(source, Source) else cls(source)

    def model(self) -> Model:
        """The network as it was loaded (`pascalc.modelfile.load`); it is the caller's, to be changed at will.

        Raises:
            CompileError: as `pascalc.modelfile.load`.
        """
        if self._model is None:
            self._model = load(self.path)
        return self._model.copy()

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __reduce__(self) -> tuple[type[Source], tuple[Path]]:
        return Source, (self.path.absolute(),)


#: What functions take that look at a network.
Network = str | Path | Source


def network_of(source: Network) -> Model:
    """The network of a source, or of a file that nobody else is going to read.

    Raises:
        CompileError: as `pascalc.modelfile.load`.
    """
    return source.model() if isinstance(source, Source) else load(source)
