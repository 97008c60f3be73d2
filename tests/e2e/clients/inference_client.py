"""What a user of NVIDIA's client of the Open Inference Protocol does: asks what there is, then asks the model.

Sends the images that scikit-learn ships, as JSON and as binary tensors; prints what came back as JSON.
"""

import json
import os
import sys

import gevent.ssl
from sklearn.datasets import load_digits
from tritonclient import http

address, model, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = http.InferenceServerClient(
    address, ssl=True, ssl_context_factory=lambda: gevent.ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
)
pixels, labels = load_digits(return_X_y=True)
answers = {}
for binary in (False, True):
    tensor = http.InferInput("pixels", [rows, pixels.shape[1]], "FP64")
    tensor.set_data_from_numpy(pixels[:rows], binary_data=binary)
    wanted = [http.InferRequestedOutput("label", binary_data=binary)]
    # The client calls all that it sends a stream of octets, also what is JSON.
    headers = None if binary else {"Content-Type": "application/json"}
    answer = client.infer(model, [tensor], outputs=wanted, request_id="test", headers=headers)
    answers["binary" if binary else "json"] = [int(label) for label in answer.as_numpy("label")]
print(
    json.dumps(
        {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model": client.is_model_ready(model),
            "name": client.get_model_metadata(model)["name"],
            "version": answer.get_response()["model_version"],
            "right": sum(one == int(other) for one, other in zip(answers["json"], labels, strict=False)),
            **answers,
        }
    )
)
