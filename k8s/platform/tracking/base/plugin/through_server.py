"""S3 for MLflow's server, only through the server (a plugin of MLflow: mlflow.artifact_repository).

MLflow's own repository returns signed URLs of the object store to clients. Here clients cannot reach the object store:
it is in the cluster and open only to the server.
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
    """An S3 bucket without signed URLs."""

    def __init__(self, artifact_uri: str, *arguments: Any, **options: Any) -> None:
        super().__init__(artifact_uri)
        self._bucket = S3ArtifactRepository(artifact_uri, *arguments, **options)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Store a file."""
        self._bucket.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Store a folder."""
        self._bucket.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> Any:
        """The files below a path."""
        return self._bucket.list_artifacts(path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete the files below a path."""
        self._bucket.delete_artifacts(artifact_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        try:
            self._bucket._download_file(remote_file_path, local_path)
        except ClientError as error:
            if error.response["Error"]["Code"] not in MISSING:
                raise
            # Clients look for a model in several places, and retry server errors for minutes.
            raise MlflowException(f"there is no artifact {remote_file_path}", RESOURCE_DOES_NOT_EXIST) from error
