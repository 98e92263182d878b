"""``lo-kernel status``: which kernel files there are, and what is running where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lo_kernel.commands.options import OptionParser
from lo_kernel.kernel import kernelspec
from lo_kernel.kernel.running import Running, running

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
        yield f"  {process.pid:<8} {process.url}  workspace {process.workspace}  {_kind(process)}"
    if not processes:
        yield "  nothing"


def _kind(process: Running) -> str:
    if not process.connection_file:
        return "server"
    return f"kernel, loop {process.loop}: jupyter console --existing {Path(process.connection_file).name}"
