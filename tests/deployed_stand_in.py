"""A package with the outline of the deployed Learning Observer's: what our kernel asks of it, and its traps.

Written for these tests; the real one has been booted by hand, see docs/compatibility.md.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_stand_in"]

_FILES = {
    "__init__.py": "",
    "main.py": "raise RuntimeError('importing this would start a server')\n",
    "settings.py": """\
        settings = None
        def init_pmss_settings(rulesets=None):
            assert rulesets and rulesets[0].endswith("creds.yaml"), rulesets
        def load_settings(config):
            global settings
            settings = {"read": config}
    """,
    "paths.py": """\
        import pathlib
        def third_party(name):
            return str(pathlib.Path(__file__).parent / "static" / name)
    """,
    "prestartup.py": """\
        import os, sys
        def download_3rd_party_static():
            raise AssertionError("a kernel downloads nothing")
        def check_the_traps():
            assert "learning_observer.main" in sys.modules
            trap = os.environ.get("TRAP", "")
            if trap == "stdin":
                print("Should I clone it?")
                input("Yes/No> ")
            if trap == "exit":
                print("Please set a session secret")
                sys.exit(1)
            if trap == "module":
                import tsvx_that_is_not_there
        STARTUP_CHECKS = [download_3rd_party_static, check_the_traps]
        def preimport():
            pass
        def startup_checks_and_init():
            for check in STARTUP_CHECKS:
                check()
    """,
    "module_loader.py": """\
        REDUCERS, DAGS = [], {}
        def load_modules():
            pass
        def third_party():
            return {"d3.js": {}}
        def reducers():
            return REDUCERS
        def add_reducer(reducer):
            REDUCERS.append(reducer)
        def remove_reducer(reducer_id):
            REDUCERS[:] = [each for each in REDUCERS if each["id"] != reducer_id]
        def execution_dags():
            return DAGS
    """,
    "stream_analytics/__init__.py": "def init():\n    pass\n",
    "stream_analytics/helpers.py": """\
        import enum, functools
        KeyField = enum.Enum("KeyField", "STUDENT")
        class Scope(frozenset):
            pass
        def kvs_pipeline(null_state=None, scope=None, module_override=None, qualname_override=None):
            def decorate(function):
                function.__module__, function.__qualname__ = module_override, qualname_override
                @functools.wraps(function)
                async def pipeline(metadata):
                    return function
                return pipeline
            return decorate
    """,
    "kvs.py": """\
        class Memory(dict):
            async def __call__(self): ...
            def __getitem__(self, key):
                async def get():
                    return self.get(key)
                return get()
            async def set(self, key, value):
                dict.__setitem__(self, key, value)
            async def keys(self):
                return list(dict.keys(self))
        MEMORY = Memory()
        def KVS():
            return MEMORY
    """,
    "runtime.py": """\
        class Runtime:
            def __init__(self, request):
                self.request = request
    """,
    "communication_protocol/__init__.py": "",
    "communication_protocol/query.py": """\
        class SelectFields:
            All = "All"
        def parameter(name, required=False, default=None):
            return {"parameter": name}
        def variable(name):
            return {"variable": name}
        def call(name):
            return lambda **given: {"call": name, **given}
        def keys(name, **given):
            return {"keys": name, **given}
        def select(keys, fields=None):
            return {"select": keys}
        def join(**given):
            return {"join": given}
    """,
    "communication_protocol/integration.py": """\
        def prepare_dag_execution(dag, targets):
            async def ask(runtime, course_id):
                assert runtime.request["user"]
                if course_id == 0:
                    return {"t": [{"error": {"error": "no such course", "error_provenance": {}}}]}
                async def rows():
                    yield {"user_id": "tc-ann", "profile": {"name": "Ann"}, "count": course_id}
                return {"t": rows()}
            return ask
    """,
    "routes.py": """\
        from aiohttp import web
        async def home(request):
            return web.Response(text="deployed")
        def add_routes(app):
            app.router.add_get("/", home)
    """,
    "webapp_helpers.py": "def setup_cors(app): ...\nsetup_session_storage = setup_middlewares = setup_cors\n",
}
_SESSIONS = """\
    SESSION_KEY = "AIOHTTP_SESSION"
    class Session(dict):
        def __init__(self, identity, *, data, new, max_age):
            super().__init__(data)
"""


def write_stand_in(folder: Path) -> None:
    """Write the package, and what it needs, into ``folder``."""
    from textwrap import dedent

    for name, text in _FILES.items():
        path = folder / "learning_observer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    (folder / "aiohttp_session.py").write_text(dedent(_SESSIONS))
