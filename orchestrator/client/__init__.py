"""The client: submit a plan, follow the job, get the answer. HTTP and models only: no Celery, no Redis, no model package."""

from orchestrator.client.aio import AsyncClient
from orchestrator.client.client import Client
from orchestrator.client.handle import AsyncJobHandle, JobHandle

__all__ = ["AsyncClient", "AsyncJobHandle", "Client", "JobHandle"]
