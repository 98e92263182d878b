"""What Jupyter is told about this kernel: written whole, found again, known to be stale, taken away."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path

import jupyter_core.paths
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

from lo_kernel.errors import KernelSpecError, SettingsError
from lo_kernel.kernel import kernelspec, specfile

LOGOS = {"logo-svg.svg", "logo-32x32.png", "logo-64x64.png"}


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python environment that this process takes for its own."""
    folder = tmp_path / "env"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    monkeypatch.setattr(sys, "prefix", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "bin" / "python"))
    monkeypatch.setattr(specfile, "_installed", lambda: True)
    monkeypatch.setattr(jupyter_core.paths, "ENV_JUPYTER_PATH", [str(folder / "share" / "jupyter")])
    return folder


def spec_at(folder: Path, *argv: str, name: str = kernelspec.KERNEL_NAME) -> Path:
    """Put a spec with this command below ``folder``, as somebody else might have, and return its folder."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Mine", "env": {"A": "b"}}))
    return path


def test_what_is_written_is_what_jupyter_reads(prefix: Path) -> None:
    """A spec names this Python by its full path, has debugger, interrupt mode and logos; Jupyter reads it."""
    written = kernelspec.install()
    assert written.path == prefix / "share" / "jupyter" / "kernels" / "learning_observer"
    read = KernelSpec.from_resource_dir(str(written.path))
    assert read.argv == [sys.executable, "-m", "lo_kernel", "-f", "{connection_file}"]
    assert (read.display_name, read.language, read.interrupt_mode) == (
        "Learning Observer",
        "python",
        "signal",
    )
    assert read.metadata["debugger"] is True
    assert {each.name for each in written.path.iterdir()} == {"kernel.json", *LOGOS}
    assert not written.stale


def test_encryption_is_promised_only_where_the_kernel_speaks_it(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CurveZMQ is in the spec from ipykernel 7.3 on: before it, a Jupyter that encrypts could not connect."""
    for version, promised in (("7.2.0", None), ("7.3.0", ["curve"]), ("8.0.0a1", ["curve"])):
        monkeypatch.setattr("importlib.metadata.version", lambda _, version=version: version)
        path = kernelspec.install().path
        assert KernelSpec.from_resource_dir(str(path)).metadata.get("supported_encryption") == promised


def test_the_spec_in_the_wheel_says_the_same_but_for_the_interpreter(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The static spec and a written one differ in argv[0] only, which there is the server's Python."""
    monkeypatch.setattr("importlib.metadata.version", lambda _: "7.3.0")
    static = json.loads((specfile.logos()[0].parent / "kernel.json").read_text())
    written = json.loads((kernelspec.install().path / "kernel.json").read_text())
    assert static["argv"][0] == "python"
    assert static["argv"][1:] == written["argv"][1:]
    assert static | {"argv": None} == written | {"argv": None}


def test_settings_travel_as_environment_variables(prefix: Path) -> None:
    """Loop, app and workspace become the variables that settings are read from; others stand beside them."""
    spec = kernelspec.install(
        name="lo_thread",
        loop="thread",
        app="pkg.mod:make",
        workspace="class-7",
        env={"LO_KERNEL_PORT": "0", "TZ": "UTC"},
    )
    assert spec.env == {
        "LO_KERNEL_LOOP": "thread",
        "LO_KERNEL_APP": "pkg.mod:make",
        "LO_KERNEL_WORKSPACE": "class-7",
        "LO_KERNEL_PORT": "0",
        "TZ": "UTC",
    }
    assert spec.display_name == "Learning Observer (lo_thread)"


def test_several_stand_side_by_side(prefix: Path) -> None:
    """Specs under different names do not touch each other, and each is listed."""
    kernelspec.install()
    kernelspec.install(name="lo_thread", loop="thread", display_name="LO, on a thread")
    here = [each for each in kernelspec.list_specs() if prefix in each.path.parents]
    assert [each.name for each in here] == ["learning_observer", "lo_thread"]
    kernelspec.uninstall()
    assert [each.name for each in kernelspec.list_specs(folders=[kernelspec.kernels_folder()])] == [
        "lo_thread"
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "../up", "käse", "a\n"])
def test_a_name_that_jupyter_would_not_take_is_refused(prefix: Path, name: str) -> None:
    """Names are letters, digits, '.', '_' and '-'; nothing is written under another."""
    with pytest.raises(KernelSpecError, match="a kernelspec's name has"):
        kernelspec.install(name=name)
    with pytest.raises(KernelSpecError, match="a kernelspec's name has"):
        kernelspec.uninstall(name=name)
    assert not (prefix / "share").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"loop": "threads"}, {"app": "nonsense"}, {"workspace": "a/b"}, {"env": {"LO_KERNEL_PORT": "many"}}],
)
def test_a_setting_that_no_kernel_could_start_with_is_refused_now(
    prefix: Path, wrong: kernelspec.InstallOptions
) -> None:
    """A setting that can't be used raises when the spec is written, not at every start of its kernels."""
    with pytest.raises(SettingsError):
        kernelspec.install(**wrong)
    assert not (prefix / "share").exists()


def test_a_variable_without_a_name_is_refused(prefix: Path) -> None:
    """An environment variable needs a name without '='."""
    with pytest.raises(KernelSpecError, match="is a name and a text"):
        kernelspec.install(env={"A=B": "c"})
    with pytest.raises(KernelSpecError, match="is a name and a text"):
        kernelspec.install(env={"": "c"})


def test_one_place_at_a_time() -> None:
    """--user and --prefix at once are contradictory, and say so."""
    with pytest.raises(KernelSpecError, match="give either"):
        kernelspec.install(user=True, prefix="/nowhere")


def test_another_kernels_spec_is_never_touched(prefix: Path) -> None:
    """A spec that starts something else is neither replaced nor removed, and is not listed as ours."""
    path = spec_at(kernelspec.kernels_folder(), "python", "-m", "ipykernel_launcher", name="python3")
    before = (path / "kernel.json").read_text()
    with pytest.raises(KernelSpecError, match="another kernel's"):
        kernelspec.install(name="python3")
    with pytest.raises(KernelSpecError, match="no kernelspec of lo_kernel in"):
        kernelspec.uninstall(name="python3")
    assert (path / "kernel.json").read_text() == before
    assert kernelspec.list_specs(folders=[path.parent]) == []


def test_a_write_that_fails_leaves_what_was_there(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full in mid-write, the old spec stands as it was, with no half a file beside it."""
    path = kernelspec.install(env={"A": "old"}).path
    files = {each.name: each.read_bytes() for each in path.iterdir()}

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(KernelSpecError, match="No space left on device"):
        kernelspec.install(env={"A": "new"})
    assert {each.name: each.read_bytes() for each in path.iterdir()} == files


def test_a_command_that_is_gone_makes_a_spec_stale(prefix: Path) -> None:
    """A missing interpreter and a missing checkout are each found, and the reason names them."""
    user = kernelspec.kernels_folder(user=True)
    spec_at(user, "/gone/bin/python", "-m", "lo_kernel", "-f", "{connection_file}", name="moved")
    spec_at(user, sys.executable, "/gone/lo_kernel", "-f", "{connection_file}", name="checkout")
    spec_at(user, sys.executable, "-m", "lo_kernel", "-f", "{connection_file}", name="well")
    reasons = {each.name: each.reason for each in kernelspec.list_specs(folders=[user])}
    assert "/gone/bin/python" in reasons["moved"]
    assert "/gone/lo_kernel" in reasons["checkout"]
    assert reasons["well"] == ""


def test_a_spec_in_this_environment_that_starts_another_is_stale(prefix: Path, tmp_path: Path) -> None:
    """Two environments may share a binary: the folder of the link to it says which one a spec starts."""
    other = tmp_path / "other" / "bin"
    other.mkdir(parents=True)
    (other / "python").symlink_to(Path(sys.executable).resolve())
    path = spec_at(kernelspec.kernels_folder(), str(other / "python"), "-m", "lo_kernel")
    found = kernelspec.read_spec(path)
    assert found is not None
    assert "starts another's Python" in found.reason


def test_the_servers_python_is_right_in_an_environment_and_wrong_for_a_user(prefix: Path) -> None:
    """argv[0] `python` is the server's: in an environment that is the environment's, for a user anybody's."""
    here = kernelspec.read_spec(spec_at(kernelspec.kernels_folder(), "python", "-m", "lo_kernel"))
    users = kernelspec.read_spec(spec_at(kernelspec.kernels_folder(user=True), "python3", "-m", "lo_kernel"))
    assert here is not None
    assert users is not None
    assert not here.stale
    assert "whatever Python" in users.reason


def test_a_place_holder_in_the_command_is_read_as_jupyter_reads_it(prefix: Path) -> None:
    """`{resource_dir}` and `{prefix}` stand for the spec's folder and the environment."""
    kernels = kernelspec.kernels_folder()
    relative = spec_at(kernels, "{resource_dir}/../../../../bin/python", "-m", "lo_kernel", name="relative")
    absolute = spec_at(kernels, "{prefix}/bin/python", "-m", "lo_kernel", name="absolute")
    for path in (relative, absolute):
        found = kernelspec.read_spec(path)
        assert found is not None
        assert not found.stale


def test_what_is_missing_is_written_once(prefix: Path) -> None:
    """`ensure` writes the spec where there is none, says so, and has nothing to do the second time."""
    first = kernelspec.ensure()
    assert (first.action, first.spec and first.spec.path.is_dir()) == ("written", True)
    assert str(prefix) in first.message
    second = kernelspec.ensure()
    assert (second.action, second.message, second.spec) == ("found", "", first.spec)


def test_a_moved_environment_is_refreshed_with_what_the_user_chose(prefix: Path) -> None:
    """After a move, each stale spec of this environment starts it again; names and variables stay."""
    kernels = kernelspec.kernels_folder()
    spec_at(kernels, "/old/place/bin/python", "-m", "lo_kernel", "-f", "{connection_file}")
    spec_at(kernels, "/old/place/bin/python", "-m", "lo_kernel", "-f", "{connection_file}", name="second")
    done = kernelspec.ensure()
    assert done.action == "refreshed"
    assert done.message.count("written anew") == 2
    assert "/old/place/bin/python" in done.message
    for spec in kernelspec.list_specs(folders=[kernels]):
        assert (spec.stale, spec.argv[0]) == (False, sys.executable)
        assert (spec.display_name, spec.env) == ("Mine", {"A": "b"})


def test_a_users_spec_of_a_living_environment_is_left_alone(prefix: Path, tmp_path: Path) -> None:
    """`ensure` does not take over a spec that starts another environment which is there."""
    other = tmp_path / "other" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.symlink_to(Path(sys.executable).resolve())
    path = spec_at(kernelspec.kernels_folder(user=True), str(other), "-m", "lo_kernel")
    before = (path / "kernel.json").read_text()
    assert kernelspec.ensure().action == "written"
    assert (path / "kernel.json").read_text() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"argv": 3}', '{"argv": ["x"], "env": 7}'])
def test_a_spec_that_cannot_be_read_is_stale_and_mended(prefix: Path, content: str) -> None:
    """Under our name, a kernel.json that is no kernel.json is stale, and `ensure` writes it anew."""
    path = kernelspec.kernels_folder() / kernelspec.KERNEL_NAME
    path.mkdir(parents=True)
    (path / "kernel.json").write_text(content)
    found = kernelspec.read_spec(path)
    assert found is not None
    assert "can't be read" in found.reason
    assert kernelspec.ensure().action == "refreshed"


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(prefix: Path) -> None:
    """`ensure` says that nothing was written, why, and what to do; it does not raise."""
    (prefix / "share").write_text("a file where a folder should be")
    done = kernelspec.ensure()
    assert (done.action, done.spec) == ("failed", None)
    assert "kernelspec not written: can't write" in done.message
    assert "lo-kernel install --user" in done.message
    with pytest.raises(KernelSpecError, match="can't write"):
        kernelspec.install()


def test_a_python_that_lacks_something_gets_no_spec(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spec that could not start is not written: the error names what is missing and the pip command."""
    monkeypatch.setattr(specfile, "find_spec", lambda name: None if name == "ipykernel" else True)
    with pytest.raises(KernelSpecError, match=r"lacks ipykernel, .* -m pip install "):
        kernelspec.install()
    assert not (prefix / "share").exists()


def test_a_checkout_that_is_not_installed_is_started_by_its_path(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a new Python would not find the package, the spec starts the package's folder."""
    monkeypatch.setattr(specfile, "_installed", lambda: False)
    spec = kernelspec.install()
    assert spec.argv[1] == str(Path(kernelspec.__file__).parents[1])
    assert not spec.stale


def test_the_first_in_jupyters_order_shadows_the_others(prefix: Path) -> None:
    """Of two specs of one name, the listing says which one Jupyter starts."""
    user = kernelspec.install(user=True)
    here = kernelspec.install()
    listed = kernelspec.list_specs(folders=[user.path.parent, here.path.parent])
    assert {each.path: each.shadowed_by for each in listed} == {user.path: None, here.path: user.path}


def test_removal_says_what_there_is(prefix: Path) -> None:
    """Removing a spec that is not there names the place looked at, and those that exist."""
    kernelspec.install(name="other")
    with pytest.raises(KernelSpecError, match=r"learning_observer; there are: .*other"):
        kernelspec.uninstall()
    gone = kernelspec.uninstall(name="other")
    assert not gone.exists()


def test_a_linked_spec_is_unlinked(prefix: Path, tmp_path: Path) -> None:
    """Removing a spec that is a link to a folder takes the link, never the folder."""
    real = spec_at(tmp_path / "checkout", "python", "-m", "lo_kernel")
    kernelspec.kernels_folder().mkdir(parents=True)
    kernelspec.kernels_folder().joinpath(kernelspec.KERNEL_NAME).symlink_to(real)
    kernelspec.uninstall()
    assert (real / "kernel.json").is_file()


def test_jupyter_finds_a_users_spec(environment: dict[str, str]) -> None:
    """A spec written for the user is the one that Jupyter lists first or beside the environment's."""
    spec = kernelspec.install(user=True, name="lo_user")
    assert KernelSpecManager().find_kernel_specs()["lo_user"] == str(spec.path)
    assert str(spec.path).startswith(environment["JUPYTER_DATA_DIR"])


def test_files_obey_the_umask(prefix: Path) -> None:
    """A spec in a shared place is readable for all whom the umask lets read."""
    old = os.umask(0o022)
    try:
        path = kernelspec.install().path
    finally:
        os.umask(old)
    assert {each.stat().st_mode & 0o777 for each in path.iterdir()} == {0o644}


def test_a_command_line_reaches_the_same_arguments(prefix: Path) -> None:
    """The options that a person types are those of `install`, one by one."""
    parser = ArgumentParser()
    kernelspec.add_install_arguments(parser)
    typed = "--prefix p --name n --display-name d --env A=b --env C=d=e --loop thread --app a:b --workspace w"
    assert kernelspec.options_of(parser.parse_args(typed.split())) == {
        "user": False,
        "prefix": "p",
        "name": "n",
        "display_name": "d",
        "env": {"A": "b", "C": "d=e"},
        "loop": "thread",
        "app": "a:b",
        "workspace": "w",
    }
    assert kernelspec.place_of(parser.parse_args(["--user"])) == {
        "user": True,
        "prefix": None,
        "name": "learning_observer",
    }
