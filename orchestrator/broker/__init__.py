"""All Celery configuration: the app, the queues, and the result backend whose chords our ledger joins."""
