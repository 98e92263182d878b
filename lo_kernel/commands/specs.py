"""``lo-kernel install`` and ``lo-kernel uninstall``: the kernel file."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lo_kernel.commands.options import OptionParser
from lo_kernel.errors import LOError
from lo_kernel.kernel import kernelspec
from lo_kernel.settings import unknown_variables

__all__ = ["install", "uninstall"]


def install(arguments: Sequence[str]) -> int:
    """``lo-kernel install``."""
    parser = OptionParser("install", "Write a kernel file that starts this Python, for Jupyter to find.")
    kernelspec.add_install_arguments(parser)
    parsed = parser.parse(arguments)
    try:
        chosen = kernelspec.options_of(parsed)
        variables = kernelspec.variables_of(**chosen)
    except LOError as error:
        parser.error(str(error))
    for line in unknown_variables(variables):
        print(f"{parser.prog}: {line}", file=sys.stderr)
    print(f"wrote {kernelspec.install(**chosen).path}")
    return 0


def uninstall(arguments: Sequence[str]) -> int:
    """``lo-kernel uninstall``."""
    parser = OptionParser("uninstall", "Take a kernel file of ours away.")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--sys-prefix", action="store_true", help="from this Python environment (the default)")
    place.add_argument("--user", action="store_true", help="from this user's folder")
    place.add_argument("--prefix", metavar="DIR", help="below DIR, in share/jupyter/kernels")
    parser.add_argument("--name", default=kernelspec.KERNEL_NAME, help="its name (default: %(default)s)")
    place_of = kernelspec.place_of(parser.parse(arguments))
    try:
        kernelspec.check_name(place_of["name"])
    except LOError as error:
        parser.error(str(error))
    print(f"removed {kernelspec.uninstall(**place_of)}")
    return 0
