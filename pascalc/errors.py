"""The one error a user of pascalc sees: what is wrong, where, and the way out."""

from __future__ import annotations


class CompileError(Exception):
    """Bad input, told in one readable paragraph.

    Args:
        message: what is wrong, as a sentence.
        file: the file that it was found in, where there is one.
        node: the name of the node or tensor that it was found at, where there is one.
        hint: the way out, as a sentence.

    Every public function of pascalc raises this, and only this, for input that it cannot accept. The
    command line prints it on stderr and exits with status 2.
    """

    def __init__(self, message: str, *, file: object = None, node: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.file = None if file is None else str(file)
        self.node = node
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file is not None else ""
        node = f" (node '{self.node}')" if self.node is not None else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{self.message.rstrip('.')}{node}.{hint}"
