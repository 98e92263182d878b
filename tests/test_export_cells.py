# ruff: noqa: E501 - a cell is one text, and reads best on one line
"""A corpus of awkward cells: what each must give in a package, and what each error must say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from export_parts import Session, imported, states, states_of

from lo_kernel.app.dashboards import Dashboard
from lo_kernel.errors import ExportError
from lo_kernel.notebook.export.cells import read_notebook
from lo_kernel.notebook.export.code import literal
from lo_kernel.notebook.export.reach import Reach
from lo_kernel.notebook.export.requirements import requirements
from lo_kernel.notebook.export.sample import sample_text
from lo_kernel.notebook.export.writer import files_of
from lo_kernel.query.language import q

HEAD = "from lo_kernel import student_event_reducer, kvs_pipeline, Scope, KeyField, EventField\n"


def reducer(body: str, null: str = "{'n': 0}", above: str = "") -> str:
    """A cell with the reducer ``count``."""
    return f"{above}@student_event_reducer(null_state={null})\nasync def count(event, state):\n{body}\n"


ADD = "    state['n'] += {}\n    return state, state"

SHIPPED: dict[str, tuple[list[str], list[str], list[str]]] = {
    "plain": (
        [HEAD, reducer(ADD.format("1"))],
        ["async def count", "my_module.seam import"],
        ["lo_kernel import"],
    ),
    "helpers of helpers": (
        [
            HEAD,
            "def a():\n    return b()\n\ndef b():\n    return 2\n\ndef unused(): pass",
            reducer(ADD.format("a()")),
        ],
        ["def a", "def b"],
        ["unused"],
    ),
    "comments between": (
        [
            HEAD,
            "# the whole cell\n\n# how much\nSTEP = 3  # at once\n# not of anything\n\n",
            "# about the reducer\n" + reducer("    # inside\n" + ADD.format("STEP") + "\n    # at the end"),
        ],
        [
            "# the whole cell",
            "# how much\nSTEP = 3  # at once",
            "# about the reducer\n@stu",
            "# inside",
            "# at the end",
        ],
        ["not of anything"],
    ),
    "decorators": (
        [
            HEAD + "import functools",
            "def twice(f):\n    @functools.wraps(f)\n    def inner(*a):\n        return 2 * f(*a)\n    "
            "return inner",
            "@twice\n@functools.cache\ndef step():\n    return 2",
            reducer(ADD.format("step()")),
        ],
        ["import functools", "def twice", "@twice\n@functools.cache\ndef step"],
        [],
    ),
    "nested functions and recursion": (
        [
            HEAD,
            "def fib(n):\n    def sub(k):\n        return fib(n - k)\n    return n if n < 2 else sub(1) + "
            "sub(2)",
            "def even(n): return n == 0 or odd(n - 1)",
            "def odd(n): return n != 0 and even(n - 1)",
            reducer(ADD.format("fib(6) + even(4)")),
        ],
        ["def fib", "def even", "def odd"],
        [],
    ),
    "dataclass": (
        [
            HEAD + "from dataclasses import dataclass, field, asdict",
            "@dataclass\nclass Base:\n    n: int = 1\n\n@dataclass\nclass Step(Base):\n    more: "
            "list[int] = field("
            "default_factory=lambda: [LAST])\n",
            "LAST = 5",
            reducer(ADD.format("sum(Step().more) + asdict(Step())['n']")),
        ],
        ["class Base", "class Step(Base)", "LAST = 5", "from dataclasses import asdict, dataclass, field"],
        [],
    ),
    "globals that were changed": (
        [
            HEAD,
            "WORDS = ['a']\nTABLE = {}",
            "WORDS.append('b')\nfor w in WORDS:\n    TABLE[w] = len(w)\nTABLE['c'] = 4\nprint(TABLE)",
            reducer(ADD.format("sum(TABLE.values()) + len(WORDS)")),
        ],
        ["WORDS.append('b')", "for w in WORDS", "TABLE['c'] = 4"],
        ["print"],
    ),
    "augmented": (
        [HEAD, "N = 1", "N += 2", "N *= 3", reducer(ADD.format("N"))],
        ["N = 1", "N += 2", "N *= 3"],
        [],
    ),
    "lambda": (
        [HEAD, "double = lambda n: 2 * n + OFF", "OFF = 1", reducer(ADD.format("double(2)"))],
        ["double = lambda", "OFF = 1"],
        [],
    ),
    "star import": (
        [HEAD + "from math import *", reducer(ADD.format("floor(pi)"))],
        ["from math import floor, pi"],
        ["import *"],
    ),
    "conditional import": (
        [
            HEAD + "try:\n    import no_such_package as fast\nexcept ImportError:\n    fast = None",
            "import sys\nif sys.version_info > (3,):\n    from math import floor as down\nelse:\n    down "
            "= int",
            reducer(ADD.format("down(1.5) + (0 if fast else 1)")),
        ],
        ["try:\n    import no_such_package as fast\nexcept ImportError:", "if sys.version_info"],
        [],
    ),
    "type alias": (
        [
            HEAD + "from typing import Any, TypeAlias",
            "State: TypeAlias = dict[str, Any]\nPair = tuple[State, State]",
            "def step(state: State, other: 'Pair | None' = None) -> int:\n    return 1",
            reducer(ADD.format("step(state)")),
        ],
        ["State: TypeAlias = dict[str, Any]", "Pair = tuple[State, State]"],
        [],
    ),
    "async helper": (
        [
            HEAD + "import asyncio",
            "async def step():\n    await asyncio.sleep(0)\n    return 2",
            reducer(ADD.format("await step()")),
        ],
        ["async def step", "import asyncio"],
        [],
    ),
    "redefinition": (
        [HEAD, "def step(): return 1", reducer(ADD.format("step()")), "def step(): return 5"],
        ["return 5"],
        ["return 1\n"],
    ),
    "a default keeps what was": (
        [HEAD, "N = 2", "def step(n=N): return n * 100 + N", "N = 3", reducer(ADD.format("step()"))],
        ["N = 2\n", "N = 3\n"],
        [],
    ),
    "a cell that ran twice": (
        [HEAD, "N = 2", "def step(n=N): return n", "N = 2", reducer(ADD.format("step() + N"))],
        ["N = 2"],
        ["N = 2\n\n\nN = 2", "return n\n\n\nN = 2"],
    ),
    "a cell that failed halfway": (
        [HEAD, "def step(): return 2", "1 / 0\ndef step(): return 9", "N = 1", reducer(ADD.format("N"))],
        ["N = 1"],
        ["return 9"],
    ),
    "one line, many statements": (
        [HEAD, "A = 1; B = 2; print('no')", "x, (y, *z) = 1, (2, 3)", reducer(ADD.format("A + y + z[0]"))],
        ["A = 1", "x, (y, *z) = 1, (2, 3)"],
        ["print", "B = 2"],
    ),
    "long texts": (
        [HEAD, 'TEXT = """one\n  # two\nthree"""', reducer(ADD.format("len(TEXT)"))],
        ['TEXT = """one\n  # two\nthree"""'],
        [],
    ),
    "measured cell": (
        [HEAD, "%%time\n# how far\ndef step():\n    return 4", reducer(ADD.format("step()"))],
        ["# how far\ndef step"],
        ["%%time"],
    ),
    "magics beside": (
        [HEAD, "%matplotlib inline\n!ls\nN = 3\n%time print(N)", reducer(ADD.format("N"))],
        ["N = 3"],
        ["get_ipython", "%"],
    ),
    "factory": (
        [
            HEAD,
            "def make(step):\n    @student_event_reducer(null_state={'n': 0})\n    async def count(event, "
            "state):\n"
            "        state['n'] += step\n        return state, state\n    return count\n\ncount = make(4)",
        ],
        ["def make", "count = make(4)"],
        [],
    ),
    "registered in one line": (
        [
            HEAD + "NULL = {'n': 0}\nWHERE = 'org.mitros.writing_analytics'",
            "@lo.reducer('c', null_state=NULL, context=WHERE,\n            migrate='keep')\nasync def "
            "count(event, state):\n"
            "    return {'n': state['n'] + 1}, None",
        ],
        ["@student_event_reducer(null_state=NULL)\nasync def count", "NULL = {'n': 0}"],
        ["WHERE", "migrate", "lo.reducer"],
    ),
    "registered with a scope": (
        [
            HEAD,
            "@lo.reducer(scope=Scope([KeyField.STUDENT, EventField('doc_id')]))\ndef count(event, state):\n"
            "    return {'n': 1}, None",
        ],
        ["@kvs_pipeline(scope=Scope([KeyField.STUDENT, EventField('doc_id')]))"],
        [],
    ),
    "undecorated": (
        ["def count(event, state):\n    return {'n': 1}, None"],
        ["@student_event_reducer()\ndef count"],
        [],
    ),
    "class with a base and a classmethod": (
        [
            HEAD + "import enum",
            "class Kind(enum.Enum):\n    A = 1\n    B = 2\n\n    @classmethod\n    def total(cls):\n"
            "        return sum(each.value for each in cls) + extra()\n",
            "def extra(): return 1",
            reducer(ADD.format("Kind.total()")),
        ],
        ["class Kind(enum.Enum)", "def extra"],
        [],
    ),
    "comprehensions and walrus": (
        [
            HEAD,
            "M = {w: n for n, w in enumerate('ab') if (last := n) >= 0}",
            reducer(ADD.format("len(M) + last")),
        ],
        ["M = {w: n"],
        [],
    ),
    "future annotations": (
        [
            "from __future__ import annotations",
            HEAD,
            "def step(x: NotThere = 1) -> AlsoNot:\n    return x",
            reducer(ADD.format("step()")),
        ],
        ["from __future__ import annotations"],
        [],
    ),
    "match": (
        [
            HEAD,
            "KINDS = ('a', 'b')",
            reducer(
                "    match event['client']:\n        case {'event': str(kind)} if kind not in "
                "KINDS:\n            state['n'] += 1\n    return state, state"
            ),
        ],
        ["KINDS = ('a', 'b')"],
        [],
    ),
}


@pytest.mark.parametrize("case", SHIPPED, ids=lambda case: case.replace(" ", "-"))
def test_a_cell_is_shipped(case: str, tmp_path: Path) -> None:
    """What a reducer reaches comes along, nothing else does, and it gives the notebook's states."""
    cells, there, absent = SHIPPED[case]
    if case == "future annotations":  # each cell has what the session was told
        cells = [cells[0], cells[1], f"{cells[0]}\n{cells[2]}", cells[3]]
    session = Session(*cells)
    plan = session.plan("count")
    files = files_of(plan)
    code = files["my_module/reducers.py"]
    for text in there:
        assert text in code, f"{text!r} is missing in\n{code}"
    for text in absent:
        assert text not in code, f"{text!r} is in\n{code}"
    expected = states(plan.reducers)
    assert '"state"' in expected
    with imported(files, tmp_path) as module:
        assert states_of(module) == expected


REFUSED: dict[str, tuple[list[str], str]] = {
    "magic": (
        [HEAD, reducer("    %ls\n    return state, state")],
        r"study.ipynb: cell \[2\], line 3: the magic '%ls'.*plain Python",
    ),
    "magic that gives a value": (
        [HEAD, "N = %time 3", reducer(ADD.format("N"))],
        r"cell \[2\], line 1: the magic 'N = %time 3'",
    ),
    "name defined nowhere": (
        [HEAD, "\n\n" + reducer(ADD.format("nowhere"))],
        r"cell \[2\], line 5: 'nowhere' is defined nowhere",
    ),
    "lo": (
        [HEAD, reducer("    lo.url\n    return state, state")],
        r"cell \[2\], line 3: 'lo.url' needs 'lo'",
    ),
    "value of lo": (
        [HEAD, "N = len(str(lo))", reducer(ADD.format("N"))],
        r"cell \[2\], line 1: .*Write the value itself, such as N = \d+",
    ),
    "closure over a live object": (
        [
            HEAD,
            "def make(file):\n    @student_event_reducer({})\n    async def count(event, state):\n        file.locked()\n"
            "        return state, state\n    return count\nimport threading\ncount = make(threading.Lock())",
        ],
        r"cell \[2\], line 8: 'count' closes over 'file', a live object",
    ),
    "live object": (
        [
            HEAD,
            "import threading\nLOCK = threading.Lock()",
            reducer("    with LOCK:\n        return state, state"),
        ],
        r"cell \[2\], line 2: 'LOCK' is a live object",
    ),
    "file in the folder": (
        [HEAD, "def load():\n    return open('grades.csv').read()", reducer(ADD.format("len(load())"))],
        r"cell \[2\], line 2: the file 'grades.csv' lies in the notebook's folder",
    ),
    "state in a global": (
        [HEAD, "seen = set()", reducer("    seen.add(1)\n" + ADD.format("len(seen)"))],
        r"cell \[3\], line 3: .*changes 'seen', which only the memory.*functools.cache",
    ),
    "global statement": (
        [HEAD, "n = 0", reducer("    global n\n    n += 1\n" + ADD.format("n"))],
        r"cell \[3\], line 3: 'global n' assigns 'n'",
    ),
    "taken away": (
        [HEAD, "def step(): return 1", reducer(ADD.format("step()")), "del step"],
        r"'step' was taken away again",
    ),
    "another language": (
        [HEAD, "%%cython\ndef quick(n): return n", reducer(ADD.format("quick(1)"))],
        r"nowhere but in cell \[2\], in %%cython",
    ),
    "failed before it was defined": (
        [HEAD, reducer(ADD.format("1")), "1 / 0\n" + reducer(ADD.format("2"))],
        r"cell \[3\], line 2: the 'count' in memory isn't the one",
    ),
    "awaits outside": ([HEAD, reducer(ADD.format("N"))], r"awaits outside of a function"),
    "in memory only": (
        [HEAD, reducer(ADD.format("N"))],
        r"'N' \(int\) is in this notebook's memory only.*such as N = 12",
    ),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.replace(" ", "-"))
def test_a_cell_is_refused(case: str) -> None:
    """What can't be shipped is an error with notebook, cell and line, and a way out."""
    cells, message = REFUSED[case]
    session = Session(*cells)
    if case == "in memory only":
        session.memory["N"] = 12
    elif case == "awaits outside":
        session.history.append("N = await work()\nasync def work(): return 1")
        session.memory["N"] = 1
    with pytest.raises(ExportError, match=message):
        session.plan("count")


def test_all_problems_are_named_at_once() -> None:
    """One error lists everything, each with its place."""
    session = Session(HEAD, reducer("    %ls\n" + ADD.format("a_name + lo.port")))
    with pytest.raises(ExportError) as caught:
        session.plan("count")
    assert str(caught.value).startswith("3 things can't be shipped:\n  study.ipynb: cell [2], line ")


def test_the_file_says_where_the_session_went_another_way(tmp_path: Path) -> None:
    """The command goes by the file's order, and names what the saved session had otherwise."""
    sources = [(3, "N = 1"), (1, "N = 2"), (None, "M = 1"), (2, "def f(): return N + M")]
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "source": source, "execution_count": count, "metadata": {}, "outputs": []}
        for count, source in sources
    ]
    cells.insert(0, {"cell_type": "markdown", "source": "# Title", "metadata": {}})
    path = tmp_path / "study.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    notebook = read_notebook(path)
    assert notebook.notes == [
        "'N': the file's last definition is in cell 3; the session that saved it executed cell 2 last",
        "'M': cell 4 defines it, and was not executed in the session that saved the file",
    ]
    reached = Reach(notebook).collect(["f"])
    assert [unit.text for unit in reached.units] == ["N = 2", "M = 1", "def f(): return N + M"]


def test_a_file_that_is_no_notebook_is_refused(tmp_path: Path) -> None:
    """The error says what was expected."""
    path = tmp_path / "study.ipynb"
    path.write_text("print(1)")
    with pytest.raises(ExportError, match="expected a Jupyter notebook"):
        read_notebook(path)
    with pytest.raises(ExportError, match=r"other\.ipynb can't be read: No such file or directory$"):
        read_notebook(tmp_path / "other.ipynb")


def test_requirements_have_the_versions_in_use() -> None:
    """Installed packages are required from the version in use on; what is part of Python is not."""
    from importlib.metadata import version

    session = Session(
        HEAD + "import msgspec, json, aiohttp", reducer(ADD.format("len(msgspec.json.encode(1))"))
    )
    plan = session.plan("count")
    found, problems = requirements(plan.code.units, plan.code.names, "my_module")
    assert found == {"msgspec": f"msgspec>={version('msgspec')}"}
    assert not problems


def test_a_module_beside_the_notebook_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of a file that lies in the notebook's folder is an error with a way out."""
    (tmp_path / "my_helpers.py").write_text("def step(): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    session = Session(HEAD, "from my_helpers import step", reducer(ADD.format("step()")))
    plan = session.plan("count")
    _, problems = requirements(plan.code.units, plan.code.names, "my_module")
    assert "cell [2], line 1: the module 'my_helpers' is a file" in str(problems[0])


def test_queries_and_dashboards_get_the_new_names(tmp_path: Path) -> None:
    """A query of one's own and a dashboard read the package's reducers, functions and queries."""
    session = Session(HEAD, reducer(ADD.format("1")))
    session.run("BY = 2")
    session.run("@lo.publish('half')\ndef half(n, by=BY): return n / by")
    mine = q.map("half", q.latest("count"), "n")
    board = Dashboard.of(["count", mine, "jupyter-helper.count_export"], title="Two")
    plan = session.plan("count", queries={"mine": mine}, dashboards=[board], published={"half": "half"})
    files = files_of(plan)
    text = files["my_module/queries.py"]
    assert '"function": "my_module.count"' in text
    assert '"function_name": "my_module.half"' in text
    with imported(files, tmp_path) as module:
        assert module.FUNCTIONS["my_module.half"](4) == 2
        assert set(module.EXECUTION_DAG["exports"]) == {"count", "mine"}
        (shown,) = module.DASHBOARDS
        assert [panel["query"] for panel in shown["panels"]] == [
            "my_module.count",
            "my_module.mine",
            "my_module.count",
        ]
        assert module.COURSE_DASHBOARDS == [{"name": "Two", "url": "/dashboards/two", "icon": ""}]


def test_of_a_dag_only_what_an_answer_needs_comes_along() -> None:
    """A query out of a larger DAG brings the nodes that it needs, and no others."""
    session = Session(HEAD, reducer(ADD.format("1")))
    dag = {
        "execution_dag": {
            "keys": q.keys("count"),
            "states": q.select(q.variable("keys"), q.ALL),
            "others": q.select(q.keys("another reducer"), q.ALL),
        },
        "exports": {"states": {"returns": "states"}},
    }
    plan = session.plan("count", queries={"all": dag})
    assert plan.dag["exports"]["all"]["returns"] == "states"
    assert "others" not in plan.dag["execution_dag"]


def test_a_query_of_what_is_not_exported_is_refused() -> None:
    """A query or a dashboard that reads another reducer is an error that says what to name."""
    session = Session(HEAD, reducer(ADD.format("1")))
    with pytest.raises(ExportError, match=r"reads the states of 'other'.*reducers="):
        session.plan("count", queries={"mine": q.latest("other")})
    with pytest.raises(ExportError, match="dashboard 'other' shows 'other'"):
        session.plan("count", dashboards=[Dashboard.of("other")])


@pytest.mark.parametrize("name", ["My-Module", "json", "class", "", "lo_kernel"])
def test_a_bad_name_is_refused(name: str) -> None:
    """A name that no package can have, or that another has, is refused."""
    with pytest.raises(ExportError, match="the package's name"):
        Session(HEAD, reducer(ADD.format("1"))).plan("count", name=name)


def test_a_sample_names_nobody() -> None:
    """Ids, addresses and names are others in a sample, wherever they stand, and the machine is left out."""
    auth = {
        "sec": "x",
        "user_id": "gc-123456789012",
        "safe_user_id": "gcu-gc-123456789012",
        "providence": "gcu",
    }
    event: Any = {
        "client": {
            "event": "keystroke",
            "auth": auth,
            "text": "I am Ada Lovelace <ada@school.example>",
            "chrome_identity": {"email": "ada@school.example", "id": 123456789012},
            "seen": {"gcu-gc-123456789012": 1},
            "path": "/docs/gcu-gc-123456789012/1",
        },
        "server": {"time": 1.5, "ip": "10.0.0.7", "agent": "Browser"},
        "metadata": {"auth": auth},
    }
    text = sample_text([event], ["gcu-gc-123456789012"], {"gcu-gc-123456789012": ["Ada Lovelace"]})
    for private in ("123456789012", "ada@", "Lovelace", "10.0.0.7", "Browser"):
        assert private not in text
    assert json.loads(text)["client"]["auth"]["safe_user_id"] == "tc-testcase-s1"
    assert json.loads(text)["client"]["path"] == "/docs/tc-testcase-s1/1"


def test_a_sample_names_no_classmate() -> None:
    """Somebody whom an event mentions has another id there too, and no word is taken for a short id."""
    auth = {"sec": "x", "user_id": "ann", "safe_user_id": "tc-ann", "providence": "tc"}
    event: Any = {
        "client": {
            "event": "chat",
            "auth": auth,
            "with": ["tc-dora", 'Dora "D" Duck'],
            "path": "/chats/gcu-gc-777777777777/1",
            "typed": "e",
        },
        "server": {"time": 1.5},
    }
    names = {
        "tc-ann": ["ann"],
        "tc-dora": ["dora", 'Dora "D" Duck'],
        "gcu-gc-777777777777": ["gc-777777777777"],
        "tc-e": ["e"],
    }
    client = json.loads(sample_text([event], ["tc-ann"], names))["client"]
    assert client["with"] == ["tc-testcase-x2", "Classmate 2"]
    assert client["path"] == "/chats/tc-testcase-x3/1"
    assert client["typed"] == "e"


def test_literals_are_code() -> None:
    """Data written as code is that data again, however long."""
    data = {"a'\"": [1, None, True, {"b" * 90: ["é\n", 1.5] * 20}], "c": {}}
    assert eval(literal(data)) == data
