"""Write the Learning Observer kernelspec for the Python that runs this, from a checkout or wherever it lies.

    python install_kernelspec.py                    into this environment
    python install_kernelspec.py --user             for every Jupyter of this user
    python install_kernelspec.py --uninstall        take it away again

`pip install` does it by itself; this is the explicit way, and a thin door to `lo_kernel.kernel.kernelspec`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # a checkout needs no install to be read

from lo_kernel.errors import LOError
from lo_kernel.kernel import kernelspec
from lo_kernel.settings import unknown_variables


def main(argv: list[str] | None = None) -> int:
    """Write or remove the kernelspec; 0, or with a line on stderr 1: it went wrong, 2: the options are."""
    parser = argparse.ArgumentParser(
        prog="install_kernelspec.py", description="Write the Learning Observer kernelspec for this Python."
    )
    kernelspec.add_install_arguments(parser)
    parser.add_argument("--uninstall", action="store_true", help="remove it instead")
    options = parser.parse_args(argv)
    try:
        chosen = kernelspec.options_of(options)
        variables = kernelspec.variables_of(**chosen)
    except LOError as error:
        print(f"install_kernelspec.py: {error}", file=sys.stderr)
        return 2
    for line in unknown_variables(variables):
        print(f"install_kernelspec.py: {line}", file=sys.stderr)
    try:
        if options.uninstall:
            print(f"removed {kernelspec.uninstall(**kernelspec.place_of(options))}")
        else:
            print(f"wrote {kernelspec.install(**chosen).path}")
    except LOError as error:
        print(f"install_kernelspec.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
