"""Every error a caller may catch.

One root, three families that the command line turns into exit codes: `WrongUse` (2) is mended by changing the call,
`CannotBeDone` (3) by changing the world around it, `Refused` (1) is one input of many that could not be taken.
A message says what was wanted, what came, and the next step.
"""

from __future__ import annotations

from typing import ClassVar


class BinsightError(Exception):
    """Root of all errors that binsight raises on purpose; `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 3


class WrongUse(BinsightError, ValueError):
    """The call itself is wrong: another argument is needed."""

    exit_code = 2


class CannotBeDone(BinsightError):
    """The call is right, but the world does not allow it now."""

    exit_code = 3


class Refused(BinsightError):
    """One input among many cannot be taken; the others go on."""

    exit_code = 1


class BadVectors(WrongUse):
    """Vectors of the wrong type, shape or length, or with values that are not finite."""


class BadItem(WrongUse):
    """An id or a metadata object outside the contract."""


class BadFilter(WrongUse):
    """A `where` text that is not of the filter language; shows the place."""


class BadSource(WrongUse):
    """A source of pictures that is not there, is empty, or contradicts itself."""


class BadSettings(WrongUse):
    """A setting or an option outside its range."""


class UnknownItem(WrongUse):
    """An id that the store does not hold."""


class UnknownModel(WrongUse):
    """A model name or folder that names no model."""


class NotAStore(WrongUse):
    """A URL or folder that holds no store."""


class AccessDenied(WrongUse):
    """A server wants an API key, or one that may do more."""


class TooLarge(WrongUse):
    """More was sent to a server than it takes at once."""


class BadImage(Refused):
    """Bytes that are not a picture we read, or one that is damaged or too large."""


class ModelMismatch(CannotBeDone):
    """A store filled by one model was met by another; both fingerprints are shown."""


class ModelUnavailable(CannotBeDone):
    """A model that needs the network, or a file, that cannot be reached now."""


class TrainingDiverged(CannotBeDone):
    """A loss that is not a number any more; the last good checkpoint is kept."""


class StoreLocked(CannotBeDone):
    """Another process writes to this store; its pid is shown."""


class StoreReadOnly(CannotBeDone):
    """A write to a store that was opened for reading, or that lies on a read-only file system."""


class StoreDamaged(CannotBeDone):
    """The durable truth of a store does not match its checksums (the rows are named), or is no longer what was opened."""


class StoreWriteFailed(CannotBeDone):
    """The system refused a write (disk full, I/O error); nothing of that call counts, reads go on."""


class StoreUnavailable(CannotBeDone):
    """A shared store's server cannot be reached, or is not ready; the same call may do later."""


class StoreHeld(CannotBeDone):
    """A store that takes no writes now, because another one takes its place; reads go on."""


class Overloaded(CannotBeDone):
    """A server that has no place for one request more now, or could not end one in time; nothing else is wrong."""


class ServerUnreachable(CannotBeDone):
    """A server that cannot be reached, or whose answer cannot be read."""


class MissingExtra(CannotBeDone):
    """An optional package is not installed.

    >>> str(MissingExtra("faiss", extra="cpu"))
    "faiss is not installed; run: pip install 'binsight[cpu]'"
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'binsight[{extra}]'")
        self.package = package
        self.extra = extra


class ConflictingPackages(CannotBeDone):
    """Two installed packages provide the same module."""
