"""``lo-kernel inject``: an exported module into a running server, or out of it."""

from __future__ import annotations

import asyncio
import getpass
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from lo_kernel.app.sending import send
from lo_kernel.commands.options import OptionParser

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """``lo-kernel inject MODULE URL``."""
    parser = OptionParser(
        "inject", "Put an exported module into a running server that was started with --allow-inject."
    )
    parser.add_argument("module", help="folder of the exported module; to roll back, its name will do")
    parser.add_argument("url", help="the server: https://HOST:PORT, or http:// on this machine")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="the server's injected/token [asked for]"
    )
    parser.add_argument(
        "--migrate",
        default="restream",
        metavar="HOW",
        help="what becomes of states: restream, drop, keep, or a function of its reducers [restream]",
    )
    parser.add_argument("--rollback", action="store_true", help="take the newest version out again")
    options = parser.parse(arguments)
    try:
        token = (
            options.token_file.read_text(encoding="utf-8").strip()
            if options.token_file is not None
            else _asked()
        )
    except OSError as error:
        parser.error(f"--token-file: {error}")
    except (getpass.GetPassWarning, EOFError):
        parser.error(
            "expected a token, and there is no terminal to ask at: give the server's injected/token with "
            "--token-file FILE"
        )
    answer = asyncio.run(
        send(options.url, token, options.module, migrate=options.migrate, rollback=options.rollback)
    )
    print(injected_text(answer), file=sys.stdout)
    return 0


def _asked() -> str:
    """The token from a terminal, which doesn't show it; `getpass.GetPassWarning` where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        return getpass.getpass("token of the kind 'inject': ")


def injected_text(answer: dict[str, object]) -> str:
    """What a server answered, in a line."""
    if answer["version"] is None:
        return f"{answer['module']}: taken out"
    return f"{answer['module']} {answer['version']} is in ({str(answer['sha256'])[:16]})"
