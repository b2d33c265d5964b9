"""A service that screens each prompt before it draws.

uvicorn fastapi_service:app  # in this folder
curl localhost:8000/pictures -H 'content-type: application/json' -d '{"prompt": "a cat"}' -o cat.png
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel

from mnemoscope import InputError
from mnemoscope.drawing.generate import load_pipeline
from mnemoscope.serve import AsyncDetector, Limits, Overloaded

STEPS = 20


class Asked(BaseModel):
    prompt: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.pipe = await asyncio.to_thread(load_pipeline)  # or a diffusers pipeline of yours
    app.state.drawing = asyncio.Lock()  # it draws one request at a time
    limits = Limits(queue=64)  # prompts that may wait; who comes then is refused
    loaded = await asyncio.to_thread(AsyncDetector.load, limits=limits, threads=1)  # its bundle
    async with loaded as app.state.detector:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/pictures")
async def draw(asked: Asked, request: Request) -> Response:
    state = request.app.state
    try:
        found = await state.detector.screen(asked.prompt, timeout=5)
    except Overloaded as full:
        wait = {"retry-after": str(max(1, round(full.retry_after)))}
        raise HTTPException(429, "Too many prompts are waiting.", wait) from None
    except TimeoutError:
        raise HTTPException(503, "Nobody came to screen the prompt.") from None
    except InputError as error:  # longer than anybody reads, for one
        raise HTTPException(400, str(error)) from None
    if found.memorized:
        raise HTTPException(400, "This prompt would draw a training picture again.")
    if found.memorized is None or found.truncated:  # no verdict, or on a part of it alone
        raise HTTPException(400, "This prompt cannot be judged: it is empty, or too long.")
    async with state.drawing:
        drawn = await asyncio.to_thread(state.pipe, asked.prompt, num_inference_steps=STEPS)
    picture = io.BytesIO()
    drawn.images[0].save(picture, "PNG")
    return Response(picture.getvalue(), media_type="image/png")
