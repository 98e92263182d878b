"""What a real kernel puts on record: each kind of request, what came of it, whose data it read."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from conftest import StartKernel
from harness import RunningKernel
from test_kernel_debugger import Debugger
from waiting import until

from lo_kernel.kernel.audit.reading import AuditReader
from lo_kernel.kernel.audit.verify import Verdict, verify

Record = dict[str, Any]

CONNECTIONS: dict[str, dict[str, Any]] = {"tcp": {}, "ipc": {"transport": "ipc"}}
if tuple(map(int, version("ipykernel").split(".")[:2])) >= (7, 3):  # an older one can't encrypt
    CONNECTIONS["curve"] = {"transport_encryption": "required"}

REDUCER = """\
@lo.reducer("seen", null_state={"count": 0})
def seen(event, state):
    count = state["count"] + 1
    return {"count": count}, {"count": count}
await lo.simulate(students=2, seconds=0.25, speed=80, seed=1)
"""


def records(kernel: RunningKernel) -> list[Record]:
    """All that is on record by now."""
    return list(AuditReader(kernel.workspace).records())


def check(kernel: RunningKernel) -> Verdict:
    """Whether it is whole."""
    return verify(kernel.workspace, state=Path(kernel.environment["XDG_STATE_HOME"]) / "lo_kernel" / "audit")


def find(kernel: RunningKernel, timeout: float = 10.0, **wanted: Any) -> Record:
    """Wait until there is a record with these fields."""

    def there() -> Record | None:
        for record in records(kernel):
            if all(record.get(name) == value for name, value in wanted.items()):
                return record
        return None

    found = until(there, timeout=timeout, what=f"a record with {wanted}")
    assert found is not None
    return found


@pytest.fixture(params=list(CONNECTIONS))
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningKernel]:
    """A kernel on each kind of connection."""
    options = dict(CONNECTIONS[request.param])
    folder = tempfile.mkdtemp(prefix="lo-ipc-")  # a socket's path must be short
    if request.param == "ipc":
        options["ip"] = str(Path(folder) / "k")
    kernel = RunningKernel(tmp_path / "kernel", connection=options)
    yield kernel
    kernel.stop()
    shutil.rmtree(folder)


def test_intent_and_outcome_on_each_connection(connected: RunningKernel) -> None:
    """What was asked and what came of it; from the kernel's first word on; and all of it verifies."""
    connected.execute("import sys; print('a'); print('b', file=sys.stderr); 'value'")
    connected.execute("1 / 0", check=False)
    intent = find(connected, kind="intent", code="1 / 0")
    outcome = find(connected, kind="outcome", request=intent["request"])
    assert (outcome["status"], outcome["error"]) == ("error", "ZeroDivisionError")
    assert outcome["outputs"]["error"][0] == 1
    assert outcome["ms"] > 0
    first = find(connected, kind="intent", silent=False, type="execute", history=True)
    done = find(connected, kind="outcome", request=first["request"])
    assert done["status"] == "ok"
    assert {"stdout", "stderr", "text/plain"} <= set(done["outputs"])
    assert not any("contents" in record for record in records(connected))
    assert find(connected, kind="state", state="starting")
    connected.stop()
    run = find(connected, kind="run")
    assert run["monitor"] is True
    assert find(connected, kind="end")["messages"] > 10
    assert not [record for record in records(connected) if record["kind"] == "gap"]
    verdict = check(connected)
    assert verdict.ok, verdict


def test_connection_is_on_record(connected: RunningKernel, request: pytest.FixtureRequest) -> None:
    """The transport, and whether it is encrypted."""
    how = request.node.callspec.params["connected"]
    run = find(connected, kind="run")
    assert (run["transport"], run["curve"]) == ("ipc" if how == "ipc" else "tcp", how == "curve")


def test_front_ends_get_their_own_welcome(kernel: RunningKernel) -> None:
    """A client that joins is welcomed by the kernel, although the monitor was there before it."""
    other = kernel.manager.blocking_client()
    other.start_channels(shell=False, stdin=False, hb=False, control=False)
    try:
        assert other.get_iopub_msg(timeout=10)["msg_type"] == "iopub_welcome"
    finally:
        other.stop_channels()


def test_silent_code_is_on_record(kernel: RunningKernel) -> None:
    """What a front end runs for itself publishes no code on IOPub, and is on record."""
    kernel.execute("secretly = 1", silent=True)
    intent = find(kernel, kind="intent", code="secretly = 1")
    assert intent["silent"] is True
    assert find(kernel, kind="outcome", request=intent["request"])["status"] == "ok"


def test_user_expressions_are_on_record(kernel: RunningKernel) -> None:
    """Expressions that come with a request are code too."""
    kernel.execute("", user_expressions={"mine": "open('x').read()"})
    assert find(kernel, kind="intent", expressions={"mine": "open('x').read()"})


def test_shell_lines_are_on_record(kernel: RunningKernel) -> None:
    """The command as it is run, with its variables filled in, and the cell that ran it."""
    kernel.execute(
        "def greet(name):\n    !echo hello {name}\n"
        "greet('world')\nfound = !echo there\nassert found == ['there']"
    )
    cell = find(kernel, kind="intent", type="execute")
    assert find(kernel, type="shell", code="echo hello world")["request"] == cell["request"]
    assert find(kernel, type="shell", code="echo there")["request"] == cell["request"]


def test_comm_messages_are_on_record(kernel: RunningKernel) -> None:
    """A widget's messages, and what they read is tied to them."""
    kernel.execute(
        "def opened(comm, message):\n"
        "    lo.events.tail(1)\n"
        "    comm.on_msg(lambda message: lo.events.tail(1))\n"
        "get_ipython().kernel.comm_manager.register_target('mine', opened)"
    )
    session, channel = kernel.client.session, kernel.client.shell_channel
    opening = session.msg("comm_open", {"comm_id": "c1", "target_name": "mine", "data": {"a": 1}})
    channel.send(opening)
    saying = session.msg("comm_msg", {"comm_id": "c1", "data": {"text": "typed"}})
    channel.send(saying)
    assert find(kernel, type="comm_open", target="mine")["data"] == '{"a": 1}'
    assert find(kernel, type="comm_msg", comm="c1", data='{"text": "typed"}')
    for message in (opening, saying):
        request = message["header"]["msg_id"]
        assert find(kernel, kind="read", type="events", request=request)
        assert find(kernel, kind="outcome", request=request)


def test_debugger_evaluations_are_on_record(kernel: RunningKernel) -> None:
    """An expression that a debugger evaluates publishes nothing, and is on record."""
    ask = Debugger(kernel)
    ask.attach()
    code = "def double(x):\n    y = x * 2\n    return y\ndouble(21)\n"
    ask.stop_at(code, line=3)
    ask("configurationDone")
    cell = kernel.send(code)
    thread, (frame, *_) = ask.stopped()
    ask("evaluate", expression="x + 1000", frameId=frame["id"], context="repl")
    ask("continue", threadId=thread)
    kernel.collect(cell)
    evaluated = find(kernel, type="debug", command="evaluate")
    assert "x + 1000" in evaluated["arguments"]
    assert find(kernel, kind="outcome", request=evaluated["request"])


def test_cells_that_never_ran_are_aborted(kernel: RunningKernel) -> None:
    """After an error, what was queued is on record as not run."""
    first = kernel.send("import time; time.sleep(0.3); 1 / 0")
    second = kernel.send("never = 1")
    kernel.collect(first)
    kernel.collect(second)
    assert find(kernel, kind="outcome", request=second)["status"] == "aborted"


def test_killed_in_a_cell_the_chain_is_whole_and_has_the_intent(start_kernel: StartKernel) -> None:
    """`kill -9` in mid-cell: what it was asked is on record, and all verifies."""
    kernel = start_kernel()
    kernel.send("import os, signal; mark = 'the last words'; os.kill(os.getpid(), signal.SIGKILL)")
    until(lambda: not kernel.alive, what="the kernel is gone")
    verdict = check(kernel)
    assert verdict.ok, verdict
    intent = [record for record in records(kernel) if record["kind"] == "intent"][-1]
    assert "the last words" in intent["code"]
    assert AuditReader(kernel.workspace).events(cells=True)[-1]["status"] == "no outcome"


def test_users_are_told_apart_from_what_clients_claim(start_kernel: StartKernel) -> None:
    """JupyterHub's word is the user, a client's own is a claim; Jupyter names the notebook."""
    kernel = start_kernel(env={"JUPYTERHUB_USER": "ada", "JPY_SESSION_NAME": "study/one.ipynb"})
    kernel.client.session.username = "somebody"
    kernel.execute("1")
    run = find(kernel, kind="run")
    assert (run["user"], run["notebook"]) == ({"name": "ada", "from": "jupyterhub"}, "study/one.ipynb")
    assert find(kernel, kind="intent", code="1")["claims"] == "somebody"
    assert (
        kernel.execute("print(len(lo.audit.by('ada')) > 0, len(lo.audit.by('somebody')))").text == "True 0\n"
    )


def test_contents_are_kept_where_the_setting_asks(start_kernel: StartKernel) -> None:
    """By default not; with `audit_outputs`, beside the chain."""
    kernel = start_kernel(env={"LO_KERNEL_AUDIT_OUTPUTS": "1"})
    kernel.execute("print('what came out')")
    intent = find(kernel, kind="intent", code="print('what came out')")
    contents = find(kernel, kind="outcome", request=intent["request"])["contents"]
    assert any("what came out" in each["content"] for each in contents)


def test_output_after_the_end_is_on_record(kernel: RunningKernel) -> None:
    """What a task puts out when its cell is over is there, as late, and belongs to that cell."""
    code = "import asyncio; _ = asyncio.get_running_loop().call_later(0.3, lambda: print('late', flush=True))"
    cell = kernel.send(code)
    kernel.collect(cell)
    assert "stdout" in find(kernel, kind="outcome", late=True, request=cell)["outputs"]


@pytest.mark.soak
def test_a_burst_is_seen_whole(kernel: RunningKernel) -> None:
    """Of twenty thousand messages, more than it remembers signatures of, the record has counted each one."""
    cell = kernel.send(
        "from IPython.display import publish_display_data\n"
        "for number in range(20_000): publish_display_data({'application/x-mine': number})"
    )
    outcome = find(kernel, kind="outcome", request=cell, timeout=40)
    assert outcome["outputs"]["application/x-mine"][0] == 20_000


def test_a_message_that_is_not_the_kernels_is_a_gap(kernel: RunningKernel) -> None:
    """What isn't signed with the key is not counted, and that it came is on record; the kernel goes on."""
    kernel.send(  # a client that follows the protocol can't read what this puts out
        "kernel = get_ipython().kernel\n"
        "kernel.iopub_socket.send_multipart([b'<IDS|MSG>', b'no signature', b'{}', b'{}', b'{}', b'{}'])\n"
        "kernel.iopub_socket.send_multipart([b'junk'])"
    )
    assert find(kernel, kind="gap", reason="a signature that is wrong or was used before")
    assert find(kernel, kind="gap", reason="no message of the protocol")
    assert find(kernel, kind="outcome", request=kernel.send("1 + 1"))["status"] == "ok"
    assert check(kernel).ok


def test_without_a_record_the_kernel_works(start_kernel: StartKernel, tmp_path: Path) -> None:
    """Where it can't be written, cells run, and `lo.errors` says why there is none."""
    workspace = tmp_path / "w"
    workspace.mkdir()
    (workspace / "audit").write_text("a file, where a folder should be")
    kernel = start_kernel(workspace=workspace)
    assert kernel.execute("1 + 1").value == "2"
    assert "audit" in kernel.execute("print(lo.errors)").text


# -- whose data ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKernel]:
    """A kernel with a reducer and two learners."""
    running = RunningKernel(tmp_path_factory.mktemp("study"))
    running.execute(REDUCER)
    yield running
    running.stop()


READINGS = {
    "query": ("await lo.query('seen')", "query"),
    "store": ("(await lo.kvs[(await lo.kvs.keys('Internal'))[0]])['count'] > 0", "store"),
    "events": ("len(lo.events.tail(1))", "events"),
}


@pytest.mark.parametrize("name", list(READINGS))
def test_readings_belong_to_their_cell(study: RunningKernel, name: str) -> None:
    """States, events and queries that a cell reads are its doing."""
    code, kind = READINGS[name]
    cell = study.send(f"{code}  # {name}")
    study.collect(cell)
    read = find(study, kind="read", request=cell, type=kind)
    assert read["learners"] >= 1


WAYS = {
    "a task": "import asyncio\n_ = asyncio.get_running_loop().create_task(later())",
    "a thread": "import threading\nthreading.Thread(target=now).start()",
    "a pool": "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor(1).submit(now)",
    "to_thread": "import asyncio\n_ = asyncio.get_running_loop().create_task(asyncio.to_thread(now))",
}


@pytest.mark.parametrize("way", list(WAYS))
def test_what_a_cell_starts_is_its_doing(study: RunningKernel, way: str) -> None:
    """Tasks and threads that outlive their cell still read in its name, whatever cell runs by then."""
    study.execute(
        "import threading\n"
        "go = threading.Event()\n"
        "def now():\n"
        "    go.wait()\n"
        "    lo.events.tail(1)\n"
        "async def later():\n"
        "    import asyncio\n"
        "    while not go.is_set(): await asyncio.sleep(0.01)\n"
        "    lo.events.tail(1)"
    )
    cell = study.send(WAYS[way])
    study.collect(cell)
    assert not [r for r in records(study) if r["kind"] == "read" and r.get("request") == cell]
    study.execute("go.set()")
    assert find(study, kind="read", request=cell)


def test_a_chart_goes_on_reading_in_its_cells_name(study: RunningKernel) -> None:
    """What a live chart reads, now and when somebody is new, is the doing of the cell that showed it."""
    cell = study.send("board = lo.dashboard('seen'); board")
    study.collect(cell)
    before = find(study, kind="read", type="query", request=cell)["learners"]
    study.execute("await lo.simulate(students=5, seconds=0.25, speed=80, seed=9)")
    assert find(study, kind="read", type="query", request=cell, learners=before + 3)["n"]
    study.execute("board.stop()")


def test_pages_are_on_record_with_the_kind_of_token(study: RunningKernel) -> None:
    """What a page reads is no cell's doing: the kind of its token, what it asked for, and whose data."""
    token = study.execute("print(lo._runtime.security.tokens['read'])").text.strip()
    url = study.execute("print(lo.url)").text.strip()
    who = study.execute("rows = await lo.query('seen'); print(rows[0]['student'])").text.strip()
    with urllib.request.urlopen(f"{url}webapi/learner/{who}?token={token}", timeout=10) as answer:
        assert answer.status == 200
    read = find(study, kind="read", client="read", path="/webapi/learner/{safe_user_id}")
    assert (read["by"], read["learners"]) == ("client", 1)
    study.execute(
        "import aiohttp\n"
        "async with aiohttp.ClientSession() as session:\n"
        f"    async with session.ws_connect(lo.url + 'wsapi/communication_protocol?token={token}') as ws:\n"
        "        query = {'execution_dag': 'jupyter-helper', 'target_exports': ['seen'], 'kwargs': {}}\n"
        "        await ws.send_json({'q': query})\n"
        "        print(await ws.receive())"
    )
    asked = find(study, kind="read", client="read", path="/wsapi/communication_protocol")
    assert asked["what"] == "jupyter-helper: seen"
    assert asked["connection"]


def test_loading_a_reducer_is_on_record(study: RunningKernel) -> None:
    """With the hash of its code, in the cell's name; replaced by other code, with another hash."""
    code = "@lo.reducer('mine', null_state=0)\ndef mine(event, state): return state + {}, state\n"
    first, second = (study.send(code.format(number)) for number in (1, 2))
    study.collect(first)
    study.collect(second)
    study.execute("await lo.reducers.remove('mine')")
    one, two = (
        find(study, kind="act", what="reducer", name="mine", request=each) for each in (first, second)
    )
    assert one["code"] != two["code"]
    assert find(study, kind="act", what="reducer removed", name="mine")


def test_the_app_by_itself_keeps_the_record_too(tmp_path: Path, environment: dict[str, str]) -> None:
    """What is read of a server without a kernel is on record."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lo_kernel"], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        url, _, token = process.stdout.readline().strip().partition("?token=")
        with urllib.request.urlopen(f"{url}webapi/courseroster/1?token={token}", timeout=10) as answer:
            assert answer.status == 200
    finally:
        process.terminate()
        process.communicate(timeout=10)
    found = list(AuditReader(Path(environment["LO_KERNEL_WORKSPACE"])).records())
    assert [record["kind"] for record in found if record["kind"] != "set"] == ["file", "run", "read", "end"]
    assert next(record["client"] for record in found if record["kind"] == "read") == "notebook"


def test_what_nobody_started_is_unattributed(study: RunningKernel) -> None:
    """A reading in a context of its own is tied to no cell, also while one runs."""
    study.execute("import contextvars\nlen(contextvars.Context().run(lo.events.tail, 1))")
    assert find(study, kind="read", by="unattributed")


def test_what_has_read_a_learner_can_be_asked(study: RunningKernel) -> None:
    """`lo.audit.of(student)` has each cell that has read them; of somebody who isn't here it is an error."""
    study.execute("rows = await lo.query('seen'); who = rows[0]['student']")
    text = study.execute("print(list(lo.audit.of(who))[-1]['what'])").text
    assert "rows = await lo.query('seen')" in text
    assert "mistyped" in study.execute("lo.audit.of('tc-nobody')", check=False).error
    number = "lo.audit.of(who)[-1]['n']"
    assert study.execute(f"who in lo.audit.learners({number})").value == "True"
    assert study.execute("lo.audit.verify().ok").value == "True"


def test_no_learner_is_named_in_the_chain(study: RunningKernel) -> None:
    """The chain's files hold aliases."""
    study.execute("rows = await lo.query('seen'); print(rows[0]['student'])")
    who = study.execute("print(rows[0]['student'])").text.strip()
    assert who
    chain = b"".join(path.read_bytes() for path in (study.workspace / "audit").glob("log-*"))
    assert who.encode() not in chain


def test_keys_of_ones_own_are_not_in_the_chain(study: RunningKernel) -> None:
    """What such a key is called may name somebody, and so may a document's: the record says its kind."""
    study.execute(
        "await lo.kvs.set('what tc-testcase-ada said', 1); await lo.kvs['what tc-testcase-ada said']\n"
        "await lo.kvs['Internal,m.f,EventField.doc_id:adas-diary,STUDENT:tc-testcase-ada']"
    )
    said = {each["what"] for each in records(study) if each["kind"] == "read" and each["type"] == "store"}
    assert {"a key of one's own", "m.f by EventField.doc_id, STUDENT"} <= said
    chain = b"".join(path.read_bytes() for path in (study.workspace / "audit").glob("log-*"))
    assert not [name for name in (b"adas-diary", b"testcase-ada", b"said") if name in chain]


def test_an_export_is_on_record(study: RunningKernel, tmp_path: Path) -> None:
    """In the cell's name, with the hash of each reducer's code as it was loaded, and whose events it took."""
    cell = study.send(
        f"report = await lo.export('mine', {str(tmp_path)!r}, reducers=['seen'], sample=5, proof=False)"
    )
    assert study.collect(cell).status == "ok"
    loaded = find(study, kind="act", what="reducer", name="seen")
    export = find(study, kind="act", what="export", name="mine", request=cell)
    assert export["reducers"] == {"seen": loaded["code"]}
    assert len(loaded["code"]) >= 32
    assert export["learners"] >= 1


def test_what_came_since_can_be_asked(study: RunningKernel) -> None:
    """`lo.audit.since(...)` has what is later, by a time of the record, a `datetime` or seconds ago."""
    study.execute("'before the moment'")
    mark = study.execute("import datetime; now = datetime.datetime.now(datetime.timezone.utc)")
    assert mark.status == "ok"
    study.execute("'after the moment'")
    ways = ("now", "now.strftime('%Y-%m-%dT%H:%M:%S.%f')", "datetime.datetime.now(now.tzinfo) - now")
    for way in ways:
        found = study.execute(f"print([row['what'] for row in lo.audit.since({way})])").text
        assert "'after the moment'" in found
        assert "'before the moment'" not in found
    everything = study.execute("print(len(lo.audit.since(3600)) == len(lo.audit.since('2020-01-01')) > 5)")
    assert everything.text == "True\n"
    assert study.execute("print(len(lo.audit.since(datetime.timedelta(days=-1))))").text == "0\n"


def test_the_record_as_a_data_frame(study: RunningKernel) -> None:
    """`lo.audit.to_frame()` has a row for each entry, with what `lo.audit` shows of it."""
    study.execute("'a row of its own'")
    study.execute("frame = lo.audit.to_frame()")
    assert (
        study.execute("print(any('a row of its own' in str(each) for each in frame['what']))").text
        == "True\n"
    )
    assert study.execute("print({'n', 'at', 'what'} <= set(frame.columns))").text == "True\n"
    numbers = study.execute(
        "print(list(frame['n']) == [row['n'] for row in lo.audit.tail(10_000)][: len(frame)])"
    )
    assert numbers.text == "True\n"


def test_a_replaced_reducer_says_which_it_replaced(study: RunningKernel) -> None:
    """The hash of the code before stands beside the new one; running the same again replaces nothing."""
    for count in (1, 1, 2):
        study.execute(
            f"@lo.reducer('changing', null_state={{'n': 0}})\n"
            f"def changing(event, state):\n    return {{'n': state['n'] + {count}}}, None\n"
        )
    first, second, third = (each for each in records(study) if each.get("name") == "changing")
    assert "replaces" not in first
    assert "replaces" not in second
    assert third["replaces"] == first["code"] != third["code"]


def test_what_a_fold_has_read_is_on_record(study: RunningKernel) -> None:
    """A file's learners count, too, although nothing of it is kept."""
    study.execute(
        "import json, pathlib\n"
        "line = {'event': 'x', 'source': 'my.source', 'user_id': 'u7', 'timestamp': 1700000000.0}\n"
        "pathlib.Path('f.jsonl').write_text(json.dumps(line) + chr(10))\n"
        "def one(event, state):\n    return {'n': 1}, None\n"
        "from lo_kernel import kvs_pipeline\n"
        "states = await lo.fold(kvs_pipeline(null_state={'n': 0})(one), 'f.jsonl')\n"
    )
    assert find(study, kind="read", what="files that were folded")["learners"] == 1


def test_the_card_reads_well(study: RunningKernel) -> None:
    """Shown in a notebook it is a table with the newest first; in a console a text."""
    study.execute("'<b>tagged</b>'")
    bundle = study.execute("lo.audit").bundles[-1]
    assert "&lt;b&gt;tagged" in bundle["text/html"]
    assert "cells" in bundle["text/plain"]
