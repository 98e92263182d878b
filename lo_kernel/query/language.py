"""The query language, built in Python: ``q.select(q.keys(...), fields={...})``.

A query is plain JSON, an *execution DAG* of nodes with a ``dispatch`` field (format of the deployed Learning
Observer). These builders write such nodes and check what can be checked at once; they may be nested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from lo_kernel.errors import QueryError
from lo_kernel.query.ports import JSON

__all__ = ["COURSE_ROSTER", "PROVENANCE_STUDENT", "Node", "Q", "q"]

Node: TypeAlias = dict[str, Any]

COURSE_ROSTER: Final = "learning_observer.courseroster"
PROVENANCE_STUDENT: Final = "provenance.provenance.STUDENT.value.user_id"


class Q:
    """Builders for the nodes of a query; there is one, ``q`` (in a notebook ``lo.q``).

    >>> node = q.select(
    ...     q.keys("my_module.counter", STUDENTS=q.variable("roster"), STUDENTS_path="user_id"),
    ...     fields={"count": "count"},
    ... )
    >>> node["dispatch"], node["keys"]["STUDENTS"]
    ('select', {'dispatch': 'variable', 'variable_name': 'roster'})
    """

    ALL: Final = "All"
    MISSING: Final = "Missing"

    @staticmethod
    def parameter(parameter_name: str, required: bool = False, default: JSON = None) -> Node:
        """A value that whoever runs the query gives.

        >>> q.parameter("course_id", required=True)["parameter_name"]
        'course_id'
        """
        _name("parameter", "parameter_name", parameter_name)
        return {
            "dispatch": "parameter",
            "parameter_name": parameter_name,
            "required": required,
            "default": default,
        }

    @staticmethod
    def variable(variable_name: str) -> Node:
        """The answer of another node of the same DAG, or of another DAG: ``"other_dag.node"``.

        >>> q.variable("roster")
        {'dispatch': 'variable', 'variable_name': 'roster'}
        """
        _name("variable", "variable_name", variable_name)
        return {"dispatch": "variable", "variable_name": variable_name}

    @staticmethod
    def call(function_name: str) -> Callable[..., Node]:
        """A published function; what is given back is called with its arguments, or handed to :meth:`map`.

        >>> roster = q.call("learning_observer.courseroster")
        >>> roster(course_id="1")["kwargs"]
        {'course_id': '1'}
        """
        _name("call", "function_name", function_name)

        def caller(*args: Any, **kwargs: Any) -> Node:
            return {"dispatch": "call", "function_name": function_name, "args": list(args), "kwargs": kwargs}

        caller.__lo_name__ = function_name  # type: ignore[attr-defined]
        caller.__doc__ = f"A call of the published function {function_name!r}."
        return caller

    @staticmethod
    def keys(function: str, **fields: Any) -> Node:
        """Keys of a reducer's states, one for each row of ``STUDENTS`` (and of ``RESOURCES``, side by side).

        ``STUDENTS_path`` says where in a row the id is. A field of the reducer's scope that isn't given
        stands for everything that is in the store.

        >>> q.keys("my_module.counter", STUDENTS=q.variable("roster"), STUDENTS_path="user_id")["function"]
        'my_module.counter'
        """
        _name("keys", "function", function)
        return {"dispatch": "keys", "function": function, **fields}

    @staticmethod
    def select(keys: Any, fields: Mapping[str, str] | str | None = None) -> Node:
        """The states under ``keys``, one row each; ``fields`` is ``{path: name}``, ``"All"`` or
        ``"Missing"``.

        ``"Missing"`` (the same as no fields) gives rows without fields, that say only whom they belong to.

        >>> q.select(q.variable("k"), q.ALL)["fields"]
        'All'
        """
        if isinstance(fields, str) and fields not in (Q.ALL, Q.MISSING):
            raise QueryError(f"select: fields: expected {{path: name}}, 'All' or 'Missing', got {fields!r}")
        return {
            "dispatch": "select",
            "keys": keys,
            "fields": dict(fields) if isinstance(fields, Mapping) else fields,
        }

    @staticmethod
    def join(
        left: Any = None,
        right: Any = None,
        left_on: str | None = None,
        right_on: str | None = None,
        **field_style: Any,
    ) -> Node:
        """Rows of ``left`` with what matches in ``right``; a left row without a match stays as it is.

        The field's spelling (``LEFT=``, ``RIGHT=``, ``LEFT_ON=``, ``RIGHT_ON=``) works too.

        >>> q.join(LEFT=q.variable("a"), RIGHT=q.variable("b"), LEFT_ON="id", RIGHT_ON="user_id")["left_on"]
        'id'
        """
        given = {"left": left, "right": right, "left_on": left_on, "right_on": right_on}
        for name, value in field_style.items():
            if name.lower() not in given:
                raise QueryError(f"join: expected left, right, left_on, right_on, got {name!r}")
            given[name.lower()] = value
        absent = [name for name, value in given.items() if value is None]
        if absent:
            raise QueryError(f"join: expected left, right, left_on and right_on; {', '.join(absent)} missing")
        return {"dispatch": "join", **given}

    @staticmethod
    def map(
        function: Callable[..., Any] | str,
        values: Any,
        value_path: str | None = None,
        func_kwargs: Mapping[str, Any] | None = None,
        parallel: bool = False,
    ) -> Node:
        """A published function for each row of ``values``; it gets what is at ``value_path``.

        >>> q.map(q.call("shout"), q.variable("docs"), value_path="text")["function_name"]
        'shout'
        """
        name = function if isinstance(function, str) else getattr(function, "__lo_name__", None)
        if name is None:
            raise QueryError(
                f"map: expected the name of a published function or q.call(name), got {function!r}; "
                "publish it first with @lo.publish(name)"
            )
        return {
            "dispatch": "map",
            "function_name": name,
            "values": values,
            "value_path": value_path,
            "func_kwargs": dict(func_kwargs or {}),
            "parallel": parallel,
        }

    @staticmethod
    def roster(course_id: Any = None) -> Node:
        """The class roster; without a course, the parameter ``course_id``, which may be left out.

        >>> q.roster("1")["function_name"]
        'learning_observer.courseroster'
        """
        course = Q.parameter("course_id") if course_id is None else course_id
        return Q.call(COURSE_ROSTER)(runtime=Q.parameter("runtime"), course_id=course)

    @staticmethod
    def latest(
        reducer_id: str,
        fields: Mapping[str, str] | str | None = None,
        *,
        course_id: Any = None,
        roster: Node | None = None,
    ) -> Node:
        """The latest state of one reducer for each learner of a class, joined with the roster.

        >>> q.latest("my_module.counter", {"count": "n"})["dispatch"]
        'join'
        """
        learners = Q.roster(course_id) if roster is None else roster
        states = Q.select(
            Q.keys(reducer_id, STUDENTS=learners, STUDENTS_path="user_id"), fields=fields or Q.ALL
        )
        return Q.join(states, learners, PROVENANCE_STUDENT, "user_id")

    def __repr__(self) -> str:
        return "q: parameter, variable, call, keys, select, join, map, roster, latest"


q = Q()


def _name(kind: str, field: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise QueryError(f"{kind}: {field}: expected a name, got {value!r}")
