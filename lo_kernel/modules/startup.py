"""What modules and the field's names need when an app starts and ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lo_kernel.bridge import LoopBridge
from lo_kernel.compat.field import Field
from lo_kernel.compat.finder import Aliases
from lo_kernel.errors import LOError
from lo_kernel.modules.look import may_have_modules

if TYPE_CHECKING:
    from lo_kernel.modules.entry_points import Installed
    from lo_kernel.modules.served import Served
    from lo_kernel.runtime import Runtime

__all__ = ["start_modules"]


async def start_modules(runtime: Runtime, served: Served) -> Aliases:
    """Set the aliases up and load the installed modules; gives the aliases, whose ``remove`` ends it.

    Modules are there when the app takes its first request: what asks for their queries finds them. Where none
    is installed this takes about a millisecond.
    """
    field = Field(runtime, LoopBridge(asyncio.get_running_loop()))
    aliases = Aliases(field)
    runtime.modules.served, runtime.modules.checks = served, field.checks
    try:
        aliases.install()
    except LOError as error:
        runtime.errors.add("aliases", error)
    if may_have_modules():
        from lo_kernel.modules.loader import Loader

        await Loader(runtime).load(_chosen(runtime.settings.modules))
    return aliases


def _chosen(names: str) -> list[Installed] | None:
    """The installed modules that a setting names; ``None`` where it names none, which means all."""
    wanted = {name.strip() for name in names.split(",")} - {""}
    if not wanted:
        return None
    from lo_kernel.modules.entry_points import installed_modules

    return [each for each in installed_modules() if each.name in wanted or each.package in wanted]
