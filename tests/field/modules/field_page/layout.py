from learning_observer.dash_wrapper import html


def layout():
    return html.Div([html.H1('Drawn by Dash')])
