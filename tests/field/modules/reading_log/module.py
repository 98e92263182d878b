'''
Reading log: a module as the field writes them.
'''
import learning_observer.communication_protocol.integration
import learning_observer.communication_protocol.query as q
import learning_observer.prestartup
from learning_observer import downloads as d
from learning_observer.dash_integration import static_url, thirdparty_url
from learning_observer.stream_analytics.helpers import KeyField, Scope

import reading_log.reducers
from aiohttp import web

NAME = 'Reading Log'

course_roster = q.call('learning_observer.courseroster')
shout = q.call('reading_log.shout')
CHECKED = []


@learning_observer.prestartup.register_startup_check
def is_ready():
    CHECKED.append(True)


@learning_observer.communication_protocol.integration.publish_function('reading_log.shout')
def shout_function(text, mark='!'):
    return {'text': f'{text.upper()}{mark}'}


EXECUTION_DAG = {
    'execution_dag': {
        'roster': course_roster(runtime=q.parameter('runtime'), course_id=q.parameter('course_id', required=True)),
        'counts': q.select(
            q.keys('reading_log.event_counter', STUDENTS=q.variable('roster'), STUDENTS_path='user_id'),
            fields={'count': 'events'}),
        'all_counts': q.select(
            q.keys('reading_log.event_counter', STUDENTS=q.variable('roster'), STUDENTS_path='user_id'),
            fields=q.SelectFields.All),
        'nothing': q.select(
            q.keys('reading_log.event_counter', STUDENTS=q.variable('roster'), STUDENTS_path='user_id'),
            fields=q.SelectFields.Missing),
        'with_roster': q.join(
            LEFT=q.variable('counts'), RIGHT=q.variable('roster'),
            LEFT_ON='provenance.provenance.STUDENT.value.user_id', RIGHT_ON='user_id'),
        'last': q.select(
            q.keys('reading_log.last_event', STUDENTS=q.variable('roster'), STUDENTS_path='user_id'),
            fields={'event': 'text'}),
        'shouted': q.map(shout, q.variable('last'), value_path='text',
                         func_kwargs={'mark': q.parameter('mark', required=False, default='?')}),
        'one_shout': shout('hello'),
        'documents': q.select(
            q.keys('reading_log.words_in_document', STUDENTS=q.parameter('student_id', required=True),
                   RESOURCES=q.parameter('doc_id', required=True)),
            fields={'words': 'words'}),
    },
    'exports': {
        'counts': {'returns': 'counts', 'parameters': ['course_id'], 'output': ''},
        'all_counts': {'returns': 'all_counts', 'parameters': ['course_id']},
        'nothing': {'returns': 'nothing', 'parameters': ['course_id']},
        'with_roster': {'returns': 'with_roster', 'parameters': ['course_id']},
        'shouted': {'returns': 'shouted', 'parameters': ['course_id', 'mark']},
        'one_shout': {'returns': 'one_shout'},
        'document_words': {'returns': 'documents', 'parameters': ['student_id', 'doc_id']},
    },
}

SOURCE = 'org.example.reading'

REDUCERS = [
    {'context': SOURCE, 'scope': Scope([KeyField.STUDENT]), 'function': reading_log.reducers.event_counter,
     'default': {'count': 0}},
    {'context': SOURCE, 'function': reading_log.reducers.last_event, 'default': {'event': ''}},
    {'context': SOURCE, 'scope': reading_log.reducers.document_scope,
     'function': reading_log.reducers.words_in_document, 'default': {'words': 0}},
    {'context': SOURCE, 'scope': reading_log.reducers.tab_scope, 'function': reading_log.reducers.tab_visits},
    {'context': SOURCE, 'scope': Scope([KeyField.RESOURCE]), 'function': reading_log.reducers.readers},
    {'context': SOURCE, 'scope': Scope([KeyField.CLASS]), 'function': reading_log.reducers.class_events},
    {'context': SOURCE, 'scope': Scope([KeyField.TEACHER]), 'function': reading_log.reducers.teacher_events},
    {'context': SOURCE, 'function': reading_log.reducers.pages},
    {'context': SOURCE, 'function': reading_log.reducers.student_time},
    {'context': SOURCE, 'function': reading_log.reducers.titles},
]


async def echo(request):
    return web.json_response({'said': (await request.json())['say']})


EXTRA_VIEWS = [
    {'name': 'Colors', 'suburl': 'colors', 'static_json': ['red', 'green']},
    {'name': 'Echo', 'suburl': 'api/echo', 'method': 'POST', 'handler': echo},
    {'name': 'Broken', 'suburl': 'broken', 'method': 'GET', 'handler': lambda request: 1 / 0},
]

AJAX = {'greet': lambda request: {'greeting': 'hello ' + request.query.get('name', 'you')}}

THIRD_PARTY = {'require.js': d.REQUIRE_JS, 'css/fontawesome_all.css': d.FONTAWESOME_CSS}

STATIC_FILE_GIT_REPOS = {
    'reading': {
        'url': 'https://example.org/reading.git',
        'prefix': 'modules/reading_log/reading_log/pages',
        'whitelist': ['master'],
    },
    'elsewhere': {'url': 'https://example.org/elsewhere.git', 'prefix': 'static', 'whitelist': ['master']},
}

COURSE_DASHBOARDS = [
    {'name': NAME, 'url': '/static/repos/reading_log/reading/master/index.html',
     'icon': {'type': 'fas', 'icon': 'fa-book'}},
    {'name': 'Colors', 'url': '/views/reading_log/colors/', 'icon': {}},
    {'name': 'Gone', 'url': '/static/repos/reading_log/elsewhere/master/index.html', 'icon': {}},
]
STUDENT_DASHBOARDS = [{'name': 'My reading', 'url': '/views/reading_log/colors/?mine', 'icon': {}}]
COURSE_AGGREGATORS = {'reading': {'sources': [reading_log.reducers.event_counter], 'name': 'Old style'}}
NEXTJS_PAGES = [{'path': 'board/'}, {'path': 'not_built/'}]
USES = [static_url('liblo.js'), thirdparty_url('css/fontawesome_all.css')]
