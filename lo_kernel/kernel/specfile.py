"""One kernelspec on disk: its folder, what it starts, whether it still does, and writing it whole.

Files are written beside their place and then moved there, ``kernel.json`` last: a Jupyter that looks
meanwhile sees the old spec or the new one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from lo_kernel.errors import KernelSpecError

__all__ = [
    "DISPLAY_NAME",
    "KERNEL_NAME",
    "SpecInfo",
    "command_exists",
    "kernels_folder",
    "logos",
    "read_spec",
    "starts_this_environment",
    "write_spec",
]

KERNEL_NAME = "learning_observer"
DISPLAY_NAME = "Learning Observer"

_PACKAGE = Path(__file__).resolve().parents[1]
_LOGOS = ("logo-svg.svg", "logo-32x32.png", "logo-64x64.png")
# As argv[0] these mean "the Python that the Jupyter server runs on" (jupyter_client, format_kernel_cmd).
_SERVERS_PYTHON = {"python", f"python{sys.version_info[0]}", "python{}.{}".format(*sys.version_info[:2])}
_NEEDED = ("ipykernel", "aiohttp", "jupyter_client", "zmq", "platformdirs", "msgspec")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInfo:
    """One kernelspec of ours, as it stands on disk.

    ``path`` is its folder, ``reason`` why it is stale (empty: it is not), ``shadowed_by`` the folder of a
    spec of the same name that Jupyter finds first.
    """

    name: str
    path: Path
    display_name: str = DISPLAY_NAME
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    shadowed_by: Path | None = None

    @property
    def stale(self) -> bool:
        """Whether it would start something else than it was written for, or nothing."""
        return bool(self.reason)


def kernels_folder(*, user: bool = False, prefix: str | os.PathLike[str] | None = None) -> Path:
    """The folder that holds kernelspecs: of this environment, of the user, or below ``prefix``.

    >>> kernels_folder(prefix="/opt/lab").as_posix()
    '/opt/lab/share/jupyter/kernels'
    >>> kernels_folder() == kernels_folder(prefix=sys.prefix)
    True
    """
    if user and prefix is not None:
        raise KernelSpecError("a kernelspec goes to one place: give either --user or --prefix, not both")
    if user:
        from jupyter_core.paths import jupyter_data_dir

        return Path(jupyter_data_dir()) / "kernels"
    return Path(prefix or sys.prefix).absolute() / "share" / "jupyter" / "kernels"


def read_spec(path: Path, *, shadowed_by: Path | None = None) -> SpecInfo | None:
    """The kernelspec in the folder ``path``; None where there is none, or another kernel's."""
    try:
        data = json.loads((path / "kernel.json").read_text(encoding="utf-8"))
        argv = tuple(str(each) for each in data["argv"])
        env = {str(key): str(value) for key, value in data.get("env", {}).items()}
        display_name = str(data.get("display_name", DISPLAY_NAME))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if path.name.lower() != KERNEL_NAME:
            return None
        reason = f"its kernel.json can't be read ({type(error).__name__}: {error})"
        return SpecInfo(name=path.name, path=path, reason=reason, shadowed_by=shadowed_by)
    if not _is_ours(argv):
        return None
    return SpecInfo(
        name=path.name,
        path=path,
        display_name=display_name,
        argv=argv,
        env=env,
        reason=_why_stale(path, argv),
        shadowed_by=shadowed_by,
    )


def write_spec(path: Path, display_name: str, env: Mapping[str, str]) -> SpecInfo:
    """Write a spec that starts this Python into the folder ``path``, missing parents made, and return it.

    Raises `KernelSpecError` where the folder can't be written, is another kernel's, or this Python lacks what
    the kernel needs.
    """
    content = json.dumps(_document(display_name, env), indent=2, ensure_ascii=False) + "\n"
    if (path / "kernel.json").exists() and read_spec(path) is None:
        raise KernelSpecError(f"{path} is another kernel's: choose another name, or remove that one first")
    try:
        path.mkdir(parents=True, exist_ok=True)
        for logo in logos():
            _put(path / logo.name, logo.read_bytes())
        _put(path / "kernel.json", content.encode())
    except OSError as error:
        raise KernelSpecError(f"can't write {path}: {error.strerror or error}") from error
    written = read_spec(path)
    assert written is not None
    return written


def logos() -> list[Path]:
    """The kernel's logos: a wheel has a copy of them inside the package, a checkout the originals."""
    inside = _PACKAGE / "kernel" / "resources"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "share" / "jupyter" / "kernels" / KERNEL_NAME
    return [folder / name for name in _LOGOS if (folder / name).is_file()]


def command_exists(path: Path, argv: tuple[str, ...]) -> bool:
    """Whether the interpreter that a spec in ``path`` names is there, and the script, where it names one."""
    command = tuple(_expanded(path, argv))
    if not command or (command[0] not in _SERVERS_PYTHON and shutil.which(command[0]) is None):
        return False
    script = Path(command[1]) if len(command) > 1 else Path()
    return not script.is_absolute() or script.exists()


def starts_this_environment(path: Path, argv: tuple[str, ...]) -> bool:
    """Whether a spec in ``path`` starts this Python environment.

    Environments share a binary, to which each has a link: the folder of the link tells them apart.
    """
    program = next(_expanded(path, argv), "")
    if program in _SERVERS_PYTHON:
        return path.parent == kernels_folder()
    named, this = Path(program), Path(sys.executable)
    return named.parent.resolve() == this.parent.resolve() and named.resolve() == this.resolve()


def _command() -> list[str]:
    """What starts this package on this Python from any folder; from a checkout not installed, by its path."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        checkout = _PACKAGE.parent / "pyproject.toml"
        raise KernelSpecError(
            f"{sys.executable} lacks {', '.join(missing)}, without which the kernel can't start: "
            f"{sys.executable} -m pip install {checkout.parent if checkout.is_file() else 'lo-kernel'}"
        )
    started = ["-m", "lo_kernel"] if _installed() else [str(_PACKAGE)]
    return [sys.executable, *started, "-f", "{connection_file}"]


def _installed() -> bool:
    """Whether a new process of this Python finds the package: this one may have it from a checkout's path."""
    question = "import lo_kernel; lo_kernel.__version__"
    asked = subprocess.run(
        [sys.executable, "-E", "-c", question],
        cwd=Path(sys.executable).anchor,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0


def _document(display_name: str, env: Mapping[str, str]) -> dict[str, Any]:
    command = _command()
    about: dict[str, Any] = {"debugger": True}
    version = [int(part) for part in re.findall(r"\d+", metadata.version("ipykernel"))]
    if version >= [7, 3]:  # the first with CurveZMQ; a Jupyter to which it is promised in vain can't connect
        about["supported_encryption"] = ["curve"]
    document: dict[str, Any] = {
        "argv": command,
        "display_name": display_name,
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": about,
        "kernel_protocol_version": "5.5",
    }
    return document | ({"env": dict(env)} if env else {})


def _put(path: Path, content: bytes) -> None:
    """Write beside the place and move there: nobody reads half a file, and the umask decides who may read."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def _is_ours(argv: tuple[str, ...]) -> bool:
    by_path = any(Path(each).name in ("lo_kernel", "lo-kernel") for each in argv)
    return by_path or ("-m", "lo_kernel") in pairwise(argv)


def _expanded(path: Path, argv: tuple[str, ...]) -> Iterator[str]:
    for each in argv:
        yield each.replace("{resource_dir}", str(path)).replace("{prefix}", sys.prefix)


def _why_stale(path: Path, argv: tuple[str, ...]) -> str:
    program = next(_expanded(path, argv), "")
    if not command_exists(path, argv):
        return f"what it starts is gone: {' '.join(list(_expanded(path, argv))[:2]) or 'nothing'}"
    if path.parent == kernels_folder() and not starts_this_environment(path, argv):
        return f"it lies in this environment and starts another's Python: {program}"
    if program in _SERVERS_PYTHON and path.parent == kernels_folder(user=True):
        return f"it starts {program!r}, which is whatever Python the Jupyter server runs on"
    return ""
