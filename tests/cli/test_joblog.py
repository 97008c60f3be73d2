"""What is shown of a training Job while it runs."""

from __future__ import annotations

import pytest

from cli.joblog import JobLog

PRINTED = """\
data: version 3f2a, 1797 rows
/usr/lib/python3/dist-packages/sklearn/linear_model/_logistic.py:460: ConvergenceWarning: lbfgs failed to converge
  n_iter_i = _check_optimize_result(
trained sklearn on 1437 rows in 1.3 s
2026/11/29 10:00:00 WARNING mlflow.models.model: Model logged without a signature
2026/11/29 10:00:01 INFO mlflow.store.db.utils: Creating initial MLflow database tables...
2026-11-29 10:00:01,123 WARNING botocore.credentials: none found
2026/11/29 10:00:02 ERROR mlflow.tracking: the artifact store is full
\rDownloading artifacts:   0%|          | 0/7 [00:00<?, ?it/s]\rDownloading artifacts: 100%|######| 7/7 [00:00<00:00]
W1129 10:00:00.123000 12 torch/distributed/run.py:766] Setting OMP_NUM_THREADS
[W1129 10:00:03.1 socket.cpp:200] [c10d] The client socket cannot be initialized
*****************************************
\U0001f3c3 View run sincere-fox at: http://tracking:5000/#/experiments/1/runs/9
\U0001f9ea View experiment at: http://tracking:5000/#/experiments/1
Successfully registered model 'digits'.
Created version '1' of model 'digits'.
INFO: my own line
/app/digits/data.py:12: UserWarning: 3 rows were dropped
  warnings.warn("3 rows were dropped")
epoch 10 of 40, loss 0.1234, 57% of the rows
test accuracy 0.9722 on 360 rows
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/mlflow/store.py", line 3, in get
{"run": "9", "version": "1", "test_accuracy": 0.9722}
error: the gate refuses run 9
"""
SHOWN = [
    "data: version 3f2a, 1797 rows",
    "trained sklearn on 1437 rows in 1.3 s",
    "2026/11/29 10:00:02 ERROR mlflow.tracking: the artifact store is full",
    "INFO: my own line",
    "/app/digits/data.py:12: UserWarning: 3 rows were dropped",
    '  warnings.warn("3 rows were dropped")',
    "epoch 10 of 40, loss 0.1234, 57% of the rows",
    "test accuracy 0.9722 on 360 rows",
    "Traceback (most recent call last):",
    '  File "/usr/lib/python3/dist-packages/mlflow/store.py", line 3, in get',
    "error: the gate refuses run 9",
]


def test_what_the_program_says_is_shown_and_what_libraries_say_is_not() -> None:
    log = JobLog()
    assert log.more(PRINTED, ended=True) == SHOWN
    assert log.hidden == len(PRINTED.splitlines(keepends=False)) - len(SHOWN) - PRINTED.count("\r")


@pytest.mark.parametrize("step", [1, 7, 100])
def test_each_line_is_shown_once_and_whole(step: int) -> None:
    """However much of it is there when the pod is asked."""
    log, shown = JobLog(), list[str]()
    for end in range(0, len(PRINTED), step):
        shown += log.more(PRINTED[:end], ended=False)
    assert shown == [line for line in SHOWN if line in shown]
    assert [*shown, *log.more(PRINTED, ended=True)] == SHOWN


def test_a_last_line_without_an_end_is_shown_when_the_pod_has_ended() -> None:
    log = JobLog()
    assert log.more("one\ntw", ended=False) == ["one"]
    assert log.more("one\ntwo", ended=False) == []
    assert log.more("one\ntwo", ended=True) == ["two"]
    assert log.more("one\ntwo", ended=True) == []
