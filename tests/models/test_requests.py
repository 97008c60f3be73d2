"""What the model server makes of requests, of a model that was trained with what it takes: `-m slow_images`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.models.example import answer_to, digits, serve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.images.services import Stack

pytestmark = [pytest.mark.slow_images, pytest.mark.timeout(900)]
BLANK = [0.0] * 64
JSON = {"Content_Type": "application/json"}
V1, V2 = "v1/models/digits:predict", "v2/models/digits/infer"
LARGEST = 1 << 20


@pytest.fixture(scope="module", params=["", "torch"])
def url(stack: Stack, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of the example, and of its variant that is served as ONNX."""
    made = digits(stack, "run", *(["--variant", request.param] if request.param else []))
    assert made.status == 0, made.output
    server, url = serve(stack, {"MODEL_VERSION": made.result["version"], "MAX_REQUEST_BYTES": str(LARGEST)})
    yield url
    server.stop()


def with_value(value: Any) -> list[Any]:
    """An image with a value in its fourth pixel."""
    return [*BLANK[:3], value, *BLANK[4:]]


def tensor(data: Any, shape: Any = (1, 64), datatype: str = "FP64", name: str = "pixels", **more: Any) -> Any:
    """A V2 request with one input."""
    return {"inputs": [{"name": name, "shape": list(shape), "datatype": datatype, "data": data}], **more}


TAKEN = {
    "numbers in a row": tensor(BLANK),
    "rows of numbers": tensor([BLANK, BLANK], (2, 64)),
    "other numbers": tensor([16] * 64, datatype="UINT8"),
    "32 bits": tensor(BLANK, datatype="FP32"),
    "the range's ends": tensor([0.0, 16.0] * 32),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_the_model_takes_is_answered(url: str, what: str) -> None:
    status, answer = answer_to(f"{url}/{V2}", json.dumps(TAKEN[what]).encode(), **JSON)
    assert status == 200
    assert {output["name"] for output in answer["outputs"]} == {"label", "probabilities"}
    rows = [BLANK, BLANK]
    assert len(answer_to(f"{url}/{V1}", json.dumps({"instances": rows}).encode(), **JSON)[1]["predictions"]) == 2


REFUSED: dict[str, tuple[Any, str]] = {
    "63 values": (tensor(BLANK[:63]), "63 values for the shape [1, 64]"),
    "another shape": (tensor([0.0] * 3, (1, 3)), "the model takes [64]"),
    "more dimensions": (tensor(BLANK, (1, 8, 8)), "the model takes [64]"),
    "ragged": (tensor([BLANK, BLANK[:3]], (2, 64)), "not all rows are lists of 64"),
    "fewer rows than its shape": (tensor([BLANK], (2, 64)), "1 rows for the shape [2, 64]"),
    "text": (tensor(["a"] * 64, datatype="FP32"), "'a', value 0, is not FP32"),
    "text that is a number": (tensor(with_value("1")), "'1', value 3, is not FP64"),
    "null": (tensor(with_value(None)), "null, value 3, is not FP64"),
    "no data": (tensor(None), "inputs.0.data: "),
    "true": (tensor(with_value(True)), "True, value 3, is not FP64"),
    "300 of UINT8": (tensor([300, *[0] * 63], datatype="UINT8"), "300 is outside UINT8: 0 to 255"),
    "300 of INT8": (tensor([300, *[0] * 63], datatype="INT8"), "300 is outside INT8: -128 to 127"),
    "-1 of UINT16": (tensor([-1, *[0] * 63], datatype="UINT16"), "-1 is outside UINT16: 0 to 65535"),
    "1e30 of INT64": (tensor([10**30, *[0] * 63], datatype="INT64"), f"{10**30} is outside INT64"),
    "a half of INT32": (tensor(with_value(0.5), datatype="INT32"), "is not INT32"),
    "BOOL": (tensor([True] * 64, datatype="BOOL"), "the values are BOOL; the model takes numbers"),
    "BYTES": (tensor(["a"] * 64, datatype="BYTES"), "the values are text; the model takes numbers"),
    "no such datatype": (tensor(BLANK, datatype="FP63"), "there is no datatype FP63"),
    "another name": (tensor(BLANK, name="image"), "no input 'image'; it takes 'pixels'"),
    "two inputs": ({"inputs": tensor(BLANK)["inputs"] * 2}, "takes one input with a row for each case, not 2"),
    "no input": ({"inputs": []}, "takes one input with a row for each case, not 0"),
    "no inputs": ({}, "inputs: Field required"),
    "another output": (tensor(BLANK, outputs=[{"name": "x"}]), "no output x; it has label, probabilities"),
    "no rows": (tensor([], (0, 64)), "there are no rows"),
    "a negative shape": (tensor(BLANK, (-1, 64)), "[-1, 64] is not a shape of rows"),
    "a huge shape": (tensor(BLANK, (10**40, 64)), "64 values for the shape"),
    "no object": ([1], "a valid dictionary"),
    "NaN": (tensor(with_value(float("nan"))), "nan is not a finite number"),
    "infinity": (tensor(with_value(float("inf"))), "inf is not a finite number"),
    "1e39 of FP32": (tensor(with_value(1e39), datatype="FP32"), "1e+39 is not a finite number that fits FP32"),
    "ten to the 400": (tensor(with_value(10**400)), "is not a finite number that fits FP64"),
    "1e300": (tensor(with_value(1e300)), "outside the range that the model was trained on: 1e+300 in row 0, value 3"),
    "-1000": (tensor(with_value(-1000)), "-1000 in row 0, value 3, where it was 0 to 16"),
    "a little too much": (tensor(with_value(16.5)), "16.5 in row 0, value 3, where it was 0 to 16"),
    "255 of UINT8": (tensor([255, *[0] * 63], datatype="UINT8"), "255 in row 0, value 0, where it was 0 to 16"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_invalid_requests_are_client_errors(url: str, what: str) -> None:
    body, printed = REFUSED[what]
    status, answer = answer_to(f"{url}/{V2}", json.dumps(body).encode(), **JSON)
    assert (status, list(answer)) == (400, ["error"])
    assert printed in answer["error"]


REFUSED_BY_V1: dict[str, tuple[Any, str]] = {
    "63 values": ([BLANK[:63]], "the model takes [64]"),
    "ragged": ([BLANK, BLANK[:3]], "not all rows are lists of 64"),
    "text": ([["a"] * 64], "the values are text"),
    "null": ([with_value(None)], "null, value 3"),
    "true": ([with_value(True)], "True, value 3"),
    "1e300": ([with_value(1e300)], "outside the range that the model was trained on"),
    "-1000": ([with_value(-1000)], "-1000 in row 0, value 3, where it was 0 to 16"),
    "columns by name": ([{"pixels": BLANK}], "is not FP64"),
    "no rows": ([], "there are no rows"),
    "no list": ("abc", "the request must have `instances`: a list of rows"),
    "one number": ([1], "the model takes [64]"),
    "NaN": ([with_value(float("nan"))], "Unrecognized request format"),
}


@pytest.mark.parametrize("what", REFUSED_BY_V1)
def test_so_does_the_older_protocol(url: str, what: str) -> None:
    rows, printed = REFUSED_BY_V1[what]
    status, answer = answer_to(f"{url}/{V1}", json.dumps({"instances": rows}).encode(), **JSON)
    assert (status, list(answer)) == (400, ["error"])
    assert printed in answer["error"]


GOOD = json.dumps({**tensor(BLANK), "instances": [BLANK]}).encode()
LARGE = b" " * (LARGEST + 1)
UNREAD: dict[str, tuple[str, bytes | None, dict[str, str], int, str]] = {
    "no JSON": (V2, b"{", JSON, 400, "the request is not JSON: "),
    "no JSON, V1": (V1, b"{", JSON, 400, "Unrecognized request format"),
    "no text": (V2, b"\xff\xfe", JSON, 400, ""),
    "lists without an end": (V2, b"[" * 100_000, JSON, 400, ""),
    "another content type": (V2, GOOD, {"Content_Type": "text/plain"}, 415, "Content-Type text/plain is not supported"),
    "another content type, V1": (V1, GOOD, {"Content_Type": "text/csv"}, 415, "send application/json"),
    "too large": (V2, LARGE, JSON, 413, f"more than {LARGEST} bytes"),
    "too large, V1": (V1, LARGE, JSON, 413, f"more than {LARGEST} bytes"),
    "an unknown model": ("v2/models/wines/infer", GOOD, JSON, 404, "wines"),
    "an unknown model, V1": ("v1/models/wines:predict", GOOD, JSON, 404, "wines"),
    "an unknown model's metadata": ("v2/models/wines", None, {}, 404, "wines"),
    "an unknown path": ("v3", None, {}, 404, "Not Found"),
    "another method": (V2, None, {}, 405, "Method Not Allowed"),
    "no number of bytes": (V2, GOOD, {"Inference_Header_Content_Length": "x"}, 400, "cannot be read"),
    "binary without its header": (V2, b"12345678", {"Inference_Header_Content_Length": "0"}, 400, ""),
}


@pytest.mark.parametrize("what", UNREAD)
def test_a_request_that_cannot_be_read_is_refused_in_the_same_shape(url: str, what: str) -> None:
    path, body, headers, wanted, printed = UNREAD[what]
    status, answer = answer_to(f"{url}/{path}", body, **headers)
    assert (status, list(answer)) == (wanted, ["error"])
    assert printed in answer["error"]


@pytest.mark.parametrize("path", [V1, V2])
def test_a_character_set_may_stand_behind_the_content_type(url: str, path: str) -> None:
    assert answer_to(f"{url}/{path}", GOOD, Content_Type="application/json; charset=utf-8")[0] == 200


def test_the_models_metadata_says_what_it_takes(url: str) -> None:
    (taken,) = answer_to(f"{url}/v2/models/digits", None)[1]["inputs"]
    assert (taken["name"], taken["shape"]) == ("pixels", [-1, 64])
