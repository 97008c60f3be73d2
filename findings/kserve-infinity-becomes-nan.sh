#!/usr/bin/env bash
# KServe: a model that answers minus infinity is read as NaN by KServe's own client.
#
# With:      kserve 0.21.0: its REST server and its InferenceRESTClient, joined in one process.
# Model:     answers log-probabilities [-inf, 0.0] as FP64: it rules the first class out.
# Expected:  the client reads what the model answered, or one of the two sides says that JSON has no infinity.
# Seen:      the server writes `null` into the data of an FP64 tensor, with a status of 200; the client reads
#            NaN. A class that is ruled out has become one that nothing is known of: -inf compares and
#            sorts, NaN does neither. The V1 protocol writes the same null, and hands it on as None.
# Way out:   a finite floor in the model.
#
# Exits 0 while that is so, 1 when it is not, 2 when the packages cannot be installed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  kserve==0.21.0 numpy==2.4.6 fastapi==0.165.0 httpx==0.28.1 orjson==3.13.0 || exit 2

cd "$work"
export HOME=$work
"$work/venv/bin/python" -W ignore - 2>program.log <<'PY' || { code=$?; tail -n 20 program.log; exit "$code"; }
import asyncio
import math
import sys

import httpx
import numpy
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, InferResponse
from kserve import Model, ModelRepository
from kserve.inference_client import RESTConfig
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer

ANSWER = numpy.array([[-math.inf, 0.0]])


class Bayes(Model):
    def load(self):
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            return {"predictions": ANSWER.tolist()}
        output = InferOutput(name="log_probability", shape=list(ANSWER.shape), datatype="FP64")
        output.set_data_from_numpy(ANSWER, binary_data=False)
        return InferResponse(response_id="1", model_name="bayes", infer_outputs=[output])


async def main():
    model, models = Bayes("bayes"), ModelRepository()
    model.load()
    models.update(model)
    RESTServer(app, DataPlane(models), ModelRepositoryExtension(models), 8080).create_application()
    wire = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=wire, base_url="http://model") as plain:
        tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
        text = (await plain.post("/v2/models/bayes/infer", json={"inputs": [tensor]})).json()
    answers = {}
    for protocol in ("v2", "v1"):
        client = InferenceRESTClient(RESTConfig(transport=wire, protocol=protocol))
        given = InferInput(name="x", shape=[1], datatype="FP64")
        given.set_data_from_numpy(numpy.array([1.0]), binary_data=False)
        asked = {"instances": [[1.0]]}
        if protocol == "v2":
            asked = InferRequest(model_name="bayes", infer_inputs=[given])
        answers[protocol] = await client.infer("http://model", asked, model_name="bayes")
    return text["outputs"][0]["data"], answers["v2"].outputs[0].as_numpy().tolist(), answers["v1"]["predictions"]


wire, v2, v1 = asyncio.run(main())
print("the model answers:", ANSWER.tolist())
print("on the wire (V2): ", wire)
print("V2 client reads:  ", v2)
print("V1 client reads:  ", v1)
sys.exit(not (wire == [None, 0.0] and math.isnan(v2[0][0]) and v2[0][1] == 0.0 and v1 == [[None, 0.0]]))
PY
