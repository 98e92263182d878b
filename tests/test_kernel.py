"""A kernel that behaves: the app in it, every end of it, and what it says. Real kernel processes."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conftest import StartKernel
from harness import Message, RunningKernel
from ingest_parts import typed, who
from waiting import until

BUSY = "import time; print('on', flush=True); time.sleep(30)"


def answers(port: int) -> bool:
    """Whether something speaks HTTP on ``port``; what it says doesn't matter."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()
    except OSError:
        return False
    return True


def port_of(kernel: RunningKernel) -> int:
    """The port of the kernel's app."""
    return int(kernel.execute("print(lo.port)").text)


def says_on(message: Message) -> bool:
    """Whether the cell of `BUSY` has begun."""
    return bool(message["msg_type"] == "stream" and message["content"]["text"] == "on\n")


def shown(messages: list[dict[str, Any]]) -> str:
    """All texts that were displayed."""
    return "\n".join(str(bundle.get("text/plain", "")) for bundle in messages)


def wait_for_end(kernel: RunningKernel) -> None:
    """Until the process is gone."""
    until(lambda: not kernel.alive, timeout=5, what="the kernel process ends")


def test_app_answers_before_the_first_cell(start_kernel: StartKernel) -> None:
    """The banner says where the app answers, and it does, before any cell ran."""
    kernel = start_kernel()
    kernel.client.kernel_info()
    banner = kernel.client.get_shell_msg(timeout=10)["content"]["banner"]
    assert "Learning Observer" in banner
    port = int(banner.split("http://127.0.0.1:")[1].split("/")[0])
    assert answers(port)


CERTIFICATES = """\
import ssl
from aiohttp import connector
def held(context):  # as OpenSSL says, with nothing of ours between
    return ssl.SSLContext.cert_store_stats(context)["x509"]
context, plain = connector._SSL_CONTEXT_VERIFIED, ssl.create_default_context()
before = held(context)
assert type(plain) is ssl.SSLContext and plain.verify_mode == context.verify_mode == ssl.CERT_REQUIRED
context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.org")
print(before, held(context) == held(plain) > 0)
"""


def test_a_tls_client_in_a_cell_has_the_machines_certificates(shared_kernel: RunningKernel) -> None:
    """aiohttp's own contexts read them before their first connection, and not while the kernel starts."""
    if not ssl.create_default_context().cert_store_stats()["x509"]:
        pytest.skip("this machine has no bundle of CA certificates: apt-get install ca-certificates")
    assert shared_kernel.execute(CERTIFICATES).text == "0 True\n"


def test_app_runs_on_the_kernels_loop(shared_kernel: RunningKernel) -> None:
    """By default a cell and the app share one loop."""
    assert (
        shared_kernel.execute(
            "import asyncio; get_ipython().kernel.app_host.loop is asyncio.get_running_loop()"
        ).value
        == "True"
    )


def test_namespace_stays_clean(shared_kernel: RunningKernel) -> None:
    """`lo` is there, is not listed as one of the user's names, and comes back after a reset."""
    assert "lo" not in shared_kernel.execute("%who").text.split()
    shared_kernel.execute("%reset -f")
    assert shared_kernel.execute("lo is get_ipython().kernel.lo").value == "True"


def test_first_cell_says_where(start_kernel: StartKernel) -> None:
    """The first cell's output names address and workspace, once, and not as the cell's own stdout."""
    kernel = start_kernel()
    first = kernel.execute("print('mine')")
    assert first.text == "mine\n"
    assert f"http://127.0.0.1:{port_of(kernel)}/" in shown(first.bundles)
    assert str(kernel.workspace) in shown(first.bundles)
    assert not kernel.execute("1").bundles[1:]


def test_interrupt_of_a_busy_cell_leaves_the_app(shared_kernel: RunningKernel) -> None:
    """A sync cell is interrupted, and the app goes on."""
    port = port_of(shared_kernel)
    msg = shared_kernel.send(BUSY)
    shared_kernel.next_message(says_on)
    shared_kernel.interrupt()
    assert "KeyboardInterrupt" in shared_kernel.collect(msg).error
    assert answers(port)


def test_interrupt_of_an_async_cell_leaves_the_app(shared_kernel: RunningKernel) -> None:
    """A cell that awaits is cancelled, and the app goes on."""
    port = port_of(shared_kernel)
    msg = shared_kernel.send("import asyncio; print('on', flush=True); await asyncio.sleep(30)")
    shared_kernel.next_message(says_on)
    assert answers(port)
    shared_kernel.interrupt()
    assert shared_kernel.collect(msg).status == "error"
    assert answers(port)
    assert shared_kernel.execute("1 + 1").value == "2"


def test_interrupt_of_a_cell_that_awaits_a_job_cancels_it(shared_kernel: RunningKernel) -> None:
    """What the cell waited for ends with it; a job that another cell started goes on."""
    shared_kernel.execute("other = lo.simulate(students=2)")
    msg = shared_kernel.send("job = lo.simulate(students=2); print('on', flush=True); await job")
    shared_kernel.next_message(says_on)
    shared_kernel.interrupt()
    assert shared_kernel.collect(msg).status == "error"
    assert (
        shared_kernel.execute("job.status, other.status, other.cancel()").value
        == "('cancelled', 'running', True)"
    )


def test_interrupt_while_idle_is_harmless(shared_kernel: RunningKernel) -> None:
    """The stop button with nothing to stop ends neither the kernel nor the app."""
    port = port_of(shared_kernel)
    shared_kernel.interrupt()
    assert shared_kernel.execute("1 + 1").value == "2"
    assert answers(port)


def test_the_app_is_cleaned_up_before_the_client_hears_of_the_end(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    """When the reply to a shutdown request comes, the app's clean-up has run."""
    kernel = start_kernel(
        env={
            "LO_KERNEL_APP": "tiny_app:make",
            "PYTHONPATH": _path_to(_tiny_app(tmp_path)),
            "TINY_APP_LIFE": str(tmp_path / "life"),
        }
    )
    assert (tmp_path / "life").read_text() == "up"
    msg_id = kernel.client.shutdown()
    until(lambda: kernel.client.get_control_msg(timeout=5)["parent_header"]["msg_id"] == msg_id)
    assert (tmp_path / "life").read_text() == "updown"


def test_two_kernels_have_two_ports(start_kernel: StartKernel) -> None:
    """Two kernels that were asked for the same port both answer, each on its own."""
    first = start_kernel(env={"LO_KERNEL_PORT": "9999"})
    second = start_kernel(env={"LO_KERNEL_PORT": "9999"})
    ports = {port_of(first), port_of(second)}
    assert len(ports) == 2
    assert all(answers(port) for port in ports)


def test_thread_loop_answers_during_a_busy_cell(start_kernel: StartKernel) -> None:
    """With loop="thread" the app answers while a cell sleeps."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": "thread"})
    port = port_of(kernel)
    msg = kernel.send(BUSY)
    kernel.next_message(says_on)
    assert answers(port)
    kernel.interrupt()
    kernel.collect(msg)


_HELD_UP = {
    "computes": "while True: pass",
    "sleeps": "import time; time.sleep(30)",
    "awaits": "import asyncio; await asyncio.sleep(30)",
    "awaits a job": "job = lo.simulate(students=2); await job",
    "shields a job": "shielded = lo.simulate(students=2); await asyncio.shield(shielded)",
    "waits for a job": "waited = lo.simulate(students=2); waited.result()",
}
_STATUS = "[each.status for each in (job, shielded, waited)], shielded.cancel(), waited.cancel()"


def test_each_cell_is_interrupted_beside_the_thread_loop(start_kernel: StartKernel) -> None:
    """With loop="thread" the stop button ends what computes, sleeps, awaits or waits; the app answers on."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": "thread"})
    port = port_of(kernel)
    for what, code in _HELD_UP.items():
        *before, held = code.split("; ")
        msg = kernel.send("\n".join([*before, "print('on', flush=True)", held]))
        kernel.next_message(says_on)
        assert answers(port), what
        began = time.monotonic()
        kernel.interrupt()
        ended = kernel.collect(msg, timeout=10)
        assert time.monotonic() - began < 2, what
        assert ended.reply.get("ename") in ("KeyboardInterrupt", "CancelledError"), what
        assert answers(port), what
        assert kernel.execute("1 + 1").value == "2", what
    assert kernel.execute(_STATUS).value == "(['cancelled', 'running', 'running'], True, True)"


@pytest.mark.parametrize("loop", ["kernel", "thread"])
def test_a_busy_cell_loses_no_event(start_kernel: StartKernel, loop: str) -> None:
    """Events that come while a cell computes are all folded; on the kernel's loop, when the cell is done."""
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop})
    url = kernel.execute(
        "@lo.reducer('seen', null_state={'count': 0})\n"
        "def seen(event, state):\n"
        "    return {'count': state['count'] + (event['client']['event'] == 'keystroke')}, None\n"
        "print(lo.ingest_url)"
    ).text.strip()
    connected, sent = threading.Event(), threading.Event()

    async def type_on() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
            await ws.send_str(json.dumps(who("u0")))
            connected.set()
            for number in range(300):
                await ws.send_str(json.dumps(typed(number)))
                await asyncio.sleep(0.002)
            sent.set()
            await ws.receive()  # until the kernel says goodbye

    typing = threading.Thread(target=lambda: asyncio.run(type_on()))
    typing.start()
    assert connected.wait(10)
    sending = not sent.is_set()
    kernel.execute("import time; end = time.time() + 1\nwhile time.time() < end: pass")
    assert sending
    assert sent.wait(10)
    counted = "states = [await lo.kvs[key] for key in await lo.kvs.keys('Internal')]; print(states)"
    until(lambda: kernel.execute(counted).text == "[{'count': 300}]\n")
    kernel.stop()
    typing.join(10)


def test_a_cell_that_held_the_loop_is_told_once(kernel: RunningKernel) -> None:
    """After the first cell that blocked the loop for more than two seconds, the kernel says how to switch."""
    quick = "import time, asyncio\nfrom lo_kernel.kernel import kernel as its\nits._HELD_TOO_LONG"
    assert kernel.execute(quick).value == "2.0"
    kernel.execute("its._HELD_TOO_LONG = 1.0")
    assert "%lo loop thread" not in shown(kernel.execute("await asyncio.sleep(1.05)").bundles)
    assert "%lo loop thread" not in shown(kernel.execute("time.sleep(0.05)").bundles)
    assert "%lo loop thread" in shown(kernel.execute("time.sleep(1.05)").bundles)
    assert "%lo loop thread" not in shown(kernel.execute("time.sleep(1.05)").bundles)


def test_loop_magic_holds_from_the_next_restart(kernel: RunningKernel) -> None:
    """`%lo loop thread` changes nothing now, and the loop after a restart."""
    assert "restart" in kernel.execute("%lo loop thread").text
    on_kernel_loop = "import asyncio; get_ipython().kernel.app_host.loop is asyncio.get_running_loop()"
    assert kernel.execute(on_kernel_loop).value == "True"
    kernel.restart()
    assert kernel.execute(on_kernel_loop).value == "False"


def test_loop_magic_names_what_it_takes(shared_kernel: RunningKernel) -> None:
    """A value that doesn't exist is an error that names those that do."""
    result = shared_kernel.execute("%lo loop sideways", check=False)
    assert "kernel" in result.error + result.stderr
    assert "thread" in result.error + result.stderr


def _path_to(folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


def _tiny_app(folder: Path) -> Path:
    (folder / "tiny_app.py").write_text(
        "import os, pathlib\n"
        "from aiohttp import web\n"
        "def note(word):\n"
        "    with open(os.environ['TINY_APP_LIFE'], 'a') as life:\n"
        "        life.write(word)\n"
        "async def up(app):\n"
        "    note('up')\n"
        "async def down(app):\n"
        "    note('down')\n"
        "async def hello(request):\n"
        "    return web.Response(text='tiny')\n"
        "def make():\n"
        "    app = web.Application()\n"
        "    app.router.add_get('/', hello)\n"
        "    app.on_startup.append(up)\n"
        "    app.on_cleanup.append(down)\n"
        "    return app\n"
        "async def make_async():\n"
        "    return make()\n"
        "def broken():\n"
        "    raise RuntimeError('no database here')\n"
    )
    return folder


@pytest.mark.parametrize("factory", ["make", "make_async"])
def test_any_app_is_booted(start_kernel: StartKernel, tmp_path: Path, factory: str) -> None:
    """`package.module:factory` names any aiohttp application, made at once or awaited."""
    kernel = start_kernel(
        env={
            "LO_KERNEL_APP": f"tiny_app:{factory}",
            "PYTHONPATH": _path_to(_tiny_app(tmp_path)),
            "TINY_APP_LIFE": str(tmp_path / "life"),
        }
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port_of(kernel)}/", timeout=5) as response:
        assert response.read() == b"tiny"


@pytest.mark.parametrize(
    ("app", "what"),
    [
        ("tiny_app:broken", "no database here"),
        ("no_such_module:make", "no_such_module"),
        ("nonsense", "app: "),
    ],
)
def test_an_app_that_fails_leaves_a_kernel(
    start_kernel: StartKernel, tmp_path: Path, app: str, what: str
) -> None:
    """Cells run; banner, first output and `lo.errors` say what happened to the app."""
    kernel = start_kernel(env={"LO_KERNEL_APP": app, "PYTHONPATH": _path_to(_tiny_app(tmp_path))})
    kernel.client.kernel_info()
    assert what in kernel.client.get_shell_msg(timeout=10)["content"]["banner"]
    first = kernel.execute("1 + 1")
    assert first.value == "2"
    assert what in first.stderr
    assert what in kernel.execute("print(lo.errors[0].traceback)").text
    kernel.client.shutdown()
    wait_for_end(kernel)


@pytest.mark.parametrize("way", ["trait", "alias", "file"])
def test_settings_are_traits(start_kernel: StartKernel, tmp_path: Path, way: str) -> None:
    """The command line and the configuration file win over the environment."""
    arguments = {"trait": ["--LOKernel.loop=thread"], "alias": ["--loop=thread"], "file": []}[way]
    if way == "file":
        profile = tmp_path / "config"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text("c.LOKernel.loop = 'thread'\n")
        arguments = [f"--config={profile / 'ipython_kernel_config.py'}"]
    kernel = start_kernel(env={"LO_KERNEL_LOOP": "kernel"}, arguments=arguments)
    assert kernel.execute("print(get_ipython().kernel.settings.loop)").text == "thread\n"


def test_arguments_that_clients_append_are_ipythons(start_kernel: StartKernel) -> None:
    """What nbclient and others append goes to IPython, and `sys.argv` stays what it was."""
    kernel = start_kernel(arguments=["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"])
    assert kernel.execute("get_ipython().history_manager.hist_file").value == "':memory:'"
    argv = json.loads(kernel.execute("import sys, json; print(json.dumps(sys.argv))").text)
    assert argv[-2:] == ["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"]


def test_the_apps_log_lines_reach_no_cell(kernel: RunningKernel) -> None:
    """What the app logs stands in a file of the workspace, and in no cell's output."""
    kernel.execute("1")
    result = kernel.execute("import logging; logging.getLogger('lo_kernel.app').warning('for the file')")
    assert result.stderr == ""
    assert "for the file" in (kernel.workspace / "logs" / "app.log").read_text()
