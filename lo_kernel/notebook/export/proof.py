"""The proof of an export: built, installed into an environment of its own, its tests run there.

The environment sees what is installed beside the notebook (``--system-site-packages``, and the folders of the
environment that this process runs in), so nothing is downloaded; with ``"index"`` it shares nothing and gets
everything from the package index that pip is set up with.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import time
import venv
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from lo_kernel.errors import ExportError, MissingExtraError
from lo_kernel.notebook.export.report import Proof

__all__ = ["check_tools", "prove"]

_WITHIN = {"venv": 120.0, "index": 900.0}  # seconds that one step may take

_LOOK = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from lo_kernel.notebook.export.shipping import plain_text
import test_reducers
import {name}
found = {{}}
for where, names in json.loads(sys.argv[2]).items():
    module = importlib.import_module(where)
    found.update((each, plain_text(getattr(module, each, None))) for each in names)
print(json.dumps({{"states": test_reducers.states(), "plain": found, "at": {name}.__file__}}))
"""
_PLAIN_RUNNER = """
import sys
sys.path.insert(0, sys.argv[1])
import test_reducers
tests = [each for name, each in sorted(vars(test_reducers).items()) if name.startswith("test_")]
for test in tests:
    test()
print(len(tests), "passed")
"""

Step = Callable[[int, str], None]


def check_tools() -> None:
    """Raise :class:`MissingExtraError` where nothing can be built here."""
    if find_spec("hatchling") is None:
        raise MissingExtraError("export", "proving an export")


async def prove(
    project: Path,
    name: str,
    states: str,
    plain: Mapping[str, Mapping[str, str]],
    *,
    kind: str = "venv",
    on_step: Step = lambda number, what: None,
) -> Proof:
    """Prove the package in ``project``.

    ``states`` are the lines that its tests must give, ``plain`` values of constants as texts, by module and
    name. Raises :class:`ExportError` with what went wrong.
    """
    check_tools()
    since = time.perf_counter()
    within = _WITHIN[kind]
    with TemporaryDirectory(prefix="lo-export-") as temporary:
        folder = Path(temporary)
        on_step(1, "building")
        build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist"))
        await _run("building it", *build, cwd=project, within=within)
        (wheel,) = (folder / "dist").glob("*.whl")
        on_step(2, "installing")
        python = await asyncio.to_thread(_environment, folder / "venv", kind)
        await _install(python, wheel, kind, folder, within)
        on_step(3, "testing")
        tests = folder / "tests"
        shutil.copytree(project / "tests", tests)
        testing = (
            _run("its tests", str(python), *_tests(kind), str(tests), cwd=folder, within=within),
            _run(
                "its states",
                str(python),
                "-c",
                _LOOK.format(name=name),
                str(tests),
                json.dumps({where: list(names) for where, names in plain.items()}),
                cwd=folder,
                within=within,
            ),
        )
        said, seen = await asyncio.gather(*testing)
        passed = re.search(r"(\d+) passed", said)
        found = json.loads(seen.splitlines()[-1])
    _check_plain(plain, found["plain"])
    if str(folder) not in str(found["at"]) or found["states"] != states:
        raise ExportError(
            f"the package gives other states than the notebook:\n{_first_other(states, found['states'])}"
        )
    counted = sum(1 for line in states.splitlines() if '"state"' in line)
    return Proof(int(passed[1]) if passed else 0, counted, time.perf_counter() - since, kind)


def _check_plain(wanted: Mapping[str, Mapping[str, str]], found: Mapping[str, str | None]) -> None:
    for names in wanted.values():
        for name, text in names.items():
            if found.get(name) != text:
                raise ExportError(
                    f"{name!r} is {text[:80]} in this notebook's memory, and {str(found.get(name))[:80]} "
                    "by the cells that define it: something changed it that isn't part of its definition. "
                    "Write the value as it should be into one cell, run it, and export again"
                )


def _first_other(wanted: str, found: str) -> str:
    for one, other in zip(wanted.splitlines(), found.splitlines(), strict=False):
        if one != other:
            return f"  notebook: {one[:300]}\n  package:  {other[:300]}"
    return "  one has more of them than the other"


def _environment(folder: Path, kind: str) -> Path:
    """Make an environment; gives its Python."""
    shared = kind != "index"
    has_pip = find_spec("pip") is not None
    builder = venv.EnvBuilder(
        system_site_packages=shared, symlinks=os.name == "posix", with_pip=not shared or not has_pip
    )
    context: SimpleNamespace = builder.ensure_directories(str(folder))
    builder.create(str(folder))
    python = Path(context.env_exe)
    if shared:  # the packages of a virtual environment are no system's packages: name them
        site = next(folder.glob("lib/python*/site-packages"), folder / "Lib" / "site-packages")
        outer = [path for path in sys.path if "site-packages" in path or "dist-packages" in path]
        lines = [f"import site; site.addsitedir({path!r})" for path in outer]
        (site / "_beside_the_notebook.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return python


async def _install(python: Path, wheel: Path, kind: str, folder: Path, within: float) -> None:
    own_pip = kind == "index" or find_spec("pip") is None
    pip = [str(python), "-m", "pip"] if own_pip else [sys.executable, "-m", "pip", "--python", str(python)]
    what = f"{wheel}[test]" if kind == "index" else str(wheel)
    source = [] if kind == "index" else ["--no-index"]
    arguments = ["install", "--quiet", "--disable-pip-version-check", "--no-compile", *source, what]
    await _run("installing it", *pip, *arguments, cwd=folder, within=within)


def _tests(kind: str) -> list[str]:
    if kind == "index" or find_spec("pytest") is not None:
        return ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "-c", os.devnull]
    return ["-c", _PLAIN_RUNNER]


async def _run(what: str, *command: str, cwd: Path, within: float) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        raise ExportError(f"the proof failed: {what} took more than {within:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        said = (out + errors).decode(errors="replace").strip()
        raise ExportError(f"the proof failed: {what} ended with {process.returncode}:\n{said[-3000:]}")
    return out.decode(errors="replace")
