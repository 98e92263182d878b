"""The language: DAGs are built, read, flattened and checked before they run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from query_parts import Parts, Reducer

from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.errors import QueryError, UnknownQueryError
from lo_kernel.query.dag import MAX_NODES, Dag, Parameter
from lo_kernel.query.language import COURSE_ROSTER, PROVENANCE_STUDENT, q

GOLDEN = {
    file.stem: json.loads(file.read_text(encoding="utf-8"))["dag"]
    for file in sorted((Path(__file__).parent / "golden").glob("*.json"))
}


def parts() -> Parts:
    """One counter per learner, one text per document."""
    scope = Scope([KeyField.STUDENT, EventField("doc_id")])
    return Parts(Reducer("m.counter", default={"count": 0}), Reducer("m.docs", scope=scope), people=2)


def counts(**more: Any) -> dict[str, Any]:
    """A select of the counter for the class."""
    return q.select(
        q.keys("m.counter", **({"STUDENTS": q.roster(), "STUDENTS_path": "user_id"} | more)), {"count": "n"}
    )


def test_builders_write_the_nodes_of_the_field() -> None:
    """What `q` builds is, field by field, what clients of the field send."""
    assert q.parameter("course_id", required=True) == {
        "dispatch": "parameter",
        "parameter_name": "course_id",
        "required": True,
        "default": None,
    }
    assert q.call("f")(1, a=2) == {"dispatch": "call", "function_name": "f", "args": [1], "kwargs": {"a": 2}}
    assert q.keys("r", STUDENTS=[1], STUDENTS_path="user_id") == {
        "dispatch": "keys",
        "function": "r",
        "STUDENTS": [1],
        "STUDENTS_path": "user_id",
    }
    assert q.select(q.variable("k"), {"a.b": "c"}) == {
        "dispatch": "select",
        "keys": {"dispatch": "variable", "variable_name": "k"},
        "fields": {"a.b": "c"},
    }
    joined = {"dispatch": "join", "left": [1], "right": [2], "left_on": "a", "right_on": "b"}
    assert q.join([1], [2], "a", "b") == joined
    assert q.join(LEFT=[1], RIGHT=[2], LEFT_ON="a", RIGHT_ON="b") == joined
    assert q.map(q.call("f"), [1], value_path="text", func_kwargs={"k": 1}, parallel=True) == {
        "dispatch": "map",
        "function_name": "f",
        "values": [1],
        "value_path": "text",
        "func_kwargs": {"k": 1},
        "parallel": True,
    }


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: q.select([], "Some"), r"fields: expected \{path: name\}, 'All' or 'Missing', got 'Some'"),
        (lambda: q.join([1], [2], "a"), "right_on missing"),
        (lambda: q.join([1], [2], WHERE="a"), "expected left, right, left_on, right_on, got 'WHERE'"),
        (lambda: q.map(print, [1]), "publish it first with @lo.publish"),
        (lambda: q.variable(""), "variable_name: expected a name, got ''"),
        (lambda: q.keys(None), "function: expected a name, got None"),  # type: ignore[arg-type]
    ],
)
def test_a_builder_refuses_at_once_what_cannot_be_right(build: Any, error: str) -> None:
    """A mistake in a builder's arguments raises there, and says what was expected."""
    with pytest.raises(QueryError, match=error):
        build()


@pytest.mark.parametrize("name", GOLDEN)
def test_json_is_read_and_written(name: str) -> None:
    """A DAG that is read and written is the same DAG."""
    dag = Dag.read(GOLDEN[name])
    again = Dag.read(json.dumps(dag.to_json()))
    assert dag.to_json() == GOLDEN[name]
    assert again.nodes == dag.nodes
    assert again.exports == dag.exports


def test_nested_nodes_become_nodes_and_the_same_one_only_once() -> None:
    """Nesting is flattened; a node that is written twice is one step."""
    dag = Dag.read(q.latest("m.counter"))
    kinds = sorted(node.dispatch for node in dag.nodes.values())
    assert kinds == ["call", "join", "keys", "parameter", "parameter", "select"]
    assert dag.needed(["result"])[-1] == "result"


def test_parameters_are_inferred_from_what_an_export_needs() -> None:
    """Each export has the parameters that its own nodes use, and never the server's own."""
    dag = Dag.read(
        {
            "execution_dag": {
                "roster": q.call(COURSE_ROSTER)(
                    runtime=q.parameter("runtime"), course_id=q.parameter("course_id", required=True)
                ),
                "other": q.call("f")(n=q.parameter("n", default=3)),
                "both": q.call("f")(q.variable("roster"), q.variable("other")),
            },
            "exports": {name: {"returns": name} for name in ("roster", "other", "both")},
        }
    )
    course, number = Parameter("course_id", True, None), Parameter("n", False, 3)
    assert dag.exports["roster"].parameters == (course,)
    assert dag.exports["other"].parameters == (number,)
    assert dag.exports["both"].parameters == (course, number)


def _ring() -> dict[str, Any]:
    return {"a": q.call("count")(q.variable("b")), "b": q.call("count")(q.variable("a"))}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({"a": q.variable("nope")}, r"node 'a', field 'value': expected the name of a node, got 'nope'"),
        (_ring(), r"node 'b', field 'args.0': a cycle: a -> b -> a"),
        ({"a": {"dispatch": "choose"}}, "node 'a', field 'dispatch': expected one of parameter, variable"),
        (
            {"a": {"dispatch": "select"}},
            "node 'a', field 'keys': expected a value, got nothing",
        ),
        (
            {"a": {"dispatch": "join", "left": [], "right": [], "left_on": "x"}},
            "node 'a', field 'right_on': expected a value",
        ),
        (
            {"execution_dag": {"a": 1}, "exports": {"e": {"returns": "b"}}},
            "export 'e', field 'returns': there is no node 'b'; there are: a",
        ),
        (
            {"execution_dag": {"a": 1}, "exports": {"e": {}}},
            "export 'e', field 'returns': expected the name of a node",
        ),
        (
            q.call("nope")(),
            r"node 'result', field 'function_name': there is no published function 'nope'; there are: count",
        ),
        (q.call("count")(), "node 'result', field 'kwargs': count: missing a required argument: 'rows'"),
        (
            q.select(q.keys("nope", STUDENTS=["x"])),
            "node 'result.keys', field 'function': no reducer has the id 'nope'; there are: m.counter",
        ),
        (
            counts(RESOURCES=["d"]),
            "node 'result.keys', field 'RESOURCES': expected fields of the scope of m.counter: STUDENT",
        ),
        (
            counts(STUDENTS_path="user_idd"),
            r"field 'STUDENTS_path': expected a path to one of user_id, profile, got 'user_idd'",
        ),
        (
            q.join(counts(), q.roster(), "provenance.provenance.value.user_id", "user_id"),
            r"field 'left_on': expected a path to one of STUDENT at 'provenance.provenance', got 'prov",
        ),
        (
            q.join(counts(), q.roster(), PROVENANCE_STUDENT, "id"),
            "field 'right_on': expected a path to one of user_id, profile, got 'id'",
        ),
        (
            q.map("count", counts(), value_path="count"),
            "field 'value_path': expected a path to one of provenance, n, got 'count'",
        ),
        (
            q.select(q.roster()),
            "node 'result', field 'keys': expected the keys of a 'keys' node, got 'rows with user_id,",
        ),
        (
            {"a": {**counts(), "filter": 1}},
            "node 'a', field 'filter': expected one of fields, keys, got 'filter'",
        ),
        ({"a": {**counts(), "fields": 3}}, "node 'a', field 'fields': expected {path: name}"),
        (
            {"a": q.call("count")(rows=q.parameter("rows", required=True))},
            "expected a value for parameter 'rows', got none; give it as rows=...",
        ),
        ("{", "expected JSON, got text that isn't"),
        ([], "expected a JSON object, got list"),
        ({}, "expected nodes, got an empty object"),
    ],
)
def test_what_is_wrong_is_said_before_it_runs(query: Any, error: str) -> None:
    """The error names node, field and what was expected; nothing has been read."""
    small = parts()
    if isinstance(query, str):
        with pytest.raises(QueryError) as raised:
            Dag.read(query)
    else:
        with pytest.raises(QueryError) as raised:
            small.executor.prepare(query)
    assert error.replace("\\", "") in str(raised.value)
    assert small.states.reads == []


def test_an_unknown_parameter_is_an_error_where_a_person_asks() -> None:
    """In a notebook a mistyped parameter is told; a client of the field may send more than is used."""
    small = parts()
    small.executor.prepare(counts(), None, {"course": 1})
    with pytest.raises(QueryError, match="there is no parameter 'course'; there are: course_id"):
        small.executor.prepare(counts(), None, {"course": 1}, strict=True)


def test_huge_and_deep_queries_are_refused() -> None:
    """A DAG that would take the server's stack or memory is an error like any other."""
    deep: Any = q.variable("x")
    for _ in range(500):
        deep = q.call("count")(deep)
    with pytest.raises(QueryError, match="nested"):
        Dag.read({"a": deep, "x": 1})
    with pytest.raises(QueryError, match="nodes"):
        Dag.read({f"n{number}": number for number in range(2 * MAX_NODES)})
    chain = {f"n{number}": q.variable(f"n{number + 1}") for number in range(1000)} | {"n1000": 1}
    assert len(Dag.read(chain).needed(["n0"])) == 1001


def test_a_variable_may_name_a_node_of_another_dag() -> None:
    """`other_dag.node` brings that node in, with all that it needs."""
    small = parts()
    small.catalog.add(
        "base", {"execution_dag": {"counts": counts()}, "exports": {"e": {"returns": "counts"}}}
    )
    small.catalog.add("mine", {"total": q.call("sum")(q.variable("base.counts"), "n")})
    dag = small.catalog.get("mine")
    assert "base.counts" in dag.nodes
    assert dag.exports["total"].parameters == (Parameter("course_id", False, None),)
    assert small.catalog.node_of("base.e") == (small.catalog.get("base"), "counts")
    assert small.catalog.node_of("base.nothing") is small.catalog.node_of("nowhere.e") is None


def test_the_catalog_lists_every_query_with_what_it_takes_and_gives() -> None:
    """Each predefined query is listed once, with description, parameters and a sample answer."""
    small = parts()
    small.catalog.add_reducer(small.reducers.get("m.counter"), "m")
    small.catalog.add_reducer(small.reducers.get("m.docs"), "m")
    small.catalog.add(
        "own",
        {
            "execution_dag": {"a": q.roster(q.parameter("course_id", required=True))},
            "exports": {"class": {"returns": "a", "description": "The class.", "sample": [{"user_id": "x"}]}},
        },
    )
    assert [info.name for info in small.catalog] == ["m.counter", "m.docs", "own.class"]
    first, second, last = small.catalog
    assert first.sample == [{"count": 0, "user_id": "tc-testcase-u0"}]
    assert second.description == "The latest state of m.docs for each learner of a class, by doc_id."
    assert repr(last) == 'own.class(course_id)  The class.\n    [{"user_id":"x"}]'
    assert last.sample == [{"user_id": "x"}]
    assert small.catalog.get("m").export("m.counter_export").returns == "m.counter_join_roster"


def test_the_list_of_queries_is_a_table_with_a_way_to_their_page() -> None:
    """In a notebook the catalog is HTML with parameters, descriptions, samples and, where known, a link."""
    small = parts()
    assert small.catalog._repr_html_() == "<em>no queries</em>"
    small.catalog.add(
        "own", {"execution_dag": {"a": [1]}, "exports": {"e": {"returns": "a", "sample": ["<b>" * 90]}}}
    )
    shown = small.catalog._repr_html_()
    assert "own.e()" in shown
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "…" in shown
    assert "href" not in shown
    small.catalog.page = lambda: "http://here/queries?token=a&b"
    assert 'href="http://here/queries?token=a&amp;b"' in small.catalog._repr_html_()


def test_names_are_found_and_doubtful_ones_are_told() -> None:
    """A query is found by DAG, by dag.export, or by an export that one DAG has; else the error lists them."""
    small = parts()
    small.catalog.add("one", {"a": 1, "b": 2})
    small.catalog.add("two", {"a": 1})
    assert small.catalog.resolve("one")[1] == ["a", "b"]
    assert small.catalog.resolve("two.a")[1] == ["a"]
    assert small.catalog.resolve("b")[0].name == "one"
    with pytest.raises(UnknownQueryError, match=r"say which: one\.a, two\.a"):
        small.catalog.resolve("a")
    with pytest.raises(UnknownQueryError, match=r"there is no query 'c'; there are: one\.a, one\.b, two\.a"):
        small.catalog.resolve("c")


def test_a_query_is_drawn_with_its_names_escaped() -> None:
    """The picture has every node and edge, and no markup that a query brought along."""
    small = parts()
    query = {"<b>&": q.call("count")(counts())}
    explained = small.executor.explain(query)
    svg = explained.svg()
    assert "<b>" not in svg
    assert "&lt;b&gt;&amp;" in svg
    assert svg.count("marker-end") == sum(
        len(set(node.inputs.values())) for node in explained.dag.nodes.values()
    )
    assert "<- <b>&.0  = answer" in repr(explained)
