"""The client for event loops, against a platform that runs: the receipts of two bundled pictures, watched live."""

import asyncio

from orchestrator.client import AsyncClient


async def main() -> None:
    async with AsyncClient() as client:
        job = await client.submit("receipts", inputs={"images": ["bundled:grocery", "bundled:cafe"]})
        async for event in job:
            if event.type.startswith("step."):
                print(event.type, event.step, event.data.get("done", ""))
        summary = await job.result(timeout=120)
        for row in summary["rows"]:
            print(row["merchant"], row["total"], row["currency"])


asyncio.run(main())
