"""Images in an S3 bucket as X: the same scores as of files, and nothing read twice."""

import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import (
    FineTunedClassifier,
    PretrainedFeatureTransformer,
    count_forward_passes,
    read_image,
)
from sktransfer.exceptions import ImageReadError
from sktransfer.hygiene import check_images, near_duplicates

SMALL = {"backbone": "mini", "image_size": 32, "precision": "float32"}


def search(cache, **parallel):
    pipeline = make_pipeline(
        PretrainedFeatureTransformer(**SMALL, feature_cache=cache),
        LogisticRegression(max_iter=1000),
    )
    return GridSearchCV(pipeline, {"logisticregression__C": [1e-5, 1.0]}, cv=3, **parallel)


def transformer(cache, **params):
    return PretrainedFeatureTransformer(**SMALL, feature_cache=cache, **params)


def test_a_search_on_urls_has_the_scores_of_files_and_reads_each_object_once(s3, shapes, tmp_path):
    paths, y = shapes
    urls = s3.put_files(paths)
    of_files = search(tmp_path / "files").fit(paths, y)
    with count_forward_passes() as counter:
        of_urls = search(tmp_path / "urls").fit(urls, y)
    assert counter.computed == len(urls)
    assert sorted(s3.reads()) == sorted(f"images/{path[-6:]}" for path in paths)
    for i in range(3):
        name = f"split{i}_test_score"
        np.testing.assert_array_equal(of_urls.cv_results_[name], of_files.cv_results_[name])
    assert of_urls.best_params_ == of_files.best_params_

    s3.forget()
    with count_forward_passes() as counter:
        again = search(tmp_path / "urls").fit(urls, y)
    assert s3.reads() == []
    assert counter.computed == 0
    np.testing.assert_array_equal(
        again.cv_results_["mean_test_score"], of_files.cv_results_["mean_test_score"]
    )
