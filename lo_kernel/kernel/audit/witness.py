"""What is kept outside of the workspace: where its chain ends, and the key that signs anchors and aliases.

Both lie in the user's state folder (on Linux ``~/.local/state/lo_kernel/audit``), under the chain's own id.
Who can write the workspace but not that folder can't shorten the chain unseen, nor delete a part of it as if
retention had, nor exchange two learners.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["HEAD_BYTES", "Head", "Witness", "parse_head"]

HEAD_BYTES: Final = 12 + 1 + 64 + 1 + 12 + 1 + 12 + 1


class Head(NamedTuple):
    """Where a chain ends: the newest record's number and hash, its file's first record, the file's size."""

    n: int
    hash: str
    first: int
    size: int

    def encode(self) -> bytes:
        """A line of fixed length, so that it can be written over the one before."""
        return b"%012d %b %012d %012d\n" % (self.n, self.hash.encode(), self.first, self.size)


def parse_head(data: bytes) -> Head | None:
    """The head that :meth:`Head.encode` wrote; ``None`` for anything else."""
    parts = data.split()
    if len(data) != HEAD_BYTES or len(parts) != 4 or len(parts[1]) != 64:
        return None
    try:
        return Head(int(parts[0]), parts[1].decode("ascii"), int(parts[2]), int(parts[3]))
    except ValueError:
        return None


class Witness:
    """Head and key of one chain, outside of its workspace."""

    def __init__(self, chain: str, folder: Path | None = None) -> None:
        if folder is None:
            import platformdirs

            folder = platformdirs.user_state_path("lo_kernel", appauthor=False) / "audit"
        self.head_path = folder / f"{chain}.head"
        self.key_path = folder / f"{chain}.key"

    def open(self, workspace: Path) -> int:
        """A descriptor to write the head with; the folder is made where it is missing."""
        self.head_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.head_path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        os.lseek(descriptor, HEAD_BYTES, os.SEEK_SET)
        os.write(descriptor, f"{workspace}\n".encode())
        return descriptor

    def head(self) -> Head | None:
        """The head that was written down last; ``None`` where there is none."""
        try:
            return parse_head(self.head_path.read_bytes()[:HEAD_BYTES])
        except OSError:
            return None

    def others(self, workspace: Path) -> list[Witness]:
        """Witnesses of other chains that this workspace had."""
        folder, where = self.head_path.parent, str(workspace)
        found = []
        for path in sorted(folder.glob("*.head")):
            with contextlib.suppress(OSError):
                if path != self.head_path and path.read_bytes()[HEAD_BYTES:].decode().strip() == where:
                    found.append(Witness(path.stem, folder))
        return found

    def sign(self, data: bytes) -> str:
        """The signature of ``data`` (HMAC-SHA-256); the key is made with the first one."""
        return hmac.digest(self.key(), data, "sha256").hex()

    def key(self) -> bytes:
        """The key, which is made where it is missing."""
        self.key_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(self.key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode())
        return self.key_path.read_bytes()

    def signed(self, data: bytes, signature: str) -> bool | None:
        """Whether ``signature`` is good; ``None`` where there is no key here to check it with."""
        try:
            key = self.key_path.read_bytes()
        except OSError:
            return None
        return hmac.compare_digest(hmac.digest(key, data, "sha256").hex(), signature)
