"""``lo-kernel status``: which kernel files there are, and what is running where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lo_kernel.commands.options import OptionParser
from lo_kernel.errors import LOError
from lo_kernel.kernel import kernelspec
from lo_kernel.kernel.running import Running, running
from lo_kernel.settings import Settings
from lo_kernel.workspace import Workspace

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel status``."""
    OptionParser("status", "Which kernel files there are, and what is running where.").parse(arguments)
    print("\n".join(("kernel files", *_specs(), "running", *_processes())))
    return 0


def _specs() -> Iterator[str]:
    specs = kernelspec.list_specs()
    for spec in specs:
        notes = [f"stale: {spec.reason}"] if spec.stale else []
        notes += [f"hidden by {spec.shadowed_by}"] if spec.shadowed_by else []
        yield f"  {spec.name:<20} {spec.path}{''.join(f' ({note})' for note in notes)}"
    if not specs:
        yield "  none; lo-kernel install writes one"


def _processes() -> Iterator[str]:
    processes = running()
    for process in processes:
        workspace = f"workspace {process.workspace}{_role(process)}"
        yield f"  {process.pid:<8} {process.url}  {workspace}  {_kind(process)}"
    if not processes:
        yield "  nothing"


def _role(process: Running) -> str:
    """Whether it owns its workspace, or follows there."""
    try:
        workspace = Workspace(Settings(workspace=process.workspace).workspace_path)
    except LOError:
        return ""
    if not workspace.path.is_dir():  # under other environment variables
        return ""
    owner = workspace.find_owner()
    if owner is None:
        return " (nobody owns it; await lo.own() there does)"
    return " (owner)" if owner.pid == process.pid else f" (follows {owner.pid})"


def _kind(process: Running) -> str:
    if not process.connection_file:
        return "server"
    return f"kernel, loop {process.loop}: jupyter console --existing {Path(process.connection_file).name}"
