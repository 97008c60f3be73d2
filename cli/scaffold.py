"""What `lab model` writes: a new model's folder, and of each model's settings what k8s/ takes of them."""

from __future__ import annotations

import json
from string import Template
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from services.pipelines.settings import Known
    from services.training.settings import Model

# The folder of a new model.
SETTINGS = Template("""\
# What the platform is told of $name. docs/how-to/own-model.md has all that can stand here.
name: $name
about: Which of three growers a wine is from
data:
  label: grower # the column that the model is to tell; all others are its features
  test: 0.3     # share of the rows that training does not see
gate: # what a version must be like to be registered and promoted
  score: {name: accuracy, minimum: 0.9, rows: 50} # share of the test rows that it must be right about
  production: {margin: 0.1, confidence: 0.95}     # at most so much worse than what is served, on the same rows
  budgets: {latency_ms: 500, size_bytes: 20000000} # one row at a time, the median; the model's files
training: {cpu: 250m, memory: 1Gi}
serving: {cpu: 100m, memory: 512Mi}
""")
MODULE = Template('''\
"""$name: which of three growers a wine is from. An example: write your data and your model in its place.

`lab train $name` runs this on the cluster. The settings are in model.yaml, beside this file.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier


def data() -> pd.DataFrame:
    """All rows, with the label. Each training keeps them as a version of the dataset."""
    return load_wine(as_frame=True).frame.rename(columns={"target": "grower"})


def train(features: np.ndarray, labels: np.ndarray, seed: int) -> RandomForestClassifier:
    """The model, from the rows that it may see."""
    return RandomForestClassifier(n_estimators=100, random_state=seed).fit(features, labels)


def evaluate(predict: Callable[[np.ndarray], np.ndarray], features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the model is right about each row that it has not seen; the gate counts them."""
    return predict(features) == labels
''')
SAMPLE = "[[13.2, 1.78, 2.14, 11.2, 100, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.4, 1050]]\n"

# What k8s/models has of a model.
KUSTOMIZATION = Template("""\
# The model $name: what differs from other models. `lab model sync` writes this folder from models/$name/model.yaml.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [settings.yaml]
components: [../../components/model]
configMapGenerator:
  # Where only the platform's own may change it.
  - name: gate-$name
    namespace: platform
    files: [gate.yaml]
    options: {disableNameSuffixHash: true, labels: {ml-cluster.dev/gate: $name}}
""")
OBJECT = Template("""\
# What components/model takes of models/$name/model.yaml; it does not go to the cluster.
apiVersion: ml-cluster.dev/v1
kind: Model
metadata: {name: $name, annotations: {config.kubernetes.io/local-config: "true"}}
serving: {cpu: $cpu, memory: $memory}
""")
GATE = Template("""\
# What a version of $name must be like, from models/$name/model.yaml; services/promotion/README.md has all keys.
""")
LIST = """\
# The models of the platform: a folder each, and what the overview shows of them. `lab model` writes it.
#
# Capability: training, evaluation, promotion, serving of models. Requests: those of components/model for each.
# Swap: take a model out of the list, and it is gone.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
{models}
configMapGenerator:
  - name: landing-models
    namespace: platform
    files: [models.json]
    options: {{disableNameSuffixHash: true}}
  # Where only the platform's own may change it; for platform/pipelines.
  - name: pipelines-models
    namespace: platform
    files: [pipelines.json]
    options: {{disableNameSuffixHash: true}}
"""
STAGES = {"production": "", "staging": "-staging"}
"""What the overview shows: the stages that have a host name, with its ending."""


def new_model(name: str) -> dict[str, str]:
    """The files of a new model's folder, by name."""
    from services.training.settings import FILE, module_name

    return {
        FILE: SETTINGS.substitute(name=name),
        f"{module_name(name)}.py": MODULE.substitute(name=name),
        "sample.json": SAMPLE,
    }


def manifests(models: list[Model], pipelines: list[Known]) -> dict[str, str]:
    """The files of k8s/models, by their paths in it, for all models of the platform and their pipelines."""
    import yaml

    files: dict[str, str] = {}
    shown: list[dict[str, Any]] = []
    for model in sorted(models, key=lambda one: one.name):
        name = model.name
        files[f"{name}/kustomization.yaml"] = KUSTOMIZATION.substitute(name=name)
        files[f"{name}/settings.yaml"] = OBJECT.substitute(
            name=name, cpu=model.serving.cpu, memory=model.serving.memory
        )
        gate = yaml.safe_dump(model.gate, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
        files[f"{name}/gate.yaml"] = GATE.substitute(name=name) + gate
        shown += [
            {
                "name": f"Model {name}, {stage}", "about": model.about or "Open Inference Protocol (V2)", "login": "",
                "host": f"{name}{ending}", "page": f"/v2/models/{name}",
                "health": f"http://{name}-{stage}.serving/v2/health/ready",
                "idle": f"Nothing is promoted to {stage}",
            }
            for stage, ending in STAGES.items()
        ]  # fmt: skip
    listed = "\n".join(f"  - {model.name}" for model in sorted(models, key=lambda one: one.name))
    files["kustomization.yaml"] = LIST.format(models=listed)
    files["models.json"] = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    known = [one.model_dump(mode="json") for one in sorted(pipelines, key=lambda one: one.name)]
    files["pipelines.json"] = json.dumps(known, indent=2, ensure_ascii=False) + "\n"
    return files


def stale(target: Path, files: dict[str, str]) -> list[str]:
    """Those of the files that a folder lacks, or has otherwise."""
    return sorted(
        name for name, text in files.items() if not (target / name).is_file() or (target / name).read_text() != text
    )


def write(target: Path, files: dict[str, str]) -> None:
    """Write files to a folder."""
    for name, text in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
