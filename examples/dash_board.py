"""A Dash page of a class, read from a running Learning Observer.

pip install dash aiohttp
LO_READ_URL="ws://127.0.0.1:9999/wsapi/communication_protocol?token=..." python dash_board.py
"""

import asyncio
import os
import threading

import aiohttp
from dash import Dash, Input, Output, dcc, html

QUERY = {"class": {"execution_dag": "overview", "target_exports": ["class"], "kwargs": {}}}
rows = {}  # by path, as the answer has them


async def read(url):
    """Keep `rows` up to date; come back when the app does."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.ws_connect(url) as socket:
                    rows.clear()
                    await socket.send_json(QUERY)
                    async for frame in socket:
                        for message in frame.json():
                            if message["op"] == "update":
                                rows.setdefault(message["path"], {}).update(message["value"])
                            elif message["op"] == "delete":
                                rows.pop(message["path"], None)
            except aiohttp.ClientError:
                await asyncio.sleep(1)


def figure(_=None):
    """Minutes on task, a bar for each learner."""
    there = sorted(dict(rows).values(), key=lambda row: row["minutes_on_task"])
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [row["minutes_on_task"] for row in there],
        "y": [row["user_id"] for row in there],
    }
    return {"data": [bars], "layout": {"title": {"text": "Time on task (minutes)"}}}


app = Dash(__name__)
app.layout = html.Div([dcc.Graph(id="time"), dcc.Interval(id="tick", interval=1000)])
app.callback(Output("time", "figure"), Input("tick", "n_intervals"))(figure)

if __name__ == "__main__":
    url = os.environ["LO_READ_URL"]
    threading.Thread(target=lambda: asyncio.run(read(url)), daemon=True).start()
    app.run()
