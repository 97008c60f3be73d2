"""`python -m services.promotion`: the service. Settings are environment variables: README.md has them."""

from __future__ import annotations

import http.server
import logging
import os
import signal
import threading
from pathlib import Path
from urllib.parse import quote

from services.promotion.decisions import Decisions
from services.promotion.errors import PromotionError
from services.promotion.gates import Cluster, Folder, Gates
from services.promotion.registry import MissingError, Registry
from services.promotion.store import Store
from services.promotion.web import PASSWORD, Callers, Handler

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
USER = "promotion"
"""The service's own name among MLflow's users."""
SECONDS_TO_RETRY, SECONDS_BETWEEN = 2.0, 60.0
log = logging.getLogger(USER)


def main() -> None:
    """Answer until told to stop; what is asked for before it has started is refused with 503."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    callers, started, stopping = Path(os.environ["CALLERS"]), threading.Event(), threading.Event()
    login = ":".join(quote(os.environ[name], safe="") for name in ("DATABASE_USER", "DATABASE_PASSWORD"))
    store = Store(f"postgresql://{login}@{os.environ['DATABASE']}")
    registry = Registry(
        os.environ["REGISTRY"].rstrip("/"), USER, lambda: (callers / f"{USER}{PASSWORD}").read_text().strip()
    )
    folder = os.environ.get("GATES", "")
    address = os.environ.get("API_SERVER", "https://kubernetes.default.svc")
    gates: Gates = Folder(Path(folder)) if folder else Cluster(address, Path(os.environ.get("ACCOUNT_FOLDER", ACCOUNT)))
    decisions = Decisions(store, registry, gates)

    class Served(Handler):
        pass

    Served.decisions, Served.callers, Served.started = decisions, Callers(callers), started.is_set
    server = http.server.ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Served)
    server.daemon_threads = True

    def stop(*_: object) -> None:
        stopping.set()
        threading.Thread(target=server.shutdown).start()

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    threading.Thread(target=_start, args=(decisions, started, stopping), daemon=True).start()
    server.serve_forever()


def _start(decisions: Decisions, started: threading.Event, stopping: threading.Event) -> None:
    """Start as soon as all that it needs answers; then keep up with which models have gates."""
    told = ""
    while not stopping.is_set():
        try:
            if started.is_set():
                decisions.note_gates()
            else:
                decisions.start()
                started.set()
                log.info("started")
            told = ""
        except (PromotionError, MissingError, OSError) as error:
            if str(error) != told:
                log.warning("will try again: %s", error)
            told = str(error)
        stopping.wait(SECONDS_BETWEEN if started.is_set() else SECONDS_TO_RETRY)


if __name__ == "__main__":
    main()
