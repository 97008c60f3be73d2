"""The rules of the backup's second place."""

import difflib
from collections.abc import Iterator
from urllib.parse import urlsplit

from infra.naming import PROJECT
from infra.settings.model import BackupBucket, SecondPlace
from infra.settings.rules import Context, Location, Violation, rule

COPY_TO: Location = ("platform", "backup", "copyTo")
KEY: Location = ("backupSecretKey",)
SET_KEY = "Set it with `lab config set --secret backupSecretKey < FILE`."


@rule
def one_second_place(context: Context) -> Iterator[Violation]:
    """`platform.backup.copyTo` is one place: a bucket of another store than the platform's, or a volume."""
    platform = context.settings.platform
    place = platform.backup.copy_to if platform else None
    if platform is None or place is None:
        return
    if (place.s3 is None) == (place.volume is None):
        both = "names two places" if place.s3 else "names no place"
        also = ((*COPY_TO, "s3"), (*COPY_TO, "volume"))
        yield Violation(COPY_TO, both, "Give either s3 or volume, or take copyTo away.", also)
    if place.s3 is not None:
        own = {"artifacts", "artifacts.platform", "artifacts.platform.svc", f"artifacts.{platform.domain}"}
        if urlsplit(place.s3.endpoint).hostname in own:
            yield Violation(
                (*COPY_TO, "s3", "endpoint"),
                "is the platform's own store: what is lost there would be lost twice",
                "Give another one.",
                (("platform", "domain"),),
            )


@rule
def backups_have_a_volume_elsewhere(context: Context) -> Iterator[Violation]:
    """A volume that `holds: backups` is the one that copyTo names, on a worker that has not the stores' volume too."""
    settings = context.settings
    place = settings.platform.backup.copy_to if settings.platform else None
    volumes = settings.storage.volumes
    if _names_two(place):
        return
    wanted = place.volume if place else None
    at: Location = (*COPY_TO, "volume")
    holding = {name for name, volume in volumes.items() if volume.holds == "backups"}
    for name in sorted(holding - {wanted}):
        remedy = f"Name it, `platform.backup.copyTo: {{volume: {name}}}`, or take holds away."
        here: Location = ("storage", "volumes", name, "holds")
        yield Violation(here, "is for backups, which are not copied there", remedy, (COPY_TO, at))
    if wanted is None:
        return
    volume = volumes.get(wanted)
    if volume is None:
        near = difflib.get_close_matches(wanted, volumes, n=1)
        choice = f"Did you mean {near[0]}?" if near else "Add it: {sizeGb: 8, attachTo: worker-1, holds: backups}."
        yield Violation(at, "is not in storage.volumes", choice, (("storage", "volumes"),))
        return
    where = ("storage", "volumes", wanted)
    if volume.holds != "backups":
        yield Violation(at, "is a volume for something else", f"Set {'.'.join(where)}.holds to backups.", (where,))
    stores = {one.attach_to for one in volumes.values() if one.holds == "stores"}
    if volume.attach_to in stores:
        yield Violation(
            (*where, "attachTo"),
            "has the stores too: what takes the one takes the other",
            "Attach it to another worker.",
            (at, where, ("storage", "volumes")),
        )
    group = settings.nodes.groups.get((volume.attach_to or "").rpartition("-")[0])
    schedulable = settings.cluster is not None and settings.cluster.variables.get("cluster_control_plane_schedulable")
    if group is not None and group.role == "control-plane" and not schedulable:
        remedy = "Attach it to a worker."
        yield Violation((*where, "attachTo"), "is a control plane, which runs no stores", remedy, (at, where))


@rule
def backup_key(context: Context) -> Iterator[Violation]:
    """`platform.backup.copyTo.s3` needs the secret `backupSecretKey`, set with --secret."""
    platform = context.settings.platform
    if _names_two(platform.backup.copy_to if platform else None):
        return
    bucket = _bucket(context)
    also = ((*COPY_TO, "s3"), COPY_TO)
    known = context.secret_keys is not None
    encrypted = known and f"{PROJECT}:{KEY[0]}" in (context.secret_keys or ())
    if context.settings.backup_secret_key is None:
        if bucket is not None and known and not encrypted:
            yield Violation(KEY, "is a secret that platform.backup.copyTo.s3 needs", SET_KEY, also)
    elif known and not encrypted:
        remedy = f"Make a new key (this one may have been seen). {SET_KEY}"
        yield Violation(KEY, "is stored in plain text in the stack's file", remedy)
    elif bucket is None:
        yield Violation(KEY, "has no platform.backup.copyTo.s3 that it belongs to", "Add it, or remove the key.", also)
    elif not context.settings.backup_secret_key.get_secret_value().strip():
        yield Violation(KEY, "is empty", SET_KEY)


def _names_two(place: SecondPlace | None) -> bool:
    """Whether `one_second_place` refuses it: which of the two is meant, nobody knows."""
    return place is not None and place.s3 is not None and place.volume is not None


def _bucket(context: Context) -> BackupBucket | None:
    platform = context.settings.platform
    return platform.backup.copy_to.s3 if platform and platform.backup.copy_to else None
