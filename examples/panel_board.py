"""A Panel page of a class, read from a running Learning Observer.

pip install panel aiohttp
LO_READ_URL="ws://127.0.0.1:9999/wsapi/communication_protocol?token=..." panel serve panel_board.py
"""

import os

import aiohttp
import pandas
import panel

QUERY = {"class": {"execution_dag": "overview", "target_exports": ["class"], "kwargs": {}}}
COLUMNS = ["user_id", "presence", "minutes_on_task", "characters"]

rows = {}  # by path, as the answer has them
table = panel.pane.DataFrame(pandas.DataFrame(columns=COLUMNS), index=False, width=700)


async def read(url):
    """Keep the table up to date, as the answer changes."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.send_json(QUERY)
        async for frame in socket:
            for message in frame.json():
                if message["op"] == "update":
                    rows.setdefault(message["path"], {}).update(message["value"])
                elif message["op"] == "delete":
                    rows.pop(message["path"], None)
            table.object = pandas.DataFrame(list(rows.values()), columns=COLUMNS)


if "LO_READ_URL" in os.environ:
    panel.state.onload(lambda: read(os.environ["LO_READ_URL"]))
panel.Column("# A class", table).servable()
