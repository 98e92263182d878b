from learning_observer import downloads
from learning_observer.communication_protocol.util import generate_base_dag_for_student_reducer
from learning_observer.dash_integration import static_url, thirdparty_url

from quiz_board import board, reducers

NAME = 'Quiz board'
EXECUTION_DAG = generate_base_dag_for_student_reducer('answers_given', 'quiz_board')
REDUCERS = [{'context': 'org.example.quiz', 'function': reducers.answers_given}]
THIRD_PARTY = {'icons.css': downloads.FONTAWESOME_CSS}
DASH_PAGES = [dict(
    MODULE=board, LAYOUT=board.layout, SUBPATH='quiz', ASSETS='assets', TITLE='The quiz board',
    DESCRIPTION='Needs components that are not installed.',
    CSS=[thirdparty_url('icons.css')], SCRIPTS=[static_url('liblo.js')])]
COURSE_DASHBOARDS = [dict(name=NAME, url='/quiz_board/dash/quiz', icon={'type': 'fas', 'icon': 'fa-check'})]
