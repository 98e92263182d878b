'''
Every way in which a reducer can be declared.
'''
import learning_observer.settings
import learning_observer.util
from learning_observer.stream_analytics.helpers import (
    EventField, KeyField, Scope, kvs_pipeline, student_event_reducer)

student_scope = Scope([KeyField.STUDENT])
document_scope = Scope([KeyField.STUDENT, EventField('doc_id')])
tab_scope = Scope([KeyField.STUDENT, EventField('doc_id'), EventField('tab_id')])


@student_event_reducer(null_state={'count': 0})
async def event_counter(event, tally):
    tally['count'] += 1
    return tally, dict(tally)


@kvs_pipeline()
async def last_event(event, before):
    name = event['client']['event']
    seen = before['seen'] if before else 0
    return {'seen': seen + 1, 'event': name}, {'event': name}


@kvs_pipeline(scope=document_scope, null_state={'words': 0})
async def words_in_document(event, state):
    if event['client']['event'] != 'read':
        return False, False
    state['words'] += len(event['client'].get('text', '').split())
    return state, state


@kvs_pipeline(scope=tab_scope)
async def tab_visits(event, state):
    state = state or {'visits': 0}
    state['visits'] += 1
    return state, state


@kvs_pipeline(scope=Scope([KeyField.RESOURCE]), null_state={'readers': []})
async def readers(event, state):
    reader = event['client']['auth']['safe_user_id']
    if reader not in state['readers']:
        state['readers'].append(reader)
    return state, state


@kvs_pipeline(scope=Scope([KeyField.CLASS]), null_state={'events': 0})
async def class_events(event, state):
    return {'events': state['events'] + 1}, False


@kvs_pipeline(scope=Scope([KeyField.TEACHER]), null_state={'events': 0})
async def teacher_events(event, state):
    return {'events': state['events'] + 1}, False


@kvs_pipeline(scope=student_scope, null_state={'times': {}, 'pair': None},
              module_override='reading_log.reducers', qualname_override='pages_by_number')
async def pages(event, state):
    '''
    Numbers as keys and a tuple: what a store of JSON text gives back is texts and lists.
    '''
    page = event['client'].get('page')
    if page is None:
        return False, False
    assert state['pair'] is None or isinstance(state['pair'], list)
    state['times'][page] = state['times'].get(str(page), 0) + 1
    state['pair'] = (page, state['times'][page])
    return state, state


async def time_on_page(event, state):
    limit = learning_observer.settings.module_setting('reading_log', 'time_on_task_threshold')
    state = learning_observer.stream_analytics.time_on_task.apply_time_on_task(
        state, event['server']['time'], limit)
    return state, state


student_time = kvs_pipeline(scope=student_scope, qualname_override='student_time')(time_on_page)


@student_event_reducer(null_state={'titles': []})
async def titles(event, state):
    title = learning_observer.util.get_nested_dict_value(event, 'client.object.title', None)
    if title is None:
        return False, False
    state['titles'].append(title)
    return state, state
