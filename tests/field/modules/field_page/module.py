import field_page.layout

NAME = 'A page'

DASH_PAGES = [{
    'MODULE': field_page.layout,
    'LAYOUT': field_page.layout.layout,
    'ASSETS': 'assets',
    'TITLE': 'A page of Dash',
    'DESCRIPTION': '',
    'SUBPATH': 'page',
    'CSS': ['https://example.org/a.css', '/static/3rd_party/b.css'],
}]
COURSE_DASHBOARDS = [{'name': NAME, 'url': '/field_page/dash/page', 'icon': {}}]
STUDENT_DASHBOARDS = {}
