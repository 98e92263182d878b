"""The files of a package, and how they get into their place: all of them, or none."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import secrets
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lo_kernel.errors import ExportError
from lo_kernel.notebook.export import texts
from lo_kernel.notebook.export.code import format_folder, module_text
from lo_kernel.notebook.export.plan import Plan
from lo_kernel.notebook.export.seam import SEAM_FILE, seam_text

__all__ = ["Place", "diff_of", "files_of", "next_version", "put_in_place", "write_files"]

_CLUTTER = ("__pycache__", ".pytest_cache", "dist", ".ruff_cache")


@dataclass(frozen=True)
class Place:
    """Where a package goes, and what is there already: files by their path, and a version."""

    folder: Path
    files: Mapping[str, str]
    version: str = ""

    @classmethod
    def look(cls, folder: Path, *, overwrite: bool) -> Place:
        """Look; :class:`ExportError` where something is that no export wrote, or that was changed since."""
        if not folder.exists():
            return cls(folder, {})
        try:
            project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
            hashes: dict[str, str] = project["tool"]["lo_kernel"]["export"]
        except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
            if folder.is_dir() and not any(folder.iterdir()):
                return cls(folder, {})
            raise ExportError(
                f"{folder} is there already, and was not made by an export ({type(error).__name__}): "
                "choose another path or name"
            ) from None
        files = {}
        changed = []
        for name in (*hashes, "pyproject.toml"):
            with contextlib.suppress(OSError):
                files[name] = (folder / name).read_text(encoding="utf-8")
                if name in hashes and _digest(files[name]) != hashes[name]:
                    changed.append(name)
        if changed and not overwrite:
            raise ExportError(
                f"{folder}: {', '.join(changed)} changed by hand since the last export, which would be "
                "lost. Take the change into the notebook, or export with overwrite=True"
            )
        return cls(folder, files, project["project"]["version"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_of(plan: Plan) -> dict[str, str]:
    """The modules and dashboards of a package, by their path."""
    name = plan.name
    source = plan.reach.notebook.name
    shared = {each for unit in plan.code.units if not unit.is_import for each in unit.binds}
    needed = sorted(
        shared & {need for unit in plan.more.units for need in (*unit.now, *unit.later, *unit.hints)}
    )
    from_reducers = [f"from {name}.reducers import {', '.join(needed)}"] if needed else []
    future = ["from __future__ import annotations"] if plan.reach.future else []
    files = {
        f"{name}/__init__.py": f'"""A Learning Observer module, exported from {source}."""\n',
        f"{name}/{SEAM_FILE}": seam_text(),
        f"{name}/reducers.py": module_text(
            f"What is kept of the events, from {source}.", plan.code, name, future
        ),
        f"{name}/queries.py": texts.queries_py(plan),
        f"{name}/module.py": texts.module_py(plan),
        "tests/test_reducers.py": texts.test_py(plan),
    }
    if any(not unit.is_import for unit in plan.more.units):
        files[f"{name}/functions.py"] = module_text(
            f"Functions that queries call, from {source}.", plan.more, name, [*future, *from_reducers]
        )
    for board in plan.dashboards:
        files[f"{name}/dashboards/{board['id']}.json"] = texts.dumps(board)
    for path, text in files.items():
        if path.endswith(".py"):
            try:
                compile(text, path, "exec")
            except SyntaxError as error:
                raise ExportError(
                    f"the code of {path}, line {error.lineno}, isn't a module's: {error.msg}: {error.text}"
                ) from None
    return files


def write_files(folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Write files below ``folder`` and format the modules; gives them as they are then."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    format_folder(folder)
    return {name: (folder / name).read_text(encoding="utf-8") for name in files}


def hashes_of(files: Mapping[str, str]) -> dict[str, str]:
    """What tells a file that was changed by hand."""
    return {name: _digest(text) for name, text in files.items()}


def next_version(place: Place, new: Mapping[str, str]) -> str:
    """The version of a package: the next one where a module of it changed."""
    if not place.version:
        return "0.1.0"
    modules = {name for name in {*place.files, *new} if not name.startswith("tests/") and "/" in name}
    if all(place.files.get(name) == new.get(name) for name in modules):
        return place.version
    head, _, last = place.version.rpartition(".")
    return f"{head}.{int(last) + 1}" if head and last.isdecimal() else f"{place.version}.1"


def diff_of(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """What changes, as a unified diff; empty where nothing was there before."""
    if not old:
        return ""
    return "".join(_diffs(old, new))


def _diffs(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        before, after = old.get(name, ""), new.get(name, "")
        if before != after and not name.startswith("tests/") and name != "pyproject.toml":
            yield from difflib.unified_diff(
                before.splitlines(True), after.splitlines(True), f"a/{name}", f"b/{name}", n=2
            )


@contextlib.contextmanager
def work_folder(place: Path) -> Iterator[Path]:
    """A folder beside ``place``, gone afterwards unless it was moved there."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = place.parent / f".{place.name}.{secrets.token_hex(4)}.tmp"
        folder.mkdir()
    except OSError as error:
        raise ExportError(f"{place.parent}: nothing can be written there: {error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(made: Path, place: Place) -> None:
    """Move a finished folder to its place in one step; what a person put there besides stays there."""
    target = place.folder
    for name in _CLUTTER:
        for found in list(made.rglob(name)):
            shutil.rmtree(found, ignore_errors=True)
    if not target.exists():
        made.replace(target)
        return
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}.old"
    target.replace(aside)
    try:
        made.replace(target)
    except BaseException:
        aside.replace(target)
        raise
    _keep(aside, target, set(place.files))
    shutil.rmtree(aside, ignore_errors=True)


def _keep(old: Path, new: Path, written: set[str], below: str = "") -> None:
    """Move over what no export wrote: a person's own files."""
    for path in list(old.iterdir()):
        name = f"{below}{path.name}"
        if name in written or path.name in _CLUTTER:
            continue
        shared = any(each.startswith(f"{name}/") for each in written)
        if path.is_dir() and not path.is_symlink() and (shared or (new / path.name).is_dir()):
            (new / path.name).mkdir(exist_ok=True)
            _keep(path, new / path.name, written, f"{name}/")
            if not any((new / path.name).iterdir()):
                (new / path.name).rmdir()
        elif not (new / path.name).exists():
            path.replace(new / path.name)
