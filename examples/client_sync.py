"""The blocking client, against a platform that runs: submit, watch, fetch, and meet a plan that is refused."""

from pydantic import BaseModel

from orchestrator.client import Client
from orchestrator.errors import PlanError


class Tax(BaseModel):
    tax: float
    total: float


STEP = {"id": "tax", "tool": "compute_tax", "input": {"amount": "input:amount", "tax_rate": 0.08}}

with Client() as client:
    job = client.submit({"steps": [STEP]}, inputs={"amount": 100})
    for event in job.events():
        print(event.type, event.step or "")
    tax = job.result(timeout=60, as_=Tax)
    print("total", tax.total)

    print("one tool", client.run_tool("apply_discount", {"amount": 80, "percent": 25}))
    print("newest jobs", [view.status.value for view in client.jobs(limit=2)])

    try:
        client.submit({"steps": [STEP | {"tool": "compute_taxes"}]}, inputs={"amount": 100})
    except PlanError as error:
        print(error)
