from learning_observer.stream_analytics.helpers import student_event_reducer


@student_event_reducer(null_state={'answers': 0, 'right': 0})
async def answers_given(event, so_far):
    client = event['client']
    if client['event'] != 'answer':
        return False, False
    so_far['answers'] += 1
    so_far['right'] += bool(client.get('right'))
    return so_far, so_far
