"""``python -m lo_kernel``, and ``python lo_kernel/`` from a checkout."""

from __future__ import annotations

import sys

if not __package__:
    # Run as a folder, Python has put lo_kernel/ itself first on the path, where modules of ours would hide
    # those of the standard library; what belongs there is the folder that holds lo_kernel/.
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lo_kernel.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
