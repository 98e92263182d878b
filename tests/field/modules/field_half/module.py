import learning_observer.settings
import pmss
from learning_observer.adapters.adapter import add_common_migrator
from learning_observer.prestartup import StartupCheck, register_startup_check
from learning_observer.stream_analytics.helpers import student_event_reducer

NAME = 'Half of it works'

pmss.parser('limit_kind', parent='integer', choices=[1, 3], transform=None)
pmss.register_field(name='half_limit', type=pmss.pmsstypes.TYPES.integer, description='How many.', default=3)


@register_startup_check
def no_key():
    raise StartupCheck('there is no API key')


def lower_case(event):
    event['event'] = event['event'].lower()
    return event


add_common_migrator(lower_case, __file__)


@student_event_reducer(null_state={'names': []})
async def names(event, state):
    if len(state['names']) < learning_observer.settings.module_setting('field_half', 'half_limit'):
        state['names'].append(event['client']['event'])
    return state, state


REDUCERS = [
    {'context': 'org.example.half', 'function': names},
    {'context': 'org.example.half', 'function': names},
    {'context': 'org.example.half', 'function': 'no function'},
]
EXECUTION_DAG = {'execution_dag': {'a': {'dispatch': 'no such thing'}}, 'exports': {}}
EXTRA_VIEWS = [{'name': 'No address'}]
COURSE_DASHBOARDS = {}
