"""What a user of `mlflow` does: logs a run, registers its model, loads it back. Prints what it saw as JSON."""

import json
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression

name = sys.argv[1]
rows = np.linspace(-1, 1, 40).reshape(-1, 2)
model = LogisticRegression().fit(rows, rows.sum(axis=1) > 0)
client = mlflow.MlflowClient()
experiment = mlflow.set_experiment(name)
with mlflow.start_run() as run:
    mlflow.log_params({"solver": "lbfgs", "rows": len(rows)})
    for step, loss in enumerate((0.5, 0.25, 0.125)):
        mlflow.log_metric("loss", loss, step=step)
    content = bytes(range(256)) * 8192
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "notes.bin").write_bytes(content)
        mlflow.log_artifact(str(Path(folder, "notes.bin")), "files")
    logged = mlflow.sklearn.log_model(
        model, name="model", input_example=rows[:2], registered_model_name=name,
        pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
    )  # fmt: skip
client.set_registered_model_alias(name, "candidate", logged.registered_model_version)

found = client.get_run(run.info.run_id)
loaded = mlflow.sklearn.load_model(f"models:/{name}@candidate")
generic = mlflow.pyfunc.load_model(f"models:/{name}/{logged.registered_model_version}")
artifact = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="files/notes.bin")
print(
    json.dumps(
        {
            "status": found.info.status,
            "params": found.data.params,
            "losses": [point.value for point in client.get_metric_history(run.info.run_id, "loss")],
            "artifact": Path(artifact).read_bytes() == content,
            "artifacts": [one.path for one in client.list_artifacts(run.info.run_id, "files")],
            "version": client.get_model_version_by_alias(name, "candidate").version,
            "predictions": bool((loaded.predict(rows) == model.predict(rows)).all()),
            "generic": bool((generic.predict(rows) == model.predict(rows)).all()),
        }
    )
)
client.delete_registered_model(name)
client.delete_experiment(experiment.experiment_id)
