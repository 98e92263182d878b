"""The walls of the house: which room knows which, and that no module holds state or a place of its own.

Read from the syntax of each module, so that an import inside a function or under TYPE_CHECKING counts too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from harness import python

import lo_kernel

PACKAGE = Path(lo_kernel.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# From left to right: a module imports from its own place and from those to its left. What is in no room
# stands where its work is: at the left the ground that all rooms share, beside `app` the owner of all parts,
# which the app is given, and at the right end the doors (`cli`, ...).
ORDER = (
    ("errors",),
    ("settings", "bridge", "lock", "read_log"),
    ("workspace",),
    ("engine",),
    ("query",),
    ("overview",),
    ("runtime", "app", "modules", "compat"),
    ("notebook",),
    ("kernel",),
    ("jupyter_helpers", "upstream"),
    ("commands", "cli", "__main__"),
)
PLACES = {name: index for index, names in enumerate(ORDER) for name in names}
# The public list names everything, and imports nothing before it is asked: tested for itself, below.
WALLED = [path for path in MODULES if path != PACKAGE / "__init__.py"]

_MUTATORS = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove",
    "setdefault", "update",
}  # fmt: skip
_CONTAINERS = {
    "dict", "list", "set", "defaultdict", "deque", "Counter", "OrderedDict", "WeakSet", "WeakKeyDictionary",
    "WeakValueDictionary", "Lock", "RLock", "Event", "Queue", "local",
}  # fmt: skip


def name_of(path: Path) -> str:
    """`engine/keys.py` for a module, as test ids show it."""
    return path.relative_to(PACKAGE).as_posix()


def place_of(path: Path) -> str:
    """The room that a module is in, or its own name where it stands outside of all."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def dotted(path: Path) -> str:
    """`lo_kernel.engine.keys`; a package goes by its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("lo_kernel", *parts)).removesuffix(".__init__")


def tree_of(path: Path) -> ast.Module:
    """The module's syntax."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and place of everything of this package that a module imports."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found = {tuple(name.split(".")[:2]) for name in imported_names(node, path)}
            yield from (
                (node.lineno, parts[1]) for parts in sorted(found) if parts[0] == "lo_kernel" and parts[1:]
            )


def imported_names(node: ast.AST, path: Path) -> Iterator[str]:
    """The modules that one statement imports; of `from a import b` both `a` and `a.b`, which may be one."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = ("lo_kernel", *path.relative_to(PACKAGE).parts[:-1])
        start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
        module = ".".join(part for part in (start, node.module) if part)
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)


def globals_of(tree: ast.Module) -> dict[str, ast.expr]:
    """The names that a module binds at its top level, with what they are bound to."""
    bound: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            bound |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            bound[node.target.id] = node.value
    return bound


def is_made_to_be_filled(value: ast.expr) -> bool:
    """Whether a value is an empty container, or something that only makes sense when it changes."""
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List | ast.Set):
        return not value.elts
    if isinstance(value, ast.Call):
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return called in _CONTAINERS and not value.args
    return False


@pytest.mark.parametrize("path", WALLED, ids=name_of)
def test_a_room_imports_only_rooms_to_its_left(path: Path) -> None:
    """No module imports from a room to its right."""
    here = place_of(path)
    assert here in PLACES, f"{here} is in no room: give it its place in ORDER"
    wrong = [
        f"line {line}: {here} imports {there}"
        for line, there in imports_of(path)
        if there in PLACES and PLACES[there] > PLACES[here]
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_go_in_no_circle() -> None:
    """No two modules need each other to be imported: what runs at import has an order."""
    by_name = {dotted(path): path for path in WALLED}
    needs: dict[str, set[str]] = {}
    for name, path in by_name.items():
        named = (each for node in tree_of(path).body for each in imported_names(node, path))
        needs[name] = {each for each in named if each in by_name and each != name}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_asks_where_it_was_started(path: Path) -> None:
    """Paths come from settings: nothing reads or changes the working directory or rewrites sys.argv.

    Only a command that a person types may write where that person stands.
    """
    typed = place_of(path) == "commands"
    wrong = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text == "os.chdir" or (text in ("os.getcwd", "Path.cwd", "pathlib.Path.cwd") and not typed):
                wrong.append(f"line {node.lineno}: {text}")
            if text == "sys.argv" and isinstance(node.ctx, ast.Store):
                wrong.append(f"line {node.lineno}: sys.argv is assigned")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_holds_state(path: Path) -> None:
    """What a module binds at its top level is constant: nothing to be filled, no `global`, no change."""
    tree = tree_of(path)
    bound = globals_of(tree)
    wrong = [f"{name} is made to be filled" for name, value in bound.items() if is_made_to_be_filled(value)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            wrong.append(f"line {node.lineno}: global {', '.join(node.names)}")
        target: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            target = node.func.value if node.func.attr in _MUTATORS else None
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node.value
        if isinstance(target, ast.Name) and target.id in bound:
            wrong.append(f"line {target.lineno}: {target.id}, bound at the top level, is changed")
    assert not wrong, "\n".join(wrong)


def test_the_package_itself_costs_nothing_to_import(environment: dict[str, str], tmp_path: Path) -> None:
    """`import lo_kernel` imports no other module of the package, no dependency, and not even `typing`."""
    code = "import sys, lo_kernel; print(*sorted(m for m in sys.modules if m.split('.')[0] in sys.argv[1:]))"
    heavy = ["typing", "asyncio", "aiohttp", "IPython", "ipykernel", "msgspec", "zmq", "traitlets"]
    loaded = python("-c", code, "lo_kernel", *heavy, env=environment, cwd=tmp_path).split()
    assert loaded == ["lo_kernel"]


def test_a_kernel_comes_up_before_the_engine_does(environment: dict[str, str], tmp_path: Path) -> None:
    """The kernel's own modules import nothing of the engine, the app or what these need."""
    code = "import sys, lo_kernel.kernel.kernel; print(*(m for m in sys.argv[1:] if m in sys.modules))"
    later = ["engine", "app", "query", "notebook", "modules", "runtime", "bridge"]
    heavy = [*(f"lo_kernel.{each}" for each in later), "msgspec", "aiohttp", "sqlite3"]
    loaded = python("-c", code, *heavy, env=environment, cwd=tmp_path).split()
    assert loaded == []


def test_the_public_list_is_complete() -> None:
    """Each public name is there, is in `dir()`, and an unknown one is an AttributeError."""
    for name in lo_kernel.__all__:
        assert getattr(lo_kernel, name) is not None
        assert name in dir(lo_kernel)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lo_kernel.nothing  # noqa: B018 - the access is the test
