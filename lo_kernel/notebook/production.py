"""``lo.export`` and ``lo.inject``: what a notebook worked out, on its way into production."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lo_kernel.errors import LOError
from lo_kernel.notebook.jobs import Job
from lo_kernel.notebook.verbs import Verbs

if TYPE_CHECKING:
    from pathlib import Path

    from lo_kernel.notebook.export.report import ExportReport

__all__ = ["ProductionVerbs"]


class ProductionVerbs(Verbs):
    """The verbs of ``lo`` that ship."""

    _exported: Path | None = None
    _exporting: tuple[tuple[Path, Job[ExportReport]], ...] = ()  # folders and what fills them

    def export(
        self,
        name: str,
        path: str | Path = ".",
        *,
        reducers: Sequence[Any] | None = None,
        queries: Sequence[Any] | Mapping[str, Any] | None = None,
        dashboards: Sequence[Any] | None = None,
        sample: int = 150,
        proof: bool | str = True,
        overwrite: bool = False,
    ) -> Job[ExportReport]:
        """Make an installable package of what this notebook executed: ``lo.export("my_module")``.

        ``reducers`` are functions or ids (default: those of this notebook that are registered), ``queries``
        names, DAGs or ``{name: DAG}``, ``dashboards`` ids (default: those that show exported reducers only).
        They come with all that they reach: helpers, constants, classes, imports. What can't be shipped raises
        :class:`~lo_kernel.errors.ExportError` at once, with cell, line and a way out.

        The package goes to ``path/name``; again, it is updated, and the result shows what changed. It is
        proved before it is put there: built, installed into an environment of its own, tested there on a
        recorded ``sample`` of so many events (with other ids). ``proof="index"`` proves it in an environment
        that shares nothing and installs from pip's index; ``False`` leaves the proof out. ``overwrite`` gives
        up changes that were made to the package by hand. Gives a :class:`Job`.
        """
        from lo_kernel.notebook.export.session import SessionExport

        self._needs_app()
        shell = getattr(self._kernel, "shell", None)
        if shell is None:
            raise LOError("an export needs a notebook or a console around it; for a file: lo-kernel export")
        work = SessionExport(
            self._runtime,
            shell,
            name,
            path,
            reducers=reducers,
            queries=queries,
            dashboards=dashboards,
            sample=sample,
            proof=proof,
            overwrite=overwrite,
        )
        self._exported = work.prepared.place.folder
        job: Job[ExportReport] | None = None

        def progress(done: int, total: int, note: str) -> None:
            if job is not None:
                job.progress(done, total, note)

        job = self._job(f"export {name}", work.go(progress))
        running = [each for each in self._exporting if not each[1].finished]
        self._exporting = (*running, (self._exported, job))
        return job

    def inject(
        self,
        url: str,
        module: str | Path | None = None,
        *,
        token: str = "",
        migrate: str = "restream",
        rollback: bool = False,
    ) -> Job[dict[str, Any]]:
        """Put an exported module into a running server: ``lo.inject("https://host:9999", token=...)``.

        ``module`` is the folder of an export, by default the last one of this notebook. The server takes it
        where it was started with ``--allow-inject``, by the token in its workspace (``injected/token``), over
        TLS or on this machine. ``migrate`` says what becomes of its reducers' states there: ``"restream"``,
        ``"drop"``, ``"keep"``, or the name of a function in the module's reducers. ``rollback=True`` takes
        the newest version out again. Gives a :class:`Job`; its result says what is in now.
        """
        from pathlib import Path

        from lo_kernel.app.packing import pack
        from lo_kernel.app.sending import check_target, send
        from lo_kernel.errors import InjectError

        check_target(url, token)
        what = self._exported if module is None else module
        if what is None:
            raise InjectError("which module? Export one first, with lo.export(...), or name its folder")
        folder = Path(what).expanduser()
        if not rollback:
            if any(each == folder.absolute() and not job.finished for each, job in self._exporting):
                raise InjectError(
                    f"{folder}: its export is still running; await it first, as in await lo.export(...)"
                )
            pack(folder)
            what = folder
        return self._job(
            f"injecting {Path(what).name}", send(url, token, what, migrate=migrate, rollback=rollback)
        )
