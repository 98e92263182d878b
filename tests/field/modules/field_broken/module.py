import learning_observer.dashboard

NAME = 'Broken'
