"""What the pages take from the code when they are built, so that they can't say something else than it does.

A comment in a page's Markdown stands for a part that is made here:

    <!-- from the code: settings -->        a table of all settings
    <!-- from the code: commands -->        the help of each command
    <!-- from the code: lo.simulate -->     signature and docstring of a name of `lo`
    <!-- from the code: builders -->        the builders of `lo.q`
    <!-- from the code: functions -->       the functions that every query can call
    <!-- from the code: errors -->          the tree of errors
    <!-- from the code: benchmarks -->      what each benchmark measures
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from lo_kernel.notebook.observer import LearningObserver

MARK = re.compile(r"^<!-- from the code: ([\w. ]+) -->$", re.MULTILINE)

_STYLE = """
.wy-nav-content { max-width: 60rem; }
.wy-table-responsive table td, .wy-table-responsive table th { white-space: normal; vertical-align: top; }
.wy-table-responsive table td:first-child code { white-space: nowrap; }
.rst-content code, .rst-content tt, code { color: #24466b; }
"""
_ROLE = re.compile(r":\w+:`(?:[^`<]*<)?~?([^`>]+)>?`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the colours of code, and what the theme lacks."""
    from mkdocs.structure.files import File
    from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

    style = HtmlFormatter(style="friendly").get_style_defs(".codehilite")
    files.append(File.generated(config, "assets/site.css", content=f"{style}\n{_STYLE}"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what a page takes from the code."""
    return fill(markdown)


def fill(markdown: str) -> str:
    """The Markdown with each mark replaced; `KeyError` for a mark that stands for nothing."""
    return MARK.sub(lambda match: _made(match[1]), markdown)


def _made(what: str) -> str:
    if what.startswith("lo."):
        return name_of_lo(what.removeprefix("lo."))
    return _PARTS[what]()


def an_observer() -> LearningObserver:
    """A `lo` whose app is not running; it writes nothing anywhere."""
    from lo_kernel.bridge import LoopBridge
    from lo_kernel.notebook.observer import LearningObserver
    from lo_kernel.runtime import Runtime
    from lo_kernel.settings import Settings

    loop = asyncio.new_event_loop()
    loop.close()
    return LearningObserver(Runtime(Settings(store="memory")), LoopBridge(loop))


def names_of_lo() -> list[str]:
    """The public names of `lo`, sorted."""
    return [name for name in dir(an_observer()) if not name.startswith("_")]


def name_of_lo(name: str) -> str:
    """Signature and docstring of one name of `lo`."""
    lo = an_observer()
    found = inspect.getattr_static(lo, name)
    if isinstance(found, property):
        return prose(inspect.getdoc(found) or "")
    if inspect.isfunction(found):
        return f"```py\n{signature(f'lo.{name}', found)}\n```\n\n{prose(inspect.getdoc(found) or '')}"
    return prose(inspect.getdoc(type(found)) or "")


def signature(name: str, function: Callable[..., Any]) -> str:
    """How a function is called, without annotations, wrapped where it is long."""
    parameters = []
    star = False
    for parameter in list(inspect.signature(function).parameters.values()):
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            star = True
            parameters.append("*")
        parameters.append(str(parameter.replace(annotation=parameter.empty)))
    line = f"{name}({', '.join(parameters)})"
    if len(line) <= 96:
        return line
    return f"{name}(\n    " + ",\n    ".join(parameters) + ",\n)"


def prose(docstring: str) -> str:
    """A docstring as Markdown: roles and double backticks become code, doctests code blocks."""
    text = _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", docstring)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    lines: list[str] = []
    in_example = False
    for line in text.splitlines():
        if line.startswith(">>>") and not in_example:
            in_example = True
            lines.append("```pycon")
        elif in_example and not line.strip():
            in_example = False
            lines.append("```")
        lines.append(line)
    return "\n".join([*lines, "```"] if in_example else lines)


def settings_table() -> str:
    """All settings: option, variable, default, meaning."""
    from lo_kernel.settings import Settings, env_name

    rows = ["| setting | default | option, environment variable | meaning |", "|---|---|---|---|"]
    for spec in fields(Settings):
        option = f"--{spec.name.replace('_', '-')}"
        if isinstance(spec.default, bool):
            option = f"--{'no-' if spec.default else ''}{spec.name.replace('_', '-')}"
        default = f"`{spec.default}`" if spec.default != "" else "(empty)"
        rows.append(
            f"| `{spec.name}` | {default} | `{option}` `{env_name(spec.name)}` | {spec.metadata['help']} |"
        )
    return "\n".join(rows)


def command_names() -> list[str]:
    """The commands of the command line."""
    from lo_kernel import cli

    return list(cli._COMMANDS)


def help_of(*command: str) -> str:
    """What ``lo-kernel COMMAND --help`` prints."""
    from lo_kernel.cli import main

    said = io.StringIO()
    wide = patch.dict(os.environ, {"COLUMNS": "100"})  # whatever the terminal is that builds the pages
    with wide, contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return said.getvalue().rstrip()


def commands_reference() -> str:
    """The help of the command line as a whole, then of each command."""
    parts = [f"### `lo-kernel --help`\n\n```text\n{help_of()}\n```"]
    for name in command_names():
        parts.append(f"### `lo-kernel {name}`\n\n```text\n{help_of(name)}\n```")
    return "\n\n".join(parts)


def errors_tree() -> str:
    """The tree of errors, as its module draws it."""
    from lo_kernel import errors

    tree = (inspect.getdoc(errors) or "").replace("``", "")
    start, end = tree.index("LOError"), tree.rindex("\n\n")
    return f"```text\n{inspect.cleandoc('    ' + tree[start:end])}\n```"


def builders() -> str:
    """The builders of `lo.q`, one after another."""
    from lo_kernel.query.language import Q

    parts = []
    for name, member in vars(Q).items():
        if name.startswith("_") or not isinstance(member, staticmethod):
            continue
        function = member.__func__
        parts.append(
            f"### `lo.q.{name}`\n\n```py\n{signature(f'lo.q.{name}', function)}\n```\n\n"
            f"{prose(inspect.getdoc(function) or '')}"
        )
    return "\n\n".join(parts)


def functions_table() -> str:
    """The functions that are always there."""
    from lo_kernel.query.builtins import BUILTINS

    rows = ["| function | what it gives |", "|---|---|"]
    for name, function in BUILTINS.items():
        first = prose((inspect.getdoc(function) or "").partition("\n")[0])
        rows.append(f"| `{signature(name, function)}` | {first} |")
    return "\n".join(rows)


def benchmarks_table() -> str:
    """Each benchmark and the first sentence that it says of itself."""
    rows = ["| benchmark | what it measures |", "|---|---|"]
    for path in sorted((Path(__file__).parents[2] / "benchmarks").glob("[a-z]*.py")):
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append(f"| `{path.stem}` | {prose(said.partition(chr(10) * 2)[0].replace(chr(10), ' '))} |")
    return "\n".join(rows)


_PARTS: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "commands": commands_reference,
    "errors": errors_tree,
    "builders": builders,
    "functions": functions_table,
    "benchmarks": benchmarks_table,
}
