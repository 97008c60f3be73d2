"""MLflow's server with users, that lets only the promotion service decide about models (a plugin: mlflow.app).

What is refused to everybody else, administrators too, is what would have a stage serve a version that no gate has
passed, or change what a gate has passed. docs/adr/0014 says why; the service's tables say which models have gates.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# MLflow reads its configuration as it is imported: where the server is made, not where this is looked up.
# ruff: noqa: PLC0415
SERVICE = "promotion"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
STAGES = frozenset({"staging", "canary", "production"})
TAGS = re.compile(r"(moved|withdrawn|former)\..*")
"""Of registered models: the rollout controller and the delivery figures go by them."""
VERDICT = re.compile(r"gate(\..*)?|test_.*")
"""Tags of versions: what the gate has said."""
LOGGED_MODEL = re.compile(r"models/(m-[0-9a-f]+)")


def create_app() -> Any:
    """MLflow's own app with users, and what is refused."""
    from mlflow.server import app
    from told_figures import create_app as with_users

    made = with_users(app)
    app.before_request(_refuse)  # after MLflow's own, which has found out who asks
    return Frozen(made)


class Frozen:
    """Refuses to change files that a gate has passed. MLflow takes uploads before they reach its Flask app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as ASGI has it."""
        if scope["type"] == "http" and scope["method"] not in READING and "/mlflow-artifacts/" in scope["path"]:
            from starlette.concurrency import run_in_threadpool
            from starlette.responses import JSONResponse

            if reason := await run_in_threadpool(_files, scope["path"]):
                told = {"error_code": "PERMISSION_DENIED", "message": reason}
                await JSONResponse(told, 403)(scope, receive, send)
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
    told = f"{reason}. Only the promotion service does that: `lab train`, `lab promote`, `lab rollback`, `lab withdraw`"
    return flask.make_response({"error_code": "PERMISSION_DENIED", "message": told}, 403)


def _flask() -> Any:
    import flask  # type: ignore[import-not-found]

    return flask


def _asked(kind: str) -> Any:
    """The request, read as MLflow's own handler reads it."""
    from mlflow.protos import model_registry_pb2
    from mlflow.server.handlers import _get_request_message

    return _get_request_message(getattr(model_registry_pb2, kind)())


def _ask(question: str, value: str) -> bool:
    """Whether the service's tables have something; before there are any, nothing has a gate."""
    import sqlalchemy  # type: ignore[import-not-found]
    from mlflow.server.handlers import _get_model_registry_store

    with _get_model_registry_store().engine.connect() as connection:
        if connection.execute(sqlalchemy.text("SELECT to_regclass('promotion.gates')")).scalar() is None:
            return False
        return connection.execute(sqlalchemy.text(question), {"value": value}).first() is not None


def _has_gate(model: str) -> bool:
    return _ask("SELECT 1 FROM promotion.gates WHERE model = :value", model)


def _served(model: str, version: str = "") -> list[str]:
    """The stages that are to serve a model, or one version of it."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.handlers import _get_model_registry_store

    try:
        aliases = _get_model_registry_store().get_registered_model(model).aliases
    except MlflowException:
        return []  # MLflow says so itself
    found = aliases.items() if isinstance(aliases, dict) else ((one.alias, one.version) for one in aliases)
    return sorted(alias for alias, number in found if alias in STAGES and version in {"", str(number)})


def _alias(kind: str) -> Callable[[], str]:
    def check() -> str:
        asked = _asked(kind)
        decided = asked.alias in STAGES or _has_gate(asked.name)
        return f"the alias {asked.alias} of {asked.name} says what is served" if decided else ""

    return check


def _version() -> str:
    name = _asked("CreateModelVersion").name
    return f"{name} has a gate, which a model has to pass before it becomes a version" if _has_gate(name) else ""


def _transition() -> str:
    return f"stages of {_asked('TransitionModelVersionStage').name} are aliases"


def _delete_version() -> str:
    asked = _asked("DeleteModelVersion")
    stages = _served(asked.name, asked.version)
    return f"version {asked.version} of {asked.name} is served by {', '.join(stages)}" if stages else ""


def _delete_model() -> str:
    name = _asked("DeleteRegisteredModel").name
    stages = _served(name)
    return f"{name} is served by {', '.join(stages)}" if stages else ""


def _rename() -> str:
    asked = _asked("RenameRegisteredModel")
    gated = [name for name in (asked.name, asked.new_name) if _has_gate(name)]
    if stages := _served(asked.name):
        return f"{asked.name} is served by {', '.join(stages)}"
    return f"{gated[0]} has a gate, which goes by its name" if gated else ""


def _create_model() -> str:
    asked = _asked("CreateRegisteredModel")
    own = [tag.key for tag in asked.tags if TAGS.fullmatch(tag.key)]
    return f"the tag {own[0]} says what was decided" if own else ""


def _tag_of_model(kind: str) -> Callable[[], str]:
    def check() -> str:
        key = _asked(kind).key
        return f"the tag {key} says what was decided" if TAGS.fullmatch(key) else ""

    return check


def _tag_of_version(kind: str) -> Callable[[], str]:
    def check() -> str:
        asked = _asked(kind)
        own = VERDICT.fullmatch(asked.key) and _has_gate(asked.name)
        return f"the tag {asked.key} of {asked.name} says what its gate has said" if own else ""

    return check


def _files(path: str) -> str:
    passed = [
        model_id
        for model_id in LOGGED_MODEL.findall(path)
        if _ask("SELECT 1 FROM promotion.verdicts WHERE passed AND model_id = :value", model_id)
    ]
    return f"a gate has passed the files of {passed[0]}: they stay as they are" if passed else ""


def _logged_model() -> str:
    model_id = str((_flask().request.view_args or {}).get("model_id", ""))
    passed = _ask("SELECT 1 FROM promotion.verdicts WHERE passed AND model_id = :value", model_id)
    return f"a gate has passed {model_id}" if passed else ""


def _user() -> str:
    request = _flask().request
    asked = request.get_json(force=True, silent=True)
    told = [request.args.get("username"), asked.get("username") if isinstance(asked, dict) else None]
    return f"{SERVICE} is the service's own name" if SERVICE in told else ""


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
"""By the name of MLflow's handler, which is one for all the paths that it has."""
