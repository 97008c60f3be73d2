"""S3 for MLflow's server, all of it through the server (a plugin of MLflow: mlflow.artifact_repository).

MLflow's own hands its clients addresses in the object store, signed, as the server knows them. Ours is known so to no
client: it is in the cluster, and open to the server alone.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

MISSING = ("404", "NoSuchKey")


class ThroughServer(ArtifactRepository):  # type: ignore[misc]
    """An S3 bucket that has no addresses to hand out."""

    def __init__(self, artifact_uri: str, *arguments: Any, **options: Any) -> None:
        super().__init__(artifact_uri)
        self._bucket = S3ArtifactRepository(artifact_uri, *arguments, **options)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Keep a file."""
        self._bucket.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Keep a folder."""
        self._bucket.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> Any:
        """What is kept below a path."""
        return self._bucket.list_artifacts(path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete what is kept below a path."""
        self._bucket.delete_artifacts(artifact_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        try:
            self._bucket._download_file(remote_file_path, local_path)
        except ClientError as error:
            if error.response["Error"]["Code"] not in MISSING:
                raise
            # Clients look for a model in more than one place, and ask again for minutes where the server failed.
            raise MlflowException(f"there is no artifact {remote_file_path}", RESOURCE_DOES_NOT_EXIST) from error
