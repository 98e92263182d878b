"""Kernelspecs: the folders with a ``kernel.json`` and logos that tell Jupyter how to start this kernel.

One comes with the package (a wheel's shared data) and starts the Python of the Jupyter that reads it. Those
written here name their interpreter by its full path, so that any Jupyter can start them, and may carry
settings as environment variables. A spec is *stale* when what it would start is not what it was written
for: the environment was moved or deleted, or the spec lies in one environment and starts another.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lo_kernel.errors import KernelSpecError
from lo_kernel.kernel.specfile import (
    DISPLAY_NAME,
    KERNEL_NAME,
    SpecInfo,
    command_exists,
    kernels_folder,
    logos,
    read_spec,
    starts_this_environment,
    write_spec,
)
from lo_kernel.settings import Settings, env_name

__all__ = [
    "DISPLAY_NAME",
    "KERNEL_NAME",
    "Ensured",
    "InstallOptions",
    "PlaceOptions",
    "SpecInfo",
    "add_install_arguments",
    "add_place_arguments",
    "check_name",
    "ensure",
    "install",
    "kernels_folder",
    "list_specs",
    "logos",
    "options_of",
    "parse_env",
    "place_of",
    "read_spec",
    "refresh",
    "uninstall",
    "variables_of",
]

NATIVE_KERNEL = "python3"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class PlaceOptions(TypedDict):
    """Where a kernelspec stands: the arguments of `uninstall`."""

    user: bool
    prefix: str | None
    name: str


class InstallOptions(PlaceOptions):
    """The arguments of `install`."""

    display_name: str | None
    env: dict[str, str]
    loop: str | None
    app: str | None
    workspace: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensured:
    """What `ensure` did: ``action`` is ``found``, ``written``, ``refreshed`` or ``failed``.

    ``message`` is for a person: a line for each thing that was done or could not be, empty if all was well.
    """

    action: str
    spec: SpecInfo | None
    message: str


def install(
    *,
    user: bool = False,
    prefix: str | os.PathLike[str] | None = None,
    name: str = KERNEL_NAME,
    display_name: str | None = None,
    env: Mapping[str, str] | None = None,
    loop: str | None = None,
    app: str | None = None,
    workspace: str | None = None,
) -> SpecInfo:
    """Write a kernelspec that starts this Python, and return it; one of ours under that name is replaced.

    Without ``user`` or ``prefix`` it goes into this environment. ``loop``, ``app`` and ``workspace`` are
    settings that its kernels start with, ``env`` further environment variables. Several specs stand side by
    side under different names; one that is not ours is never replaced, nor hidden by one in another folder.

    Raises `KernelSpecError` where the name can't be used or the folder can't be written, `SettingsError`
    where a setting can't be used.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spec = install(prefix=folder, name="lo_thread", loop="thread")
    >>> spec.display_name, spec.env
    ('Learning Observer (lo_thread)', {'LO_KERNEL_LOOP': 'thread'})
    """
    variables = variables_of(name=name, env=env, loop=loop, app=app, workspace=workspace)
    title = display_name or (DISPLAY_NAME if name == KERNEL_NAME else f"{DISPLAY_NAME} ({name})")
    folder = kernels_folder(user=user, prefix=prefix)
    _check_hides_nobody(folder, name)
    return write_spec(folder / name, title, variables)


def variables_of(
    *,
    name: str,
    env: Mapping[str, str] | None,
    loop: str | None,
    app: str | None,
    workspace: str | None,
    **_: object,
) -> dict[str, str]:
    """The environment variables of a kernelspec that `install` would write; raises what that would.

    What no kernel could start with is found now, and not at each of its starts.
    """
    check_name(name)
    chosen = {"loop": loop, "app": app, "workspace": workspace}
    given = {env_name(key): value for key, value in chosen.items() if value is not None}
    variables = given | dict(env or {})
    _check_env(variables)
    Settings.from_env(variables)
    return variables


def uninstall(
    *, user: bool = False, prefix: str | os.PathLike[str] | None = None, name: str = KERNEL_NAME
) -> Path:
    """Remove a kernelspec of ours and return the folder that is gone.

    Raises `KernelSpecError` where there is none of ours under that name, and says what is there.
    """
    check_name(name)
    path = kernels_folder(user=user, prefix=prefix) / name
    if read_spec(path) is None:
        ours = ", ".join(str(spec.path) for spec in list_specs()) or "none anywhere"
        raise KernelSpecError(f"no kernelspec of lo_kernel in {path}; there are: {ours}")
    try:
        if path.is_symlink():  # as `jupyter kernelspec install --symlink` makes them
            path.unlink()
        else:
            (path / "kernel.json").unlink()  # first: without it the folder is no kernelspec any more
            shutil.rmtree(path)
    except OSError as error:
        raise KernelSpecError(f"can't remove {path}: {error.strerror or error}") from error
    return path


def list_specs(*, folders: Sequence[Path] | None = None) -> list[SpecInfo]:
    """Our kernelspecs that Jupyter can find, in the order in which it looks; stale and shadowed ones too.

    ``folders`` are the ones to look into; by default those of Jupyter, and this environment's.
    """
    folders = _folders() if folders is None else folders
    specs: list[SpecInfo] = []
    first: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not (path / "kernel.json").is_file():
                continue
            winner = first.setdefault(path.name.lower(), path)
            spec = read_spec(path, shadowed_by=None if winner == path else winner)
            if spec is not None:
                specs.append(spec)
    return specs


def refresh(spec: SpecInfo) -> SpecInfo:
    """Write a stale spec anew, for this Python; its display name and environment variables stay."""
    return write_spec(spec.path, spec.display_name, spec.env)


def ensure() -> Ensured:
    """Make sure that Jupyter can start this environment's kernel: write its spec if it is missing or stale.

    Made anew are stale specs of this environment, and those of our usual name that start nothing any more;
    of other names, `lo-kernel status` tells. A folder that can't be written is no error here: the message
    says so, and what to do.
    """
    good: list[SpecInfo] = []
    action = "found"
    lines: list[str] = []
    for spec in list_specs():
        gone = spec.name.lower() == KERNEL_NAME and not command_exists(spec.path, spec.argv)
        if not spec.stale and starts_this_environment(spec.path, spec.argv):
            good.append(spec)
        elif spec.stale and (gone or spec.path.parent == kernels_folder()):
            try:
                good.append(refresh(spec))
                action = "refreshed"
                lines.append(f"kernelspec written anew: {spec.path} ({spec.reason})")
            except KernelSpecError as error:
                lines.append(f"stale kernelspec left as it is: {error}")
    if good:
        return Ensured(action=action, spec=good[0], message="\n".join(lines))
    try:
        written = install()
    except KernelSpecError as error:
        lines.append(f"kernelspec not written: {error}; `lo-kernel install --user` writes it to your folder")
        return Ensured(action="failed", spec=None, message="\n".join(lines))
    lines.append(f"kernelspec written: {written.path}")
    return Ensured(action="written", spec=written, message="\n".join(lines))


def parse_env(pairs: Sequence[str]) -> dict[str, str]:
    """Environment variables from ``K=V`` options.

    >>> parse_env(["LO_KERNEL_PORT=0", "OPTS=a=b"])
    {'LO_KERNEL_PORT': '0', 'OPTS': 'a=b'}
    >>> parse_env(["LO_KERNEL_PORT"])
    Traceback (most recent call last):
        ...
    lo_kernel.errors.KernelSpecError: --env: expected NAME=VALUE, got 'LO_KERNEL_PORT'
    """
    variables: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise KernelSpecError(f"--env: expected NAME=VALUE, got {pair!r}")
        variables[key] = value
    return variables


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options of `uninstall`; `place_of` makes its arguments of what came."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--sys-prefix", action="store_true", help="in this Python environment (the default)")
    place.add_argument("--user", action="store_true", help="in the user's folder, for each of their Jupyters")
    place.add_argument("--prefix", metavar="DIR", help="below DIR, in share/jupyter/kernels")
    parser.add_argument("--name", default=KERNEL_NAME, help="name of the kernelspec (default: %(default)s)")


def add_install_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options of `install`; `options_of` makes its arguments of what came."""
    add_place_arguments(parser)
    add = parser.add_argument
    add("--display-name", metavar="TEXT", help=f"what launchers show (default: {DISPLAY_NAME})")
    add("--env", action="append", default=[], metavar="K=V", help="environment variable; may be repeated")
    add("--loop", choices=("kernel", "thread"), help="loop that the app runs on")
    add("--app", help="app that is booted: embedded, learning_observer or package.module:factory")
    add("--workspace", help="workspace of its kernels: a name, or an absolute path")


def place_of(options: argparse.Namespace) -> PlaceOptions:
    """The arguments of `uninstall`, from a command line with the options of `add_place_arguments`."""
    return {"user": options.user, "prefix": options.prefix, "name": options.name}


def options_of(options: argparse.Namespace) -> InstallOptions:
    """The arguments of `install`, from a command line with the options of `add_install_arguments`."""
    return {
        **place_of(options),
        "display_name": options.display_name,
        "env": parse_env(options.env),
        "loop": options.loop,
        "app": options.app,
        "workspace": options.workspace,
    }


def check_name(name: str) -> None:
    """Raise `KernelSpecError` where a kernelspec can't be called so."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise KernelSpecError(
            f"a kernelspec's name has letters, digits, '.', '_' and '-' (no spaces, no slashes), got {name!r}"
        )


def _folders() -> list[Path]:
    """Where Jupyter looks, in its order, and this environment's."""
    from jupyter_core.paths import jupyter_path

    found = [Path(each) for each in jupyter_path("kernels")]
    return found if kernels_folder() in found else [*found, kernels_folder()]


def _check_hides_nobody(folder: Path, name: str) -> None:
    """Of kernels with one name Jupyter sees the first: another's must not go because ours comes."""
    if name.lower() == NATIVE_KERNEL:
        raise KernelSpecError(
            f"{name!r} is another kernel's, which Jupyter has of itself: choose another name"
        )
    folders = _folders()
    for other in folders if folder in folders else ():
        for path in other.iterdir() if other.is_dir() and other != folder else ():
            if path.name.lower() == name.lower() and (path / "kernel.json").is_file() and not read_spec(path):
                raise KernelSpecError(
                    f"{path} is another kernel's, and one of ours in {folder} would stand in its place or "
                    "behind it: choose another name"
                )


def _check_env(variables: Mapping[str, str]) -> None:
    for key, value in variables.items():
        if not isinstance(value, str) or not key or "=" in key or "\0" in key + value:
            raise KernelSpecError(f"an environment variable is a name and a text, got {key!r}: {value!r}")
