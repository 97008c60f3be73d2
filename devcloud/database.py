"""Databases and their schemas. The first start saves a dump, so that a start after `reset` needs no migrations."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from devcloud.config import DATABASES
from devcloud.layout import REGION, write_secret
from devcloud.rootfs import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from devcloud.control import Control
    from devcloud.layout import Layout, Passwords


def initialise(control: Control) -> None:
    """Create MariaDB's system tables if they are missing. MariaDB must not run yet."""
    folder = control.layout.data / "mysql"
    if not folder.exists():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        control.inside(
            "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={new}",
            "--auth-root-authentication-method=normal", "--skip-test-db",
        )  # fmt: skip
        new.rename(folder)


class Schemas:
    """Creates, fills and dumps the databases. MariaDB must run."""

    def __init__(self, control: Control, passwords: Passwords) -> None:
        self.control = control
        self.passwords = passwords
        self.layout: Layout = control.layout
        # The dump contains the catalog, and so the address of the APIs.
        self._dump = self.layout.cache / f"databases-{fingerprint()[:12]}-{self.layout.api_address}.sql"
        self._done = self.layout.data / "databases-ready"
        self._keys = self.layout.cache / "keystone-keys"

    def prepare(self, say: Callable[[str], None]) -> None:
        """Create every database with its schema, from a dump if there is one; pass progress to `say`."""
        if self._done.exists():
            return
        # Interrupted migrations cannot be resumed: MariaDB does not roll back schema changes.
        creation = "".join(
            f"drop database if exists {name}; create database {name} character set utf8mb3;" for name in DATABASES
        )
        account = (
            f"create or replace user devcloud@'127.0.0.1' identified by '{self.passwords['database']}';"
            "grant all on *.* to devcloud@'127.0.0.1';"
        )
        self._sql(creation + account)
        if self._dump.exists():
            self._sql(self._dump.read_text())
            for kind in ("fernet", "credential"):
                shutil.copytree(self._keys / kind, self.layout.etc / "keystone" / kind, dirs_exist_ok=True)
        else:
            say("migrations (only this time)")
            self._migrate()
        self._done.touch()

    def keep(self) -> None:
        """Dump all databases for the next bring-up, unless there is a dump. They must hold only seed data."""
        if self._dump.exists():
            return
        for kind in ("fernet", "credential"):
            shutil.copytree(self.layout.etc / "keystone" / kind, self._keys / kind, dirs_exist_ok=True)
        text = self.control.inside(
            "mariadb-dump", f"--socket={self.layout.run}/mysql.sock", "-uroot", "--databases", *DATABASES
        )
        for old in self.layout.cache.glob("databases-*.sql"):
            old.unlink()
        write_secret(self._dump, text)

    def _sql(self, statements: str) -> None:
        self.control.inside("mariadb", f"--socket={self.layout.run}/mysql.sock", "-uroot", text=statements)

    def _migrate(self) -> None:
        """Run every project's migrations, the independent ones at the same time."""
        etc, inside = self.layout.etc, self.control.inside

        def keystone() -> None:
            manage = ("keystone-manage", "--config-file", f"{etc}/keystone/keystone.conf")
            inside(*manage, "db_sync")
            for kind in ("fernet_setup", "credential_setup"):
                inside(*manage, kind, "--keystone-user", "root", "--keystone-group", "root")
            url = f"{self.layout.url('keystone')}/v3"
            urls = [f"--bootstrap-{kind}-url={url}" for kind in ("admin", "internal", "public")]
            # The password goes through the environment: a command line can be read by every process.
            secret = {"OS_BOOTSTRAP_PASSWORD": self.passwords["admin"]}
            inside(*manage, "bootstrap", "--bootstrap-region-id", REGION, *urls, environment=secret)

        def others() -> None:
            inside("glance-manage", "--config-file", f"{etc}/glance/glance-api.conf", "db_sync")
            inside("placement-manage", "--config-file", f"{etc}/placement/placement.conf", "db", "sync")
            inside("cinder-manage", "--config-file", f"{etc}/cinder/cinder.conf", "db", "sync")

        def nova() -> None:
            manage = ("nova-manage", "--config-file", f"{etc}/nova/nova.conf")
            inside(*manage, "api_db", "sync")
            inside(*manage, "cell_v2", "map_cell0")
            inside(*manage, "db", "sync")
            if "cell1" not in inside(*manage, "cell_v2", "list_cells"):
                inside(*manage, "cell_v2", "create_cell", "--name=cell1")

        def neutron() -> None:
            files = ("--config-file", f"{etc}/neutron/neutron.conf", "--config-file", f"{etc}/neutron/ml2.ini")
            inside("neutron-db-manage", *files, "upgrade", "heads")
            manage = ("/opt/blazar/bin/python", "/opt/blazar/bin/blazar-db-manage")
            inside(*manage, "--config-file", f"{etc}/blazar/blazar.conf", "upgrade", "head")

        with ThreadPoolExecutor() as pool:
            for task in [pool.submit(work) for work in (nova, neutron, keystone, others)]:
                task.result()
