"""An API to call, as a program of its own: `python http_api.py PORT`. Its own document is at `/openapi.json`.

It notes what changed anything in the file `NOTES`; `/raw/...` gives back what came in.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File, Form, Header, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import BaseModel, Field

app = FastAPI(title="Lab", version="2.1")
NOTES = Path(os.environ.get("NOTES", os.devnull))
ORDERS: dict[int, Order] = {}
PNG = bytes.fromhex("89504e470d0a1a0a") + b"rest"


class Part(BaseModel):
    name: str
    parts: list[Part] = []


class Order(BaseModel):
    title: str = Field(max_length=40)
    count: int = 1
    part: Part | None = None


class Kept(Order):
    id: int


def note(*words: Any) -> int:
    """Adds a line; how often it is there now."""
    line = " ".join(str(w) for w in words)
    with NOTES.open("a") as out:
        out.write(f"{line}\n")
    return NOTES.read_text().splitlines().count(line)


@app.get("/orders", operation_id="list_orders", tags=["orders"])
async def list_orders(
    tags: Annotated[list[str] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1)] = 10,
    x_trace: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """The orders, newest first."""
    return {"tags": tags or [], "limit": limit, "trace": x_trace, "orders": list(ORDERS.values())}


@app.post("/orders", operation_id="make_order", status_code=201)
async def make_order(order: Order, idempotency_key: Annotated[str | None, Header()] = None) -> Kept:
    """Makes an order."""
    note("order", order.title, idempotency_key)
    kept = Kept(id=len(ORDERS) + 1, **order.model_dump())
    ORDERS[kept.id] = kept
    return kept


@app.put("/orders/{number}", operation_id="change_order")
async def change_order(number: int, order: Order) -> Kept:
    if number not in ORDERS:
        raise HTTPException(404, "there is no such order")
    return Kept(id=number, **order.model_dump())


@app.delete("/orders/{number}", operation_id="drop_order", status_code=204)
async def drop_order(number: int) -> None:
    ORDERS.pop(number, None)


@app.post("/upload", operation_id="upload")
async def upload(
    file: Annotated[UploadFile, File()],
    others: Annotated[list[UploadFile] | None, File()] = None,
    title: Annotated[str, Form()] = "",
) -> dict[str, Any]:
    size = len(await file.read())
    return {"name": file.filename, "type": file.content_type, "size": size, "others": len(others or []), "title": title}


@app.post("/login", operation_id="login")
async def login(user: Annotated[str, Form()], scopes: Annotated[list[str] | None, Form()] = None) -> dict[str, Any]:
    return {"user": user, "scopes": scopes}


@app.get("/picture", operation_id="picture")
async def picture() -> Response:
    return Response(PNG, media_type="image/png", headers={"content-disposition": 'attachment; filename="../a.png"'})


@app.get("/words", operation_id="words", response_class=PlainTextResponse)
async def words() -> str:
    return "grüße"


@app.get("/wrong", operation_id="wrong")
async def wrong() -> Order:
    return JSONResponse({"count": "many"})  # type: ignore[return-value]


@app.api_route("/status/{code}", methods=["GET"], operation_id="get_status")
async def get_status(code: int, times: int = 1_000_000, key: str = "x", authorization: str = Header("")) -> Any:
    return _status("get", code, times, key, authorization)


@app.api_route("/status/{code}", methods=["POST"], operation_id="post_status")
async def post_status(code: int, times: int = 1_000_000, key: str = "x", authorization: str = Header("")) -> Any:
    return _status("post", code, times, key, authorization)


def _status(method: str, code: int, times: int, key: str, authorization: str) -> Any:
    seen = note("status", method, code, key)
    if seen > times:
        return {"seen": seen}
    more = {"retry-after": "1"} if code in (429, 503) else {}
    return JSONResponse({"detail": f"no: {authorization}"}, status_code=code, headers=more)


@app.post("/slow", operation_id="slow")
async def slow(seconds: float, key: str) -> str:
    note("slow", key)
    await asyncio.sleep(seconds)
    note("slept", key)
    return key


@app.get("/slow", operation_id="slow_read")
async def slow_read(seconds: float, key: str) -> str:
    note("slow", key)
    await asyncio.sleep(seconds)
    return key


@app.get("/large", operation_id="large")
async def large(mib: int) -> str:
    return "x" * (mib << 20)


@app.get("/away", operation_id="away")
async def away(to: str) -> Response:
    return RedirectResponse(to, status_code=302)


@app.post("/away", operation_id="send_away")
async def send_away(to: str, status: int = 307) -> Response:
    return RedirectResponse(to, status_code=status)


@app.api_route("/raw/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
async def raw(request: Request) -> Any:
    body = await request.body()
    return {
        "method": request.method,
        "path": request.scope["raw_path"].decode().removeprefix("/raw"),
        "query": request.scope["query_string"].decode(),
        "headers": dict(request.headers),
        "body": body.decode("latin-1"),
    }


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
