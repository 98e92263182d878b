"""Tables that are damaged, or written by a program with habits of its own: what is left out is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lo_kernel.engine.fold import Folded, fold
from lo_kernel.errors import EventError

HEAD = "student,event,time,text\n"


def texts(event: Any, state: Any) -> Any:
    """What was written."""
    return [*(state or []), event["client"].get("text")], False


def in_turn(event: Any, state: Any) -> Any:
    """How many texts came that are as they were written, in their order."""
    return (state or 0) + (event["client"]["text"] == f"🦊{state or 0}"), False


async def folded(tmp_path: Path, content: str | bytes, **options: Any) -> Folded:
    """What is in a file, by learner."""
    path = tmp_path / "events.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return await fold(texts, path, **options)


def by_learner(found: Folded) -> dict[str, Any]:
    """The states under the learners' ids."""
    return {key.rpartition("table-")[2]: state for key, state in found.items()}


def left_out(found: Folded) -> dict[str, int]:
    """How many records were left out, by reason."""
    return {reason: each.count for reason, each in found.report.skipped.items()}


async def test_two_names_in_another_encoding_are_not_made_one(tmp_path: Path) -> None:
    """Rows that aren't UTF-8 are left out and named: with marks in their place, two learners were one."""
    rows = "anné,x,1600000000,ä\nannè,x,1600000000,b\nbob,x,1600000000,c\n"
    found = await folded(tmp_path, (HEAD + rows).encode("latin-1"))
    assert by_learner(found) == {"bob": ["c"]}
    assert left_out(found) == {"not_utf8": 2}
    said = str(found.report)
    assert "line 2: expected UTF-8, got the byte 0xe9 in 'ann" in said
    assert "save" in said


async def test_a_row_over_many_lines_that_is_not_utf8_is_named_by_its_first(tmp_path: Path) -> None:
    """The line is where the row begins, and the next row counts."""
    rows = 'ann,x,1600000000,"one\ntwé"\nbob,x,1600000000,c\n'
    found = await folded(tmp_path, (HEAD + rows).encode("latin-1"))
    assert by_learner(found) == {"bob": ["c"]}
    assert "line 2: expected UTF-8, got the byte 0xe9" in str(found.report)


async def test_the_names_of_columns_may_be_in_another_encoding(tmp_path: Path) -> None:
    """A column that nobody asks for keeps no row out."""
    content = b"student,event,time,text,pr\xe9nom\nann,x,1600000000,a,b\n"
    assert by_learner(await folded(tmp_path, content)) == {"ann": ["a"]}


@pytest.mark.parametrize("shape", ["[{},\n{}]", "[\n  {},\n  {}\n]", "{}\n{}\n"])
async def test_json_in_another_encoding_is_no_json(tmp_path: Path, shape: str) -> None:
    """As in a table, in an array and in lines alike."""
    event = '{"event":"x","user_id":"%s","source":"org.mitros.writing_analytics","text":"a"}'
    path = tmp_path / "events.json"
    path.write_bytes(
        shape.replace("{}", event).replace("%s", "anné", 1).replace("%s", "bob").encode("latin-1")
    )
    found = await fold(texts, path)
    assert [key.rpartition("-")[2] for key in found] == ["bob"]
    assert left_out(found) == {"not_json": 1}


async def test_what_unicode_has_is_read(tmp_path: Path) -> None:
    """All of UTF-8 goes on, also where a chunk of the file ends inside a letter."""
    rows = "".join(f"李雷,x,1600000000,🦊{n}\n" for n in range(30_000))
    path = tmp_path / "events.csv"
    path.write_text(HEAD + rows)
    found = await fold(in_turn, path)
    assert list(found.values()) == [30_000]
    assert left_out(found) == {}


async def test_a_file_in_utf16_says_so(tmp_path: Path) -> None:
    """What a spreadsheet calls 'Unicode text' is named."""
    with pytest.raises(EventError, match="UTF-16: save it as UTF-8"):
        await folded(tmp_path, (HEAD + "ann,x,1600000000,a\n").encode("utf-16"))


@pytest.mark.parametrize(
    "last", ["car,x,1600000000,c\n", 'car,x,1600000000,"c"\n', '"car",x,1600000000,c', 'car,x,1600000000,"c']
)
async def test_a_quote_that_is_not_closed_takes_no_rows_in(tmp_path: Path, last: str) -> None:
    """Where each line has all columns, each is a row: none of them is silently a text of another."""
    rows = f'ann,x,1600000000,"never closed\nbob,x,1600000000,b\n{last}'
    found = await folded(tmp_path, HEAD + "zoe,x,1600000000,z\n" + rows)
    assert {name: text.strip('"') for name, (text,) in by_learner(found).items()} == {
        "zoe": "z",
        "ann": "never closed",
        "bob": "b",
        "car": "c",
    }
    assert left_out(found) == {}


async def test_quotes_at_both_ends_of_a_table_with_tabs_are_no_cell(tmp_path: Path) -> None:
    """Programs that write tabs quote nothing: one learner's quote begins no text that another's ends."""
    rows = ['ann\tx\t1600000000\t"Hello', "bob\tx\t1600000000\tb", 'car\tx\t1600000000\tthere"']
    found = await folded(tmp_path, "\n".join([HEAD.strip().replace(",", "\t"), *rows, ""]), format="tsv")
    assert by_learner(found) == {"ann": ['"Hello'], "bob": ["b"], "car": ['there"']}
    quoted = 'ann\tx\t1600000000\t"one\ntwo"\n'
    found = await folded(tmp_path, HEAD.replace(",", "\t") + quoted, format="tsv")
    assert by_learner(found) == {"ann": ["one\ntwo"]}


@pytest.mark.parametrize("end", ["", '"bob",x,1600000000,b\n'])
async def test_lines_that_nobody_can_tell_apart_are_said(tmp_path: Path, end: str) -> None:
    """A text of many lines in which a quote isn't closed is left out with all of its lines."""
    rows = f'ann,x,1600000000,"never closed\nand on\n{end}'
    found = await folded(tmp_path, HEAD + "zoe,x,1600000000,z\n" + rows)
    assert by_learner(found) == {"zoe": ["z"]}
    assert left_out(found) == {"not_a_row": 1}
    assert f"lines 3 to {5 if end else 4}" in str(found.report)
    assert "quote" in str(found.report)


@pytest.mark.parametrize("delimiter", [",", ";"])
async def test_empty_lines_before_the_header_are_none(tmp_path: Path, delimiter: str) -> None:
    """The names of the columns are in the first line that has some."""
    content = f"\n  \r\n\n{HEAD}ann,x,1600000000,a\n\nbob,x,1600000000,b,c\n".replace(",", delimiter)
    found = await folded(tmp_path, content)
    assert by_learner(found) == {"ann": ["a"]}
    assert "line 7: expected 4 values, got 5" in str(found.report)


async def test_a_header_with_an_open_quote_is_said(tmp_path: Path) -> None:
    """It would take the whole file for names of columns."""
    found = await folded(tmp_path, '"student,event,time,text\nann,x,1600000000,a\n', format="csv")
    assert dict(found) == {}
    assert left_out(found) == {"not_a_row": 1}


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"one\nline ""two"""', 'one\nline "two"'),
        ('5" wide', '5" wide'),
        ('"a" b', "a b"),
        ('"a\r\nb"', "a\r\nb"),
    ],
)
async def test_quotes_that_are_somebodys_are_read(tmp_path: Path, cell: str, text: str) -> None:
    """Quoted lines, and quotes in a line, are as they were."""
    found = await folded(tmp_path, f"{HEAD}ann,x,1600000000,{cell}\nbob,x,1600000000,b\n")
    assert by_learner(found) == {"ann": [text], "bob": ["b"]}
    assert left_out(found) == {}


async def test_a_long_text_of_many_lines_is_one_cell(tmp_path: Path) -> None:
    """Its lines are no rows, however long it is."""
    essay = "Hello, world\n" * 20_000
    found = await folded(tmp_path, f'{HEAD}ann,x,1600000000,"{essay}"\nbob,x,1600000000,b\n')
    assert by_learner(found) == {"ann": [essay], "bob": ["b"]}


async def test_line_ends_of_old_macs_are_named(tmp_path: Path) -> None:
    """All of the file is one line then."""
    found = await folded(tmp_path, (HEAD + "ann,x,1600000000,a\n").replace("\n", "\r"))
    assert dict(found) == {}
    assert "lines that end with \\n or \\r\\n" in str(found.report)


async def test_two_columns_of_one_name_are_two(tmp_path: Path) -> None:
    """The later one has a number behind its name: what is in the first would be lost otherwise."""

    def columns(event: Any, state: Any) -> Any:
        known = {name: value for name, value in event["client"].items() if name.startswith(("text", "_"))}
        return known, False

    path = tmp_path / "events.csv"
    path.write_text("student,event,time,text,text,text_2,,\nann,x,1600000000,a,b,c,d,e\n")
    (state,) = (await fold(columns, path)).values()
    assert state == {"text": "a", "text_2": "b", "text_2_2": "c", "_2": "e"}
