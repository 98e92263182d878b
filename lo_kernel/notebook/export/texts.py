"""The texts of a package that are the same but for names: tests, README, pyproject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import lo_kernel
from lo_kernel.notebook.export.code import literal
from lo_kernel.notebook.export.plan import Plan, scope_code

__all__ = ["module_py", "pyproject", "queries_py", "readme", "test_py"]


def module_py(plan: Plan) -> str:
    """The module that the entry point names."""
    names = [each.name for each in plan.reducers]
    in_functions = {name for unit in plan.more.units if not unit.is_import for name in unit.binds}
    own = sorted(set(plan.functions.values()) & in_functions)
    shared = sorted(set(plan.functions.values()) - in_functions)
    scopes = [scope_code(each.scope) for each in plan.reducers]
    seam = [
        name for name in ("EventField", "KeyField", "Scope") if any(f"{name}" in scope for scope in scopes)
    ]
    if plan.functions:
        seam.append("publish")
    reducers = ", ".join(sorted({*names, *shared}))
    imports = [f"from {plan.name}.functions import {', '.join(own)}"] if own else []
    imports.append(f"from {plan.name}.queries import EXECUTION_DAG")
    imports.append(f"from {plan.name}.reducers import {reducers}")
    imports.append(f"from {plan.name}.seam import {', '.join(seam)}")
    entries = ""
    for each, scope in zip(plan.reducers, scopes, strict=True):
        default = each.null_state if each.default is None else each.default
        context = each.context if each.context else "org.mitros.writing_analytics"
        entries += (
            "    {\n"
            f'        "id": "{plan.name}.{each.name}",\n'
            f'        "context": {literal(context)},\n'
            f'        "scope": {scope},\n'
            f'        "function": {each.name},\n'
            f'        "default": {literal(default, 8)},\n'
            "    },\n"
        )
    functions = "".join(
        f"        {literal(name)}: {function},\n" for name, function in plan.functions.items()
    )
    published = f"FUNCTIONS = publish(\n    {{\n{functions}    }}\n)\n\n" if plan.functions else ""
    also = ['"FUNCTIONS", '] if plan.functions else []
    return f'''"""The module as a Learning Observer finds it: what the entry point ``lo_modules`` names."""

import json
from pathlib import Path

{chr(10).join(imports)}

__all__ = ["COURSE_DASHBOARDS", "DASHBOARDS", "EXECUTION_DAG", {"".join(also)}"NAME", "REDUCERS"]

NAME = "{plan.name.replace("_", " ").capitalize()}"

REDUCERS = [
{entries}]

{published}DASHBOARDS = [
    json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "dashboards").glob("*.json"))
]

COURSE_DASHBOARDS = [
    {{"name": board["title"], "url": f"/dashboards/{{board['id']}}", "icon": board.get("icon", "")}}
    for board in DASHBOARDS
]
'''


def queries_py(plan: Plan) -> str:
    """The module of queries."""
    return f'''"""What is asked of the reducers' states, in the query language of the Learning Observer."""

EXECUTION_DAG = {literal(plan.dag)}
'''


def test_py(plan: Plan) -> str:
    """The tests of a package."""
    return f'''"""The reducers give the states that the notebook gave for ``sample.jsonl``."""

import asyncio
import json
from pathlib import Path

from lo_kernel.engine.fold import fold
from lo_kernel.engine.states import encode_state
from lo_kernel.query.dag import Dag

from {plan.name}.module import DASHBOARDS, EXECUTION_DAG, REDUCERS

HERE = Path(__file__).parent


def states() -> str:
    """Each state as a line of JSON, as ``states.jsonl`` has them."""
    lines = []
    for entry in REDUCERS:
        name = entry["id"].rpartition(".")[2]
        folding = fold(
            entry["function"], HERE / "sample.jsonl", context=entry["context"], scope=entry["scope"]
        )
        folded = asyncio.run(folding)
        for key, state in sorted(folded.items()):
            whose = json.dumps(",".join(key.split(",")[2:]))
            text = encode_state(state).decode()
            lines.append(f'{{{{"reducer": {{json.dumps(name)}}, "of": {{whose}}, "state": {{text}}}}}}')
        lines.append(json.dumps({{"reducer": name, "failures": folded.failures}}))
    return "\\n".join(lines) + "\\n"


def test_states_are_those_of_the_notebook() -> None:
    """The same events give the same states, byte for byte of their JSON."""
    assert states() == (HERE / "states.jsonl").read_text(encoding="utf-8")


def test_queries_can_be_read() -> None:
    """Every query is whole, and every dashboard shows one that is there."""
    exports = {{f"{plan.name}.{{name}}" for name in Dag.read(EXECUTION_DAG).exports}}
    shown = {{panel["query"] for board in DASHBOARDS for panel in board["panels"]}}
    assert shown <= exports
'''


def pyproject(plan: Plan, version: str, requirements: Mapping[str, str], hashes: Mapping[str, str]) -> str:
    """``pyproject.toml``; ``hashes`` say what the files were when they were written."""
    needs = "".join(f'\n  "{each}",' for each in requirements.values()) + ("\n" if requirements else "")
    files = "".join(f'"{name}" = "{digest}"\n' for name, digest in sorted(hashes.items()))
    return f'''[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{plan.name.replace("_", "-")}"
version = "{version}"
description = "A module for the Learning Observer, exported from {plan.reach.notebook.name}"
readme = "README.md"
requires-python = ">=3.11"
dependencies = [{needs}]

[project.optional-dependencies]
test = ["lo-kernel>={lo_kernel.__version__}", "pytest"]

[project.entry-points.lo_modules]
{plan.name} = "{plan.name}.module"

[tool.hatch.build.targets.wheel]
packages = ["{plan.name}"]

# What lo.export wrote: it tells a file that was changed since by hand.
[tool.lo_kernel.export]
{files}'''


def readme(plan: Plan, requirements: Mapping[str, str], about: Mapping[str, Any]) -> str:
    """The README: what it is, how it gets into production, where each piece came from."""
    rows = ""
    for part, units in (("reducers.py", plan.code.units), ("functions.py", plan.more.units)):
        for unit in units:
            if unit.is_import:
                continue
            digest = hashlib.sha256(unit.text.encode()).hexdigest()[:12]
            names = ", ".join(f"`{name}`" for name in sorted(unit.binds) or sorted(unit.changes))
            rows += f"| {names} | `{part}` | {unit.place} | `{digest}` |\n"
    boards = "".join(f"- {board['title']}: `/dashboards/{board['id']}`\n" for board in plan.dashboards)
    needs = ", ".join(f"`{each}`" for each in requirements.values()) or "nothing but Python"
    notes = "".join(f"- {note}\n" for note in plan.notes)
    return f"""# {plan.name.replace("_", " ").capitalize()}

A module for the Learning Observer, exported from the notebook `{plan.reach.notebook.name}`.

Reducers: {", ".join(f"`{plan.name}.{each.name}`" for each in plan.reducers)}.
Queries: {", ".join(f"`{plan.name}.{name}`" for name in plan.dag["exports"])}.
{"Dashboards:" + chr(10) + chr(10) + boards if boards else ""}
## Into production

With lo_kernel:

```sh
pip install ./{plan.name}
lo-kernel serve --modules {plan.name}
```

Into a lo_kernel server that runs, and was started with `--allow-inject`:
`lo-kernel inject {plan.name} https://HOST:PORT`.

On a deployed Learning Observer: `pip install ./{plan.name}` into its environment, and restart it. It finds
the module by its entry point `lo_modules`. (The dashboards here are drawn by lo_kernel; the reducers and
queries are the same on both.)

It needs {needs}.

## Tests

```sh
pip install "./{plan.name}[test]"
pytest {plan.name}/tests
```

`tests/sample.jsonl` holds {about["events"]} events {about["of"]}, and
`tests/states.jsonl` the states that they gave {about["where"]}. Whoever sent them has another id there;
**what learners typed is as they typed it: look before you publish it**.

## Where each piece came from

| name | file | cell | SHA-256 |
|---|---|---|---|
{rows}{chr(10) + notes if notes else ""}"""


def dumps(value: Any) -> str:
    """JSON as it is written into files."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
