"""The model in a FastAPI application and nothing around it. Runs in the model server's image, on its loader."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from model_server.models import load

model = load(f"models:/{os.environ['MODEL_NAME']}/{os.environ['MODEL_VERSION']}")
app = FastAPI()


@app.get("/v2/health/{_}")  # type: ignore[untyped-decorator]
async def health() -> dict[str, str]:
    """The model is loaded before the port is opened."""
    return {}


@app.post("/v2/models/{_}/infer")  # type: ignore[untyped-decorator]
async def infer(request: Request) -> dict[str, Any]:
    """Outputs of the model, of the one tensor in the request."""
    (tensor,) = (await request.json())["inputs"]
    outputs = model.predict(model.schema.checked(np.asarray(tensor["data"]).reshape(tensor["shape"])))
    return {
        "outputs": [
            {"name": name, "shape": values.shape, "data": values.ravel().tolist()} for name, values in outputs.items()
        ]
    }


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=int(os.environ["PORT"]), access_log=False, log_level="warning")  # noqa: S104
