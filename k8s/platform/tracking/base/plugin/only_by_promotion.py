"""MLflow's server with users, where only the promotion service decides about models (a plugin: mlflow.app).

It refuses to everybody else, also to administrators, what would make a stage serve a version that has not passed a
gate, or change what has passed one: docs/adr/0014. The service's tables have the models with gates.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# MLflow reads its configuration on import: it is imported when the server is created, not with this module.
# ruff: noqa: PLC0415
SERVICE = "promotion"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
STAGES = frozenset({"staging", "canary", "production"})
TAGS = re.compile(r"(moved|withdrawn|former)\..*")
"""Tags of registered models, for the rollout controller and the delivery figures."""
VERDICT = re.compile(r"gate(\..*)?|test_.*")
"""Tags of versions with the gate's verdict."""
LOGGED_MODEL = re.compile(r"models/(m-[0-9a-f]+)")


def create_app() -> Any:
    """MLflow's app with users and these checks."""
    from metrics_reader import create_app as with_users
    from mlflow.server import app

    application = with_users(app)
    app.before_request(_refuse)  # after MLflow's own, which authenticates the user
    return Frozen(application)


class Frozen:
    """Refuses changes to files that passed a gate. MLflow handles uploads before its Flask app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle an ASGI request."""
        if scope["type"] == "http" and scope["method"] not in READING and "/mlflow-artifacts/" in scope["path"]:
            from starlette.concurrency import run_in_threadpool
            from starlette.responses import JSONResponse

            if reason := await run_in_threadpool(_files, scope["path"]):
                error = {"error_code": "PERMISSION_DENIED", "message": reason}
                await JSONResponse(error, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _refuse() -> Any:
    flask = _flask()
    check = CHECKS.get((flask.request.endpoint or "").rsplit(".", 1)[-1])
    if check is None or flask.request.method in READING:
        return None
    if getattr(flask.g, "mlflow_authenticated_user", None) == SERVICE:
        return None
    if not (reason := check()):
        return None
    message = (
        f"{reason}. Only the promotion service does that: `lab train`, `lab promote`, `lab rollback`, `lab withdraw`"
    )
    return flask.make_response({"error_code": "PERMISSION_DENIED", "message": message}, 403)


def _flask() -> Any:
    import flask  # type: ignore[import-not-found]

    return flask


def _request(kind: str) -> Any:
    """The request, parsed as MLflow's handler parses it."""
    from mlflow.protos import model_registry_pb2
    from mlflow.server.handlers import _get_request_message

    return _get_request_message(getattr(model_registry_pb2, kind)())


def _exists(query: str, value: str) -> bool:
    """Whether a query of the service's tables has a result; without the tables, it has none."""
    import sqlalchemy  # type: ignore[import-not-found]
    from mlflow.server.handlers import _get_model_registry_store

    with _get_model_registry_store().engine.connect() as connection:
        if connection.execute(sqlalchemy.text("SELECT to_regclass('promotion.gates')")).scalar() is None:
            return False
        return connection.execute(sqlalchemy.text(query), {"value": value}).first() is not None


def _has_gate(model: str) -> bool:
    return _exists("SELECT 1 FROM promotion.gates WHERE model = :value", model)


def _served(model: str, version: str = "") -> list[str]:
    """The stages that serve a model, or one version of it."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_model_registry_store

    try:
        aliases = _get_model_registry_store().get_registered_model(model).aliases
    except MlflowException:
        return []  # MLflow reports it
    found = aliases.items() if isinstance(aliases, dict) else ((one.alias, one.version) for one in aliases)
    return sorted(alias for alias, number in found if alias in STAGES and version in {"", str(number)})


def _alias(kind: str) -> Callable[[], str]:
    def check() -> str:
        request = _request(kind)
        decided = request.alias in STAGES or _has_gate(request.name)
        return f"the alias {request.alias} of {request.name} decides what is served" if decided else ""

    return check


def _version() -> str:
    name = _request("CreateModelVersion").name
    return f"{name} has a gate, which a model must pass to become a version" if _has_gate(name) else ""


def _transition() -> str:
    return f"stages of {_request('TransitionModelVersionStage').name} are aliases"


def _delete_version() -> str:
    request = _request("DeleteModelVersion")
    stages = _served(request.name, request.version)
    return f"version {request.version} of {request.name} is served by {', '.join(stages)}" if stages else ""


def _delete_model() -> str:
    name = _request("DeleteRegisteredModel").name
    stages = _served(name)
    return f"{name} is served by {', '.join(stages)}" if stages else ""


def _rename() -> str:
    request = _request("RenameRegisteredModel")
    gated = [name for name in (request.name, request.new_name) if _has_gate(name)]
    if stages := _served(request.name):
        return f"{request.name} is served by {', '.join(stages)}"
    return f"{gated[0]} has a gate, which belongs to its name" if gated else ""


def _create_model() -> str:
    request = _request("CreateRegisteredModel")
    own = [tag.key for tag in request.tags if TAGS.fullmatch(tag.key)]
    return f"the tag {own[0]} records a decision" if own else ""


def _tag_of_model(kind: str) -> Callable[[], str]:
    def check() -> str:
        key = _request(kind).key
        return f"the tag {key} records a decision" if TAGS.fullmatch(key) else ""

    return check


def _tag_of_version(kind: str) -> Callable[[], str]:
    def check() -> str:
        request = _request(kind)
        own = VERDICT.fullmatch(request.key) and _has_gate(request.name)
        return f"the tag {request.key} of {request.name} records its gate's verdict" if own else ""

    return check


def _files(path: str) -> str:
    passed = [
        model_id
        for model_id in LOGGED_MODEL.findall(path)
        if _exists("SELECT 1 FROM promotion.verdicts WHERE passed AND model_id = :value", model_id)
    ]
    return f"the files of {passed[0]} have passed a gate and cannot change" if passed else ""


def _logged_model() -> str:
    model_id = str((_flask().request.view_args or {}).get("model_id", ""))
    passed = _exists("SELECT 1 FROM promotion.verdicts WHERE passed AND model_id = :value", model_id)
    return f"{model_id} has passed a gate" if passed else ""


def _user() -> str:
    request = _flask().request
    body = request.get_json(force=True, silent=True)
    names = [request.args.get("username"), body.get("username") if isinstance(body, dict) else None]
    return f"{SERVICE} is the service's own user" if SERVICE in names else ""


CHECKS: dict[str, Callable[[], str]] = {
    "_set_registered_model_alias": _alias("SetRegisteredModelAlias"),
    "_delete_registered_model_alias": _alias("DeleteRegisteredModelAlias"),
    "_create_model_version": _version,
    "_transition_stage": _transition,
    "_delete_model_version": _delete_version,
    "_delete_registered_model": _delete_model,
    "_rename_registered_model": _rename,
    "_create_registered_model": _create_model,
    "_set_registered_model_tag": _tag_of_model("SetRegisteredModelTag"),
    "_delete_registered_model_tag": _tag_of_model("DeleteRegisteredModelTag"),
    "_set_model_version_tag": _tag_of_version("SetModelVersionTag"),
    "_delete_model_version_tag": _tag_of_version("DeleteModelVersionTag"),
    "_delete_logged_model": _logged_model,
    "create_user": _user,
    "delete_user": _user,
    "update_user_admin": _user,
    "update_user_password": _user,
}
"""By the name of MLflow's handler, which serves all paths of a request."""
