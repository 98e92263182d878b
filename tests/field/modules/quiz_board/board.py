import dash_bootstrap_components as dbc
import lo_dash_react_components as lodrc
from dash import ClientsideFunction, Input, Output, callback, clientside_callback, dcc, html

SOCKET = 'quiz-board-socket'
OUTPUT = 'quiz-board-answers'


def layout():
    card = dbc.Card([lodrc.LOConnectionAIO(aio_id=SOCKET), dcc.Loading(html.Ol(id=OUTPUT))])
    return html.Main([html.H2('Quiz board'), card])


clientside_callback(
    ClientsideFunction('quiz_board', 'ask'),
    Output(lodrc.LOConnectionAIO.ids.websocket(SOCKET), 'send'),
    Input('_pages_location', 'hash'))


@callback(Output(OUTPUT, 'children'), Input(lodrc.LOConnectionAIO.ids.ws_store(SOCKET), 'data'))
def show(data):
    return [html.Li(f"{who}: {each['answers']}") for who, each in data.items()]
