"""What a module object says that it has, read into one form; nothing of it is acted on yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from lo_kernel.engine.keys import Scope
from lo_kernel.engine.reducers import declaration_of
from lo_kernel.errors import LOError

__all__ = ["Contents", "ReducerEntry", "View", "read_contents"]

_NO_USE = {
    "COURSE_AGGREGATORS": "aggregators of the older dashboards; queries answer here",
    "STUDENT_AGGREGATORS": "aggregators of the older dashboards; queries answer here",
    "WSGI": "web applications of its own (WSGI)",
}


@dataclass(frozen=True)
class ReducerEntry:
    """A reducer, and under which id and context it is registered."""

    id: str
    function: Any
    context: str | None
    scope: Scope
    default: Any


@dataclass(frozen=True)
class View:
    """What answers at ``/views/<module>/<suburl>/``: data, or a handler of requests."""

    method: str
    suburl: str
    data: Any = None
    handler: Callable[[Any], Any] | None = None


@dataclass
class Contents:
    """Everything of one module. ``problems`` names parts that can't be read, ``not_served`` the rest."""

    name: str
    title: str
    reducers: list[ReducerEntry] = field(default_factory=list)
    dag: Any = None
    functions: dict[str, Any] = field(default_factory=dict)
    ticks: dict[str, float] = field(default_factory=dict)
    dashboards: list[Mapping[str, Any]] = field(default_factory=list)
    course_links: list[Mapping[str, Any]] = field(default_factory=list)
    student_links: list[Mapping[str, Any]] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    ajax: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    """Files to serve, by the start of their addresses."""
    dash_pages: list[Mapping[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    not_served: list[str] = field(default_factory=list)


def read_contents(module: ModuleType) -> Contents:
    """Read a module; raises :class:`LOError` where it is none at all."""
    title = getattr(module, "NAME", None)
    if not isinstance(title, str) or not title:
        raise LOError(f"{module.__name__}: expected NAME, a text that says what the module is called")
    name = module.__name__.removesuffix(".module")
    found = Contents(name, title)
    for part in _PARTS:
        try:
            part(module, found)
        except Exception as error:  # of a module that goes wrong in one place the rest is of use
            found.problems.append(f"{part.__name__.strip('_')}: {error}")
    return found


def _reducers(module: ModuleType, found: Contents) -> None:
    seen: dict[str, Scope] = {}
    for number, entry in enumerate(_list_of(module, "REDUCERS"), 1):
        function = entry.get("function")
        if not callable(function):
            found.problems.append(f"REDUCERS, entry {number}: expected a 'function', got {function!r:.80}")
            continue
        reducer_id = entry.get("id") or f"{found.name}.{function.__name__}"
        scope = Scope(entry["scope"]) if entry.get("scope") else declaration_of(function).scope
        if reducer_id in seen:  # the same reducer by document, and by document and tab, say
            more = [name.rpartition(".")[2] for name in scope.names if name not in seen[reducer_id].names]
            reducer_id = ".".join([reducer_id, *(more or ["again"])])
        seen[reducer_id] = scope
        found.reducers.append(
            ReducerEntry(
                reducer_id,
                function,
                entry.get("context"),
                scope,
                entry.get("default"),
            )
        )


def _query(module: ModuleType, found: Contents) -> None:
    found.dag = getattr(module, "EXECUTION_DAG", None)
    found.functions = dict(getattr(module, "FUNCTIONS", None) or {})
    found.ticks = dict(getattr(module, "TICKS", None) or {})


def _dashboards(module: ModuleType, found: Contents) -> None:
    own = getattr(module, "DASHBOARD", None)
    found.dashboards = [*([own] if own else []), *_list_of(module, "DASHBOARDS")]
    found.course_links = list(_list_of(module, "COURSE_DASHBOARDS"))
    found.student_links = list(_list_of(module, "STUDENT_DASHBOARDS"))


def _views(module: ModuleType, found: Contents) -> None:
    for number, view in enumerate(_list_of(module, "EXTRA_VIEWS"), 1):
        suburl = str(view.get("suburl", "")).strip("/")
        if suburl and "static_json" in view:
            found.views.append(View("GET", suburl, data=view["static_json"]))
        elif suburl and callable(view.get("handler")):
            found.views.append(View(str(view.get("method", "GET")).upper(), suburl, handler=view["handler"]))
        else:
            found.problems.append(
                f"EXTRA_VIEWS, entry {number}: expected 'suburl', and 'static_json' or a 'handler', got "
                f"{view!r:.80}"
            )
    ajax = getattr(module, "AJAX", None) or {}
    found.ajax = {str(name): call for name, call in ajax.items() if callable(call)}
    found.problems += [f"AJAX, {name!r}: expected a function" for name in ajax if str(name) not in found.ajax]


def _files(module: ModuleType, found: Contents) -> None:
    own = Path(module.__file__).parent if module.__file__ else None
    if own is not None and (own / "static").is_dir():
        found.folders[f"static/modules/{found.name}/"] = own / "static"
    for repo, about in (getattr(module, "STATIC_FILE_GIT_REPOS", None) or {}).items():
        folder = _inside(own, about.get("prefix", "")) if own is not None else None
        if folder is None:
            found.not_served.append(f"the files of the git repository {repo!r}: nothing is cloned here")
        else:  # what is installed, whichever branch is asked for
            found.folders[f"static/repos/{found.name}/{repo}/*/"] = folder
    for page in _list_of(module, "NEXTJS_PAGES"):
        path = str(page.get("path", "")).strip("/")
        if own is None or not path or not (own / path / "index.html").is_file():
            found.not_served.append(f"the Next.js page {path!r}: its build is not in the package")
            continue
        found.folders[f"{found.name}/{path}/"] = own / path
        found.folders[f"_next/{found.name}/{path}_next/static/"] = own / path / "_next" / "static"
        found.folders[f"_next/{found.name}/{path}/_next/static/"] = own / path / "_next" / "static"
    third_party = list(getattr(module, "THIRD_PARTY", None) or {})
    if third_party:
        more = f" and {len(third_party) - 1} more" if len(third_party) > 1 else ""
        found.not_served.append(f"third-party files ({third_party[0]}{more}): nothing is downloaded here")


def _rest(module: ModuleType, found: Contents) -> None:
    found.dash_pages = list(_list_of(module, "DASH_PAGES"))
    for name, what in _NO_USE.items():
        if getattr(module, name, None):
            found.not_served.append(f"{name}: {what}")


_PARTS = (_reducers, _query, _dashboards, _views, _files, _rest)


def _list_of(module: ModuleType, name: str) -> Iterator[Mapping[str, Any]]:
    """A list of mappings; the field writes an empty one as ``{}``, too."""
    value = getattr(module, name, None) or []
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise LOError(f"{name}: expected a list, got {type(value).__name__}")
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, Mapping):
            raise LOError(f"{name}, entry {number}: expected a mapping, got {type(entry).__name__}")
        yield entry


def _inside(package: Path, prefix: str) -> Path | None:
    """The folder of an installed package that a path in its repository stands for."""
    parts = PurePosixPath(prefix).parts
    if package.name not in parts:
        return None
    at = len(parts) - parts[::-1].index(package.name)
    folder = package.joinpath(*parts[at:])
    return folder if at < len(parts) and folder.is_dir() else None
