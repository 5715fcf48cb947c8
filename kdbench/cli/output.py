"""Standard output and error as commands write them: a reader that has left is no error, a full device is named."""

import sys
from io import BufferedWriter, FileIO, TextIOWrapper

from typing_extensions import Buffer


class StandardStream(FileIO):
    """The file behind a standard stream. What cannot be written is lost; only the first such error is raised.

    A reader that has seen enough (`| head`) closes the pipe: the command goes on and ends with its own exit code.
    """

    def __init__(self, descriptor: int, label: str, quiet: bool) -> None:
        """Args:
        descriptor: of the open file; it is not closed with this object.
        label: what an error calls it.
        quiet: raise no error at all, as there is nowhere left to tell it.
        """
        super().__init__(descriptor, "w", closefd=False)
        self._label = label
        self._quiet = quiet

    def write(self, data: Buffer, /) -> int:
        """Write, and return the number of bytes that need not be written again."""
        try:
            return super().write(data)
        except OSError as error:
            told, self._quiet = self._quiet or isinstance(error, BrokenPipeError), True
            if not told:
                raise OSError(error.errno, error.strerror, self._label) from error
            return memoryview(data).nbytes


def guard_streams() -> None:
    """Make the standard streams of this process such files, and let a name that they cannot show be escaped."""
    for name, label, quiet in (("stdout", "standard output", False), ("stderr", "standard error", True)):
        stream = getattr(sys, name)
        if not isinstance(stream, TextIOWrapper):
            continue
        # `python -u` has no buffer between text and file.
        if stream is getattr(sys, f"__{name}__") and isinstance(getattr(stream.buffer, "raw", stream.buffer), FileIO):
            file = StandardStream(stream.fileno(), label, quiet)
            through, lines = stream.write_through, stream.line_buffering
            buffer = file if isinstance(stream.buffer, FileIO) else BufferedWriter(file)
            stream = TextIOWrapper(buffer, stream.encoding, line_buffering=lines, write_through=through)
            setattr(sys, name, stream)
        stream.reconfigure(errors="backslashreplace")
