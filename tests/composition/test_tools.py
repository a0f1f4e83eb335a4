"""MLflow, skore and skrub take the estimators; the page on them runs as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tools.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
# they warn of themselves and of each other
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def names(shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths, labels = shapes
    table = pd.DataFrame({"photo": paths, "age": np.arange(len(paths)), "note": "a note"})
    files = pd.DataFrame({"photo": [Path(path).read_bytes() for path in paths[:3]]})
    return {"table": table, "labels": labels, "files": files}


def run(block, names):
    exec(compile(block, str(PAGE), "exec"), names)


IN_ANOTHER_PROCESS = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import mlflow, pandas as pd
uri, tracking, *paths = sys.argv[1:]
mlflow.set_tracking_uri(tracking)
paths = pd.DataFrame({"photo": paths})
files = pd.DataFrame({"photo": [Path(path).read_bytes() for path in paths.photo]})
own = mlflow.sklearn.load_model(uri).predict_proba(paths)
generic = mlflow.pyfunc.load_model(uri).predict(files)
print(json.dumps([own.tolist(), generic.tolist()]))
"""


def test_a_search_is_logged_and_a_model_is_equal_in_another_process(names, tmp_path):
    pytest.importorskip("mlflow.sklearn")
    mlflow = pytest.importorskip("mlflow")
    tracking = f"sqlite:///{tmp_path}/runs.db"
    mlflow.set_tracking_uri(tracking)
    try:
        run(BLOCKS[0], names)
    finally:
        mlflow.sklearn.autolog(disable=True)
    runs = mlflow.search_runs()
    assert np.isclose(runs["metrics.best_cv_score"].max(), names["search"].best_score_)
    assert all(name.startswith("sktransfer.") for name in names["types"])
    paths = list(names["table"].photo[:3])
    expected = names["search"].predict_proba(names["table"][["photo"]][:3])
    np.testing.assert_array_equal(
        names["model"].predict_proba(pd.DataFrame({"photo": paths})), expected
    )
    command = [
        sys.executable,
        "-c",
        IN_ANOTHER_PROCESS,
        names["logged"].model_uri,
        tracking,
        *paths,
    ]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    for found in json.loads(done.stdout.splitlines()[-1]):
        np.testing.assert_array_equal(found, expected.tolist())


def test_skore_reports_the_scores_of_cross_validation(names):
    pytest.importorskip("skore")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline

    from sktransfer import PretrainedFeatureTransformer

    names["pipeline"] = make_pipeline(
        PretrainedFeatureTransformer("mini"), LogisticRegression(max_iter=1000)
    )
    run(BLOCKS[1], names)
    expected = cross_val_score(names["pipeline"], names["table"][["photo"]], names["labels"], cv=3)
    found = names["report"].metrics.accuracy(aggregate=None)
    np.testing.assert_allclose(np.ravel(found), expected)


def test_skrub_leaves_the_column_of_images_to_the_transformer(names, tmp_path):
    pytest.importorskip("skrub")
    from sktransfer import PretrainedFeatureTransformer

    names["PretrainedFeatureTransformer"] = PretrainedFeatureTransformer
    run(BLOCKS[2], names)
    assert "photo" in (tmp_path / "table.html").read_text()
    features = PretrainedFeatureTransformer("mini").fit_transform(names["table"].photo)
    of_images = names["rows"].filter(like="pretrainedfeaturetransformer")
    np.testing.assert_array_equal(of_images.to_numpy(), features)


def test_text_and_images_stand_side_by_side(names):
    from sktransfer import PretrainedFeatureTransformer

    names["table"]["note"] = np.where(names["labels"] == "disc", "a round one", "a square one")
    run(BLOCKS[3], names)
    rows = names["columns"].transform(names["table"])
    of_images = PretrainedFeatureTransformer("mini").fit_transform(names["table"].photo)
    np.testing.assert_array_equal(rows[:, : of_images.shape[1]], of_images)
    assert rows.shape[1] == of_images.shape[1] + 3  # words of two letters or more
    assert names["model"].score(names["table"], names["labels"]) == 1
