"""``lo-kernel lab``: JupyterLab on the example notebook, with a class that types into its workspace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import lo_kernel
from lo_kernel.app.simulate import simulate_class
from lo_kernel.commands.options import OptionParser, add_settings, settings_from
from lo_kernel.errors import LOError, MissingExtraError
from lo_kernel.kernel import kernelspec
from lo_kernel.settings import Settings, env_name
from lo_kernel.workspace import Workspace

__all__ = ["main"]

_LOOK_EVERY = 0.5  # s between two looks for an app to type into
_EXAMPLE = "local_reducer.ipynb"
_PREFIX = "lab"  # these learners are others than those of a lo.simulate in the notebook


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel lab``; what is not ours goes on to JupyterLab."""
    parser = OptionParser(
        "lab", "JupyterLab on the example notebook, with a class that types; Ctrl-C ends it."
    )
    parser.add_argument("--students", type=int, default=30, metavar="N", help="learners who type; 0: nobody")
    add_settings(parser, only=["workspace"])
    parser.epilog = "All other options are JupyterLab's, such as --no-browser or --port=8888."
    options, theirs = parser.parse_known_args(arguments)
    settings, _ = settings_from(parser, options)
    if find_spec("jupyterlab") is None:
        raise MissingExtraError("lab", "lo-kernel lab")
    if message := kernelspec.ensure().message:
        print(message, file=sys.stderr)
    return asyncio.run(_run(settings, options.students, theirs))


async def _run(settings: Settings, students: int, arguments: Sequence[str]) -> int:
    example = _on_the_example(settings.workspace_path)
    command = [sys.executable, "-m", "jupyterlab", *example, *_as_root(arguments), *arguments]
    environment = os.environ | {env_name("workspace"): settings.workspace}
    # In a session of its own it hears of Ctrl-C from here, and as SIGTERM: without a terminal a SIGINT cuts
    # Jupyter's own clean-up short, and with one it asks a question first.
    lab = await asyncio.create_subprocess_exec(*command, env=environment, start_new_session=True)
    loop = asyncio.get_running_loop()

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            lab.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    typing = asyncio.create_task(_type(settings, students))
    try:
        return await lab.wait()
    finally:
        typing.cancel()
        with contextlib.suppress(asyncio.CancelledError, LOError):
            await typing


def _as_root(arguments: Sequence[str]) -> list[str]:
    """Jupyter refuses to start as root; in a container there is nobody else."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or "--allow-root" in arguments:
        return []
    print("running JupyterLab as root (--allow-root): notebooks may do anything here", file=sys.stderr)
    return ["--allow-root"]


def _on_the_example(workspace: Path) -> list[str]:
    """Options that open the example, so that the address which JupyterLab prints leads to it.

    It is a copy in the workspace: what one writes and sees there is one's own, and stays.
    """
    package = Path(lo_kernel.__file__).parent
    shipped = [folder / "examples" / _EXAMPLE for folder in (package.parent, package)]
    example = next((path for path in shipped if path.is_file()), None)
    if example is None:
        return []
    folder = workspace / "notebooks"
    copy = folder / _EXAMPLE
    workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(exist_ok=True)
    if not copy.exists():
        shutil.copyfile(example, copy)
    print(f"the example, as your own copy: {copy}", file=sys.stderr)
    return [f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{_EXAMPLE}"]


async def _type(settings: Settings, students: int) -> None:
    """Let a class type into the workspace, whoever owns it."""
    workspace = Workspace(settings.workspace_path)
    address, typing = "", None
    try:
        while students:
            owner = workspace.find_owner()
            # while there is none, those who type look for the last one, which may come back where it was
            if owner is not None and (owner.ingest_url != address or typing is None or typing.done()):
                await _end(typing)
                address = owner.ingest_url
                typing = asyncio.create_task(_class(address, students))
            await asyncio.sleep(_LOOK_EVERY)
    finally:
        await _end(typing)


async def _class(address: str, students: int) -> None:
    with contextlib.suppress(LOError, OSError):  # the app went: there will be another one
        await simulate_class(address, students=students, prefix=_PREFIX)


async def _end(typing: asyncio.Task[None] | None) -> None:
    if typing is None:
        return
    if not typing.cancelling():  # a second one would cut short how it ends
        typing.cancel()
    await asyncio.wait([typing])  # whoever is cancelled meanwhile hears of it
    if not typing.cancelled():
        typing.result()
