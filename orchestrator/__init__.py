"""ToolWeaver: turns a request into a plan of tool calls, runs it on pools of Celery workers, and answers."""
