"""The field's names: there while the embedded app runs, over its one store, and gone when it ends."""

from __future__ import annotations

import gzip
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from apps import running_app
from conftest import StartKernel
from field_parts import FIELD, add_dash, install, on_path
from harness import RunningKernel, python
from ingest_parts import idle, state_of

import lo_kernel
from lo_kernel.compat.finder import COVERED, Aliases, is_alias
from lo_kernel.errors import LOError, ReducerError
from lo_kernel.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"

COUNTER = """
from learning_observer.stream_analytics.helpers import kvs_pipeline, student_event_reducer, KeyField, Scope

@kvs_pipeline(scope=Scope([KeyField.STUDENT]), null_state={'n': 0}, module_override='alias')
async def counter(event, state):
    if event['client'].get('fail'):
        raise ValueError('asked to')
    state['n'] += 1
    return state, state
"""


def names(code: str) -> dict[str, Any]:
    """What a cell's code leaves in the namespace."""
    space: dict[str, Any] = {"__name__": "alias"}
    exec(code, space)
    return space


def cells(name: str) -> list[str]:
    """The code cells of a notebook of the corpus."""
    notebook = json.loads((FIELD / "notebooks" / name).read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


async def test_all_that_is_covered_can_be_imported(settings: Settings, tmp_path: Path) -> None:
    """Each module that the documentation lists is there; it stands on this app, and is no other's."""
    add_dash(tmp_path / "site")
    async with running_app(settings):
        with pytest.raises(ModuleNotFoundError, match="dash"):
            importlib.import_module("learning_observer.dash_wrapper")
    with on_path(tmp_path / "site"):
        await check_all(settings)


async def check_all(settings: Settings) -> None:
    """Import all that is covered."""
    async with running_app(settings):
        for name in COVERED:
            module = importlib.import_module(name)
            assert is_alias(module), name
            assert module.__spec__ is not None
            assert module.__spec__.origin == "lo_kernel"
    assert not [name for name in sys.modules if name.partition(".")[0] in ("learning_observer", "pmss")]
    assert not [finder for finder in sys.meta_path if isinstance(finder, Aliases)]


def test_the_documentation_lists_every_name() -> None:
    """Each covered module, and each name in it, stands on the page about what of the deployed LO works."""
    page = (DOCS / "compatibility.md").read_text(encoding="utf-8")
    missing = [name for name in COVERED if f"`{name}`" not in page]
    assert not missing


async def test_every_name_of_every_module_is_documented(settings: Settings) -> None:
    """Each name that an alias module gives has its place on that page."""
    page = (DOCS / "compatibility.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", page))
    async with running_app(settings):
        missing = [
            f"{module}.{name}"
            for module in COVERED
            if module != "learning_observer.dash_wrapper"  # all of Dash
            for name in vars(importlib.import_module(module))
            if not name.startswith("_") and name not in words
        ]
    assert not missing


def test_importing_the_package_sets_nothing_up(environment: dict[str, str], tmp_path: Path) -> None:
    """A plain `import lo_kernel` leaves `sys.meta_path` as it was, and `learning_observer` missing."""
    code = (
        "import sys; before = list(sys.meta_path); import lo_kernel; from lo_kernel import kvs_pipeline\n"
        "assert sys.meta_path == before\n"
        "try: import learning_observer\n"
        "except ModuleNotFoundError: print('missing')"
    )
    assert python("-c", code, env=environment, cwd=tmp_path).strip() == "missing"


async def test_what_is_not_covered_says_so(settings: Settings) -> None:
    """A module and a name that isn't covered are an ImportError that says what there is and where to ask."""
    async with running_app(settings):
        for code in (
            "import learning_observer.dashboard",
            "from learning_observer import dashboard",
            "from learning_observer.kvs import FilesystemKVS",
            "from learning_observer.stream_analytics.helpers import make_key_from_json",
        ):
            with pytest.raises(ImportError, match=r"docs/compatibility\.md lists what is covered; .* ask"):
                names(code)
        with pytest.raises(AttributeError, match=r"of learning_observer\.kvs there are: KVS"):
            names("import learning_observer.kvs\nlearning_observer.kvs.FilesystemKVS")


async def test_the_installed_package_does_not_answer(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the deployed package is installed, its place is taken all the same: one store, not two."""
    package = tmp_path / "learning_observer"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the deployed one')\n")
    (package / "kvs.py").write_text("KVS = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    async with running_app(settings) as runtime:
        kvs = names("import learning_observer.kvs\nkvs = learning_observer.kvs.KVS()")["kvs"]
        await kvs.set("mine", {"a": 1})
        assert await runtime.registry.read(["mine"]) == [{"a": 1}]
    with pytest.raises(RuntimeError, match="the deployed one"):
        names("import learning_observer")


async def test_a_package_imported_before_stays_what_it_is(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the deployed package was imported before the start, the aliases are left out, which is said."""
    (tmp_path / "learning_observer").mkdir()
    (tmp_path / "learning_observer" / "__init__.py").write_text("real = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    real = importlib.import_module("learning_observer")
    try:
        async with running_app(settings) as runtime:
            assert importlib.import_module("learning_observer") is real
            assert "was imported before the app started" in str(runtime.errors.of("aliases"))
    finally:
        del sys.modules["learning_observer"]


async def test_of_two_apps_the_newer_one_answers(settings: Settings, tmp_path: Path) -> None:
    """A second app in the process takes the names over; when it ends they are gone, and the first runs on."""
    async with running_app(settings) as first:
        import_kvs = "import learning_observer.kvs\nkvs = learning_observer.kvs.KVS()"
        old = names(import_kvs)["kvs"]
        async with running_app(Settings(workspace=str(tmp_path / "other"), port=0, store="memory")) as second:
            await names(import_kvs)["kvs"].set("key", 2)
            await old.set("key", 1)
            assert await second.registry.read(["key"]) == [2]
        assert await first.registry.read(["key"]) == [1]
        assert "learning_observer.kvs" not in sys.modules


async def test_a_file_goes_through_a_reducer(settings: Settings, tmp_path: Path) -> None:
    """A study log (gzipped too) and plain lines are processed once, under the learner that is given."""
    line = json.dumps({"client": {"event": "a", "source": "x"}, "server": {"time": 5.25}})
    log = tmp_path / "a.study.log"
    log.write_text(f"{line}\t2024-01-01T00:00:00.5\n" * 3)
    (tmp_path / "b.study.log.gz").write_bytes(gzip.compress(log.read_bytes()))
    (tmp_path / "plain.log").write_bytes(b'{}\n{"event":\r"b", "text": "a\\tb"}\r\n')
    async with running_app(settings) as runtime:
        counter = names(COUNTER)["counter"]
        offline = importlib.import_module("learning_observer.offline")
        for path, user, events in (
            ("a.study.log", "A", 3),
            ("b.study.log.gz", "B", 3),
            ("plain.log", "C", 2),
        ):
            for _ in range(2):
                given = {"source": "y", "pipeline": counter, "userid": user}
                done = await offline.process_file(file_path=str(tmp_path / path), **given)
                assert done == (events, "y", user)
                assert await state_of(runtime, f"Internal,alias.counter,STUDENT:{user}") == {"n": events}
        count, source, user = await offline.process_file(file_path=str(log))
        assert (count, source) == (3, "x")
        assert user.startswith("learner-")
        assert (await offline.process_dir(str(tmp_path))) == (2, 6)
        assert [each["n"] for each in (await offline.default_aggregation(counter))["student_data"]][:2] == [
            3,
            3,
        ]


async def test_a_list_of_events_counts_each_time(settings: Settings) -> None:
    """Events given as a list are new each time; what isn't usable says what was expected."""
    async with running_app(settings) as runtime:
        counter = names(COUNTER)["counter"]
        offline = importlib.import_module("learning_observer.offline")
        for total in (2, 4):
            await offline.process_file(events_list=[{}, {}], source="s", pipeline=counter, userid="A")
            assert await state_of(runtime, "Internal,alias.counter,STUDENT:A") == {"n": total}
        with pytest.raises(AttributeError, match="file_path or events_list"):
            await offline.process_file()
        with pytest.raises(ValueError, match="no event"):
            await offline.process_file(events_list=[])
        with pytest.raises(ReducerError, match="failed at 1 of 2 events: ValueError: asked to"):
            await offline.process_file(
                events_list=[{"fail": 1}, {}], source="s", pipeline=counter, userid="B"
            )
        assert await state_of(runtime, "Internal,alias.counter,STUDENT:B") == {"n": 1}


async def test_the_store_is_the_apps_own(settings: Settings, tmp_path: Path) -> None:
    """Keys can be read, set, dumped, loaded and removed; those of reducers are read-only."""
    async with running_app(settings) as runtime:
        counter = names(COUNTER)["counter"]
        offline = importlib.import_module("learning_observer.offline")
        kvs = importlib.import_module("learning_observer.kvs").KVS()
        await offline.process_file(events_list=[{}], source="s", pipeline=counter, userid="A")
        await kvs.set("mine", [1])
        internal, external = (f"{which},alias.counter,STUDENT:A" for which in ("Internal", "External"))
        assert await kvs.keys() == [external, internal, "mine"]
        assert await kvs.multiget([internal, external, "none"]) == [{"n": 1}, {"n": 1}, None]
        with pytest.raises(LOError, match="read-only"):
            await kvs.set(internal, {"n": 7})
        with pytest.raises(LOError, match="belongs to the reducer"):
            await kvs.remove(internal)
        dumped = await kvs.dump(str(tmp_path / "dump.json"))
        await kvs.remove("mine")
        assert await kvs["mine"] is None
        await kvs.load(str(tmp_path / "dump.json"))
        assert await kvs["mine"] == [1] == dumped["mine"]
        await offline.reset()
        assert await kvs.keys() == []
        await offline.process_file(events_list=[{}], source="s", pipeline=counter, userid="A")
        assert await state_of(runtime, internal) == {"n": 1}


async def test_a_reducer_called_with_metadata_takes_events(settings: Settings) -> None:
    """As in the field, a declared reducer gives for a learner's metadata the function that takes events."""
    async with running_app(settings) as runtime:
        counter = names(COUNTER)["counter"]
        process = await counter({"source": "s", "auth": {"safe_user_id": "A"}})
        assert await process({"client": {"event": "x", "source": "s"}}) == {"n": 1}
        assert await process({"client": {"event": "y", "source": "s"}}, {}) == {"n": 2}
        incoming = importlib.import_module("learning_observer.incoming_student_event")
        pipeline = await incoming.student_event_pipeline({"source": "s", "auth": {"safe_user_id": "A"}})
        await pipeline({"client": {"event": "z", "source": "s"}})
        await idle(runtime)
        assert await state_of(runtime, "Internal,alias.counter,STUDENT:A") == {"n": 3}
        assert await counter({"client": {}}, {"n": 4}) == ({"n": 5}, {"n": 5})


async def test_keys_are_made_as_in_the_field(settings: Settings) -> None:
    """`make_key` names a reducer and the fields of a scope, sorted."""
    async with running_app(settings):
        space = names(
            COUNTER + "from learning_observer.stream_analytics.fields import EventField, KeyStateType\n"
            "from learning_observer.stream_analytics.helpers import make_key\n"
            "fields = {KeyField.STUDENT: 'A', EventField('doc_id'): 'd'}\n"
            "key = make_key(counter, fields, KeyStateType.INTERNAL)"
        )
        assert space["key"] == "Internal,alias.counter,EventField.doc_id:d,STUDENT:A"


async def test_settings_come_from_where_they_are_given(settings: Settings) -> None:
    """A module's setting is what `load_settings` has, else the registered default, else what is given."""
    async with running_app(settings):
        field = importlib.import_module("learning_observer.settings")
        pmss = importlib.import_module("pmss")
        pmss.register_field(name="limit", type=pmss.pmsstypes.TYPES.integer, description="", default=3)
        assert field.module_setting("m", "limit") == 3
        assert field.module_setting("m", setting="time_on_task_threshold") == 60
        assert field.module_setting("m", "nothing", 8) == 8
        field.load_settings({"modules": {"m": {"limit": 5}}, "feature_flags": {"on": None, "off": False}})
        assert field.module_setting("m", "limit") == 5
        assert field.pmss_settings.limit(types=["modules", "m"]) == 5
        assert field.pmss_settings.limit(types=["modules", "other"]) == 3
        assert (field.feature_flag("on"), field.feature_flag("off")) == (True, None)
        assert field.settings["modules"] == {"m": {"limit": 5}}


async def test_small_functions_give_what_the_field_expects(settings: Settings) -> None:
    """Paths, file names, hashes and iterators of `util`."""
    async with running_app(settings):
        util = importlib.import_module("learning_observer.util")
        data = {"a": {"b": 1}, "camelCase": [{"camelCase": 2}]}
        assert util.get_nested_dict_value(data, "a.b") == 1
        assert util.get_nested_dict_value(data, "a.c", None) is None
        with pytest.raises(KeyError):
            util.get_nested_dict_value(data, "a.c")
        assert util.remove_nested_dict_value(data, "a.b") == 1
        assert util.translate_json_keys(data, {"camelCase": "snake"}) == {"a": {}, "snake": [{"snake": 2}]}
        assert util.from_safe_filename(util.to_safe_filename("a/b: ł")) == "a/b: ł"
        assert util.secure_hash(b"x").startswith("SHA512_")
        assert util.paginate([1, 2, 3], 2) == [[1, 2], [3]]
        assert util.url_pathname("https://example.org/a/b") == "a/b"
        zipped = util.async_zip([1, 2], util.ensure_async_generator([3, 4, 5]))
        assert await util.async_generator_to_list(zipped) == [(1, 3), (2, 4)]
        assert util.clean_json({"a": (1, len)})["a"][0] == 1
        assert util.generate_unique_token() != util.generate_unique_token()


async def test_a_query_can_be_flattened_and_run(settings: Settings) -> None:
    """Nested nodes get names of their own, and the flat query gives the same answer."""
    async with running_app(settings):
        space = names(
            "import learning_observer.communication_protocol.query as q\n"
            "from learning_observer.communication_protocol.integration import publish_function, "
            "prepare_dag_execution\n"
            "from learning_observer.communication_protocol.util import flatten\n"
            "@publish_function('alias.add')\n"
            "def add(a, b=0):\n    return a + b\n"
            "add_call = q.call('alias.add')\n"
            "nested = {'execution_dag': {'sum': add_call(1, b=add_call(2, b=q.parameter('c')))}, "
            "'exports': {'sum': {'returns': 'sum'}}}\n"
        )
        deep = json.loads(json.dumps(space["nested"]))
        flat = space["flatten"](json.loads(json.dumps(space["nested"])))
        assert list(flat["execution_dag"]) == ["sum", "impl.sum.kwargs.b", "impl.sum.kwargs.b.kwargs.b"][
            :1
        ] + [name for name in flat["execution_dag"] if name != "sum"]
        assert all(
            "dispatch" not in str(value.get("kwargs", {}).get("b", {}).get("kwargs", ""))
            for value in flat["execution_dag"].values()
        )
        for dag in (deep, flat):
            assert await space["prepare_dag_execution"](dag, ["sum"])(c=3) == {"sum": [6]}


EXPECTED = {
    "offline.ipynb": {
        2: "['click-counter']",
        3: "((5, 'org.example.testcase', 'Tester'), (3, 'org.example.testcase', 'Other'))",
        4: "['Internal,notebook.clicks,STUDENT:Other', 'Internal,notebook.clicks,STUDENT:Tester']",
        5: "({'event_count': 5}, {'event_count': 3})",
        6: "[3, 5]",
        7: "True",
    },
    "hot_reducer.ipynb": {
        3: "4",
        4: "None",
        5: "-4",
        6: "None",
        7: "80",
        8: "1.0",
        9: "1.0",
        10: "[('steps', 'hot_module')]",
        11: "[1.0]",
    },
}


@pytest.mark.parametrize("loop", ["kernel", "thread"])
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_fields_notebooks_run(name: str, loop: str, start_kernel: StartKernel) -> None:
    """Each workflow of the field runs in a real kernel, on both loops, and gives what it is meant to give."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop})
    for number, code in enumerate(cells(name), 1):
        value = kernel.execute(code).value
        expected = EXPECTED[name].get(number)
        if expected is not None:
            assert (" ".join(value.split()) or "None") == expected, f"cell {number}"


def test_a_module_of_the_field_is_there_in_the_first_cell(start_kernel: StartKernel, tmp_path: Path) -> None:
    """An installed module's queries answer in a kernel's first cell, and `lo.modules` lists it."""
    site = install(tmp_path / "site", "reading_log", "field_broken")
    kernel: RunningKernel = start_kernel(env={"PYTHONPATH": str(site)})
    assert kernel.execute("await lo.query('reading_log.event_counter')").value == "no rows"
    shown = kernel.execute("lo.modules").value
    assert "reading_log 1.2: Reading Log" in shown
    assert "field_broken 1.2: could not be loaded" in shown


def test_the_public_list_has_what_the_field_imports() -> None:
    """The field's decorators are importable from the package itself, too."""
    for name in ("kvs_pipeline", "student_event_reducer", "Scope", "KeyField", "EventField"):
        assert hasattr(lo_kernel, name)
