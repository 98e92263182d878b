"""A format that somebody names: taken at their word, unless the file is clearly in another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from event_files import study_event, study_log

from lo_kernel.engine.files import check_files
from lo_kernel.engine.formats import FORMATS, detect
from lo_kernel.errors import EventError

STATEMENT = {"actor": {"openid": "ann"}, "verb": {"id": "x/open"}, "timestamp": "2024-03-01T10:07:00Z"}
TEXTS = {
    "xapi": "\n".join(json.dumps(STATEMENT) for _ in range(3)),
    "jsonl": '{"event": "a", "user_id": "ann"}\n{"event": "b"}\n',
    "csv": "user_id,event,value\nann,open,1\n",
    "tsv": "user_id\tevent\tvalue\nann\topen\t1\n",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("real", TEXTS)
def test_a_wrong_format_is_refused_at_once(tmp_path: Path, real: str, name: str) -> None:
    """The error says what the file looks like; JSON lines may well be of statements."""
    path = tmp_path / "x"
    path.write_text(TEXTS[real])
    assert detect(path).name == real
    if name == real or (real, name) == ("xapi", "jsonl"):
        assert check_files(path, name, learner=None, limit=None, source=None) == [(path, FORMATS[name])]
        return
    with pytest.raises(EventError, match=f"is no {name}: it looks like {real}") as caught:
        check_files(path, name, learner=None, limit=None, source=None)
    assert caught.value.reason == "wrong_format"
    assert f"Leave format='{name}' out" in str(caught.value)


def test_a_table_whose_columns_mean_nothing_is_refused(tmp_path: Path) -> None:
    """Without a column for the learner no row can be read, and the names that would do are said."""
    path = tmp_path / "x.csv"
    path.write_text("who,what\nann,open\n")
    with pytest.raises(EventError, match="in a column named learner, student"):
        check_files(path, "csv", learner=None, limit=None, source=None)


@pytest.mark.parametrize("first", ["{", '{"client": {}}\t2020', "", "\x00"])
def test_a_damaged_first_record_is_only_that(tmp_path: Path, first: str) -> None:
    """Where the format is said, a file is read though nobody could tell by its first line what it is."""
    path = study_log(tmp_path / "x.study.log", range(3))
    path.write_text(first + "\n" + path.read_text())
    assert check_files(path, "study_log", learner=None, limit=None, source=None)[0][1].name == "study_log"
    empty = tmp_path / "empty"
    empty.write_text("")
    for name in FORMATS:
        assert check_files(empty, name, learner=None, limit=None, source=None)[0][1].name == name


def test_whole_events_without_a_time_behind_them_are_a_study_log(tmp_path: Path) -> None:
    """Both formats read the same from them, so either name is right."""
    path = tmp_path / "x"
    path.write_text(json.dumps(study_event(1)) + "\n")
    assert detect(path).name == "jsonl"
    assert check_files(path, "study_log", learner=None, limit=None, source=None)[0][1].name == "study_log"
