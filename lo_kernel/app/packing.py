"""A module as it travels to a server: a small archive of text files, packed the same way each time."""

from __future__ import annotations

import hashlib
import io
import os
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from lo_kernel.errors import InjectError

__all__ = ["LIMIT", "Package", "pack", "unpack"]

LIMIT: Final = 2 << 20
"""Bytes of a packed module."""

_UNPACKED, _FILES = 8 << 20, 300  # bytes and files of one that was unpacked
_KINDS = (".py", ".json", ".txt", ".md", ".csv", ".toml", ".typed")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """The files of a package by their path, such as ``my_module/module.py``."""

    name: str
    files: dict[str, bytes]
    version: str
    requirements: tuple[str, ...]
    sha256: str

    def write(self, folder: Path) -> None:
        """Write them below ``folder``, which then is whole or not there."""
        work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        for path, data in self.files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            (work / path).write_bytes(data)
        work.replace(folder)


def pack(project: Path) -> tuple[str, bytes]:
    """The name and the packed form of an exported module; ``project`` has its ``pyproject.toml``.

    Raises :class:`InjectError` where there is none.
    """
    try:
        about = (project / "pyproject.toml").read_bytes()
        points = tomllib.loads(about.decode())["project"]["entry-points"]["lo_modules"]
        name = next(iter(points.values())).partition(".")[0]
    except (FileNotFoundError, NotADirectoryError):
        came = (
            "a folder without it" if project.is_dir() else "a file" if project.exists() else "nothing there"
        )
    except (KeyError, StopIteration, AttributeError, TypeError):
        came = "one whose pyproject.toml doesn't"
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        came = f"one that can't be read: {error}"
    else:
        return name, _packed(project, name, about)
    raise InjectError(
        f"{project}: expected the folder of an exported module, with a pyproject.toml that names it under "
        f"'lo_modules', got {came}; lo.export('my_module') makes one"
    )


def _packed(project: Path, name: str, about: bytes) -> bytes:
    files = {"pyproject.toml": about}
    for path in sorted((project / name).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files[path.relative_to(project).as_posix()] = path.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(inner, _EPOCH), data, zipfile.ZIP_DEFLATED)
    if packed.tell() > LIMIT:
        raise InjectError(
            f"{project}: a module has at most {LIMIT:,} bytes, packed; this one {packed.tell():,}"
        )
    unpack(name, packed.getvalue())
    return packed.getvalue()


def unpack(name: str, data: bytes) -> Package:
    """Read a packed module; :class:`InjectError` for anything else than small text files of one package."""
    files: dict[str, bytes] = {}
    if not name.isidentifier() or name.startswith("_") or name in ("lo_kernel", "learning_observer"):
        raise InjectError(f"expected the name of a package, got {name!r}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _FILES or sum(each.file_size for each in entries) > _UNPACKED:
                raise InjectError(f"a module has at most {_FILES} files and {_UNPACKED:,} bytes")
            for entry in entries:
                path = PurePosixPath(entry.filename)
                if entry.filename != "pyproject.toml" and not _is_inside(path, name, entry.filename):
                    raise InjectError(f"{entry.filename!r} is no file of the package {name!r}")
                if entry.external_attr >> 16 & 0o170000 == 0o120000:
                    raise InjectError(f"{entry.filename!r} is a link, which a module can't have")
                with archive.open(entry) as file:
                    files[entry.filename] = file.read(entry.file_size + 1)[: entry.file_size]
        project = tomllib.loads(files["pyproject.toml"].decode())["project"]
        version = str(project["version"])
        requirements = tuple(map(str, project.get("dependencies", ())))
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, EOFError, OSError) as error:
        raise InjectError(f"expected a packed module: {error!r}") from None
    if f"{name}/module.py" not in files:
        raise InjectError(f"expected {name}/module.py in it")
    return Package(name, files, version, requirements, hashlib.sha256(data).hexdigest())


def _is_inside(path: PurePosixPath, name: str, text: str) -> bool:
    """Whether a path is that of a text file in the package, and of nothing else."""
    plain = not path.is_absolute() and ".." not in path.parts and "\\" not in text and ":" not in text
    return plain and len(path.parts) > 1 and path.parts[0] == name and path.suffix in _KINDS
