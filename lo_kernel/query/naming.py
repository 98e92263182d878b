"""Which names an answer holds: the roster's, none, or those that a notebook sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from lo_kernel.query.ports import MadeUpNames

__all__ = ["NOTEBOOK", "Naming", "NotebookNames", "name_of"]

NOTEBOOK: Final = "notebook"

Naming: TypeAlias = bool | Literal["notebook"]
"""``True``: the roster's names. ``False``: none. ``"notebook"``: made-up ones, until they were revealed.

It is part of what makes two queries the same, so an answer is computed and encoded once for each.
"""


class NotebookNames(Mapping[str, str]):
    """By safe id, what notebooks call who has a name in the roster: a made-up one, or what was revealed."""

    def __init__(self, made_up: MadeUpNames | None) -> None:
        self._source = made_up
        self._made_up: Mapping[str, str] = {}
        self._named: dict[str, None] = {}  # who has a name
        self._revealed: dict[str, str] = {}

    def note(self, safe_user_id: str, profile: Mapping[str, Any]) -> None:
        """Take somebody of the roster."""
        if safe_user_id not in self._named and name_of(profile):
            self._named[safe_user_id] = None

    def start_anew(self) -> None:
        """The roster is another one."""
        self._named.clear()

    def reveal(self, names: Mapping[str, str]) -> None:
        """Show these, as they are."""
        self._revealed.update(names)
        self._named.update(dict.fromkeys(names))

    def forget(self, safe_user_id: str) -> None:
        """Somebody was erased; it is for whoever keeps the made-up names to forget theirs."""
        self._named.pop(safe_user_id, None)
        self._revealed.pop(safe_user_id, None)
        self._made_up = {}

    def __getitem__(self, safe_user_id: str) -> str:
        revealed = self._revealed.get(safe_user_id)
        if revealed is not None:
            return revealed
        name = self._made_up.get(safe_user_id)
        if name is None and safe_user_id in self._named and self._source is not None:
            try:
                self._made_up = self._source.of(self._named)
            except OSError:  # the workspace can't be written: then no name, and never the roster's
                self._made_up = {}
            name = self._made_up.get(safe_user_id)
        if name is None:
            raise KeyError(safe_user_id)
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)


def name_of(profile: Mapping[str, Any]) -> str:
    """The full name in a profile; empty where there is none."""
    name = profile.get("name")
    return str((name.get("full_name") if isinstance(name, Mapping) else name) or "")
