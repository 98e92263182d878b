"""What a person starts without a command: the app, ``--loconsole``, ``--lokernel``; and the help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields

import lo_kernel
from lo_kernel.commands.options import (
    OptionParser,
    add_settings,
    settings_from,
    settings_help,
    split_at_dashes,
)
from lo_kernel.errors import SettingsError
from lo_kernel.settings import Settings, env_name, nearest

__all__ = ["run"]

# one screen, 24 lines of 80 characters; tests hold it
_HELP = """\
lo-kernel {version}: a Jupyter kernel in which the Learning Observer is alive
usage: lo-kernel [COMMAND] [OPTIONS] [-- IPYTHON OPTIONS] or python -m lo_kernel

  (none), serve   the app by itself: prints its address, writes the kernel file
  --loconsole     a shell with a kernel and the app, which others can join
  --lokernel [1]  a kernel with the app: prints the line that joins it
  -f FILE         what kernel.json runs: a kernel for the client that wrote FILE

commands (lo-kernel COMMAND --help tells more):
  install, uninstall, status    the kernel file; what is running where
  lab, simulate, replay         the example; a class that types; old events
  erase, export-student, audit  a learner gone, or in a file; who read what
  new, export, inject           a first module; a notebook as one; into a server

settings (--help-all tells more), also LO_KERNEL_PORT=0 or c.LOKernel.port = 0:
{settings}
--help, --help-all, --version
"""


class _Parser(OptionParser):
    def format_help(self) -> str:
        return _HELP.format(version=lo_kernel.__version__, settings=settings_help())


def run(arguments: Sequence[str], commands: Sequence[str]) -> int:
    """Start what ``arguments`` ask for; the exit code."""
    ours, theirs = split_at_dashes(arguments)
    parser = _Parser("", "")
    parser.add_argument("--loconsole", action="store_true")
    parser.add_argument("--lokernel", nargs="?", const="1", metavar="1")
    parser.add_argument("-f", dest="connection_file", metavar="FILE")
    parser.add_argument("--help-all", action="store_true")
    parser.add_argument("--version", action="version", version=f"lo-kernel {lo_kernel.__version__}")
    add_settings(parser)
    words = [each for each in ours[:1] if not each.startswith("-")]
    if words:
        parser.error(f"unknown command {words[0]!r}; commands: {', '.join(commands)}")
    options = parser.parse(ours)
    if options.help_all:
        return _help_all()
    return _start(parser, options, theirs)


def _start(parser: OptionParser, options: argparse.Namespace, theirs: list[str] | None) -> int:
    wants_kernel = options.lokernel is not None
    if options.loconsole and (wants_kernel or options.connection_file):
        other = "--lokernel" if wants_kernel else "-f"
        parser.error(f"--loconsole and {other} contradict each other: choose one")
    if theirs is not None and not (options.loconsole or wants_kernel):
        parser.error("options after '--' are a kernel's: they need --loconsole or --lokernel")
    settings, asked_for = settings_from(parser, options)
    _check_traits(parser, theirs or [])
    traits = [
        f"--LOKernel.{spec.name}={value!s}"
        for spec in fields(Settings)
        if (value := getattr(options, spec.name, None)) is not None
    ]
    if options.loconsole:
        from lo_kernel.commands.console import run_console

        return run_console([*traits, *(theirs or [])])
    if wants_kernel or options.connection_file:
        from lo_kernel.kernel.launch import launch

        file = [f"--IPKernelApp.connection_file={options.connection_file}"] if options.connection_file else []
        launch([*file, *traits, *(theirs or [])], by_hand=wants_kernel)
        return 0
    from lo_kernel.commands.serve import serve

    return serve(settings, asked_for)


def _check_traits(parser: OptionParser, arguments: Sequence[str]) -> None:
    """End the process where an option for a trait of the kernel names none, or has a value that won't do."""
    known = [spec.name for spec in fields(Settings)]
    for argument in arguments:
        name, _, value = argument.removeprefix("--LOKernel.").partition("=")
        if not argument.startswith("--LOKernel."):
            continue
        if name in known:
            try:
                Settings.from_env({env_name(name): value})
            except SettingsError as error:
                parser.error(f"{argument}: {error}")
        elif not _is_trait(name):
            parser.error(f"{argument}: LOKernel.{name} is no setting: {nearest(name, known)}")


def _is_trait(name: str) -> bool:
    from lo_kernel.kernel.kernel import LOKernel

    return name in LOKernel.class_trait_names(config=True)


def _help_all() -> int:
    from lo_kernel.kernel.kernel import LOKernel

    traits = LOKernel.class_traits(config=True)
    print("Settings of the kernel, for `-- --LOKernel.NAME=VALUE` and ipython_kernel_config.py:\n")
    for spec in fields(Settings):
        print(LOKernel.class_get_trait_help(traits[spec.name]))
    return 0
