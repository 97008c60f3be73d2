"""The object store with the manifest's own options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from infra.secret_layout import S3_ACTIONS
from tests.k8s.object_store import connect, content, running

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING_TO_EVERYBODY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}],
    }
)


def test_a_full_bucket_is_not_deleted(s3: Any) -> None:
    s3.create_bucket(Bucket="full")
    s3.put_object(Bucket="full", Key="a/b", Body=b"kept")
    with pytest.raises(ClientError) as refused:
        s3.delete_bucket(Bucket="full")
    assert refused.value.response["Error"]["Code"] == "BucketNotEmpty"
    assert content(s3, "full") == {"a/b": b"kept"}


def test_a_misspelt_bucket_is_not_made(s3: Any) -> None:
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="datasest", Key="digits.csv", Body=b"1")
    assert refused.value.response["Error"]["Code"] == "NoSuchBucket"
    assert "datasest" not in {one["Name"] for one in s3.list_buckets()["Buckets"]}


def test_a_small_disk_has_room_for_many_buckets(tmp_path: Path) -> None:
    """A volume is 256 MiB of the disk, and of one bucket alone."""
    with running(tmp_path) as s3:
        s3.create_bucket(Bucket="small")
        for number in range(20):
            s3.put_object(Bucket="small", Key=f"{number}", Body=b"one")
    assert len(list(tmp_path.rglob("small_*.dat"))) == 1


@pytest.mark.parametrize("user", sorted(S3_ACTIONS.keys() - {"setup"}))
def test_no_key_that_is_given_to_anybody_makes_or_deletes_a_bucket_even_one_with_versions(s3: Any, user: str) -> None:
    name = f"versions-{user}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=name, Key="a", Body=b"kept")
    theirs = connect(s3.meta.endpoint_url, user)
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("delete_bucket", {"Bucket": name}),
        ("create_bucket", {"Bucket": f"{name}-more"}),
        ("put_object", {"Bucket": f"{name}-misspelt", "Key": "a", "Body": b"1"}),
        ("put_bucket_policy", {"Bucket": name, "Policy": EVERYTHING_TO_EVERYBODY}),
    ]
    for operation, arguments in attempts:
        with pytest.raises(ClientError, match=r"AccessDenied|NoSuchBucket"):
            getattr(theirs, operation)(**arguments)
    assert content(s3, name) == {"a": b"kept"}
    assert not [one for one in s3.list_buckets()["Buckets"] if one["Name"].startswith(f"{name}-")]


def test_the_platforms_keys_use_the_buckets_that_are_there(s3: Any) -> None:
    for bucket in ("mlflow", "datasets", "code"):
        s3.create_bucket(Bucket=bucket)
    uses = {"admin": ("mlflow", "datasets"), "platform": ("mlflow",), "trainer": ("datasets",), "code": ("code",)}
    for user, buckets in uses.items():
        theirs = connect(s3.meta.endpoint_url, user)
        for bucket in buckets:
            theirs.put_object(Bucket=bucket, Key=user, Body=user.encode())
            assert content(theirs, bucket) == {user: user.encode()}
            theirs.delete_object(Bucket=bucket, Key=user)
    with pytest.raises(ClientError, match="AccessDenied"):
        connect(s3.meta.endpoint_url, "trainer").list_objects_v2(Bucket="mlflow")


def test_code_is_written_by_one_key_and_only_read_by_training(s3: Any) -> None:
    for bucket in {"code", "datasets"} - {one["Name"] for one in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket)
    url = s3.meta.endpoint_url
    lab, trainer = connect(url, "code"), connect(url, "trainer")
    lab.put_object(Bucket="code", Key="a.tar", Body=b"1")
    assert trainer.get_object(Bucket="code", Key="a.tar")["Body"].read() == b"1"
    refused: dict[str, dict[str, Any]] = {
        "put_object": {"Key": "a.tar", "Body": b"2"}, "delete_object": {"Key": "a.tar"}, "list_objects_v2": {}
    }  # fmt: skip
    for operation, arguments in refused.items():
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(trainer, operation)(Bucket="code", **arguments)
    for operation in ("put_object", "get_object"):
        given = {"Body": b"2"} if operation == "put_object" else {}
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(lab, operation)(Bucket="datasets", Key="digits.csv", **given)
    assert content(lab, "code") == {"a.tar": b"1"}
    assert [one["Name"] for one in trainer.list_buckets()["Buckets"]] == ["datasets"]


def test_features_are_kept_in_one_folder_of_the_datasets_which_training_reads(s3: Any) -> None:
    for bucket in {"mlflow", "datasets"} - {one["Name"] for one in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket)
    url = s3.meta.endpoint_url
    features, trainer = connect(url, "features"), connect(url, "trainer")
    with pytest.raises(ClientError, match="NoSuchKey"):
        features.get_object(Bucket="datasets", Key="features/rows.parquet")
    for content_of in (b"1", b"2"):
        features.put_object(Bucket="datasets", Key="features/rows.parquet", Body=content_of)
    assert features.get_object(Bucket="datasets", Key="features/rows.parquet")["Body"].read() == b"2"
    assert trainer.get_object(Bucket="datasets", Key="features/rows.parquet")["Body"].read() == b"2"
    trainer.put_object(Bucket="datasets", Key="digits/digits.csv", Body=b"1")
    for bucket, key in (("datasets", "digits/digits.csv"), ("datasets", "featuresque.csv"), ("mlflow", "features/a")):
        with pytest.raises(ClientError, match="AccessDenied"):
            features.put_object(Bucket=bucket, Key=key, Body=b"2")
        with pytest.raises(ClientError, match="AccessDenied"):
            features.get_object(Bucket=bucket, Key=key)
    trainer.delete_object(Bucket="datasets", Key="features/rows.parquet")
    trainer.delete_object(Bucket="datasets", Key="digits/digits.csv")
