"""What one would write at first: an endpoint, a prompt a request, threads that wait for each other.

uvicorn benchmarks.serving.naive:app
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from mnemoscope import Detector

app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})
detector = Detector.load(threads=1)


class Asked(BaseModel):
    """A request."""

    prompt: str


@app.post("/screen")
def screen(asked: Asked) -> dict[str, Any]:
    """FastAPI runs it in a thread, one of forty."""
    [found] = detector.screen([asked.prompt], noises=1)
    return {"memorized": found.memorized}
