"""Images in an S3 bucket as X: the scores of files, nothing read twice, and what can fail."""

import os
import pickle
import socket
import threading

import joblib
import numpy as np
import pytest
from joblib import wrap_non_picklable_objects
from joblib.externals.loky import get_reusable_executor
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import (
    FineTunedClassifier,
    PretrainedFeatureTransformer,
    count_forward_passes,
    load_image_folder,
    read_image,
)
from sktransfer.exceptions import ImageReadError
from sktransfer.hygiene import check_images, near_duplicates
from sktransfer.inspection import ErrorReport
from sktransfer.monitoring import DriftMonitor

SMALL = {"backbone": "mini", "image_size": 32, "precision": "float32"}


def transformer(cache, **params):
    return PretrainedFeatureTransformer(**SMALL, feature_cache=cache, **params)


def search(cache):
    pipeline = make_pipeline(transformer(cache), LogisticRegression(max_iter=1000))
    return GridSearchCV(pipeline, {"logisticregression__C": [1e-5, 1.0]}, cv=3)


def scores(fitted):
    return np.array([fitted.cv_results_[f"split{i}_test_score"] for i in range(3)])


@pytest.fixture
def urls(s3, shapes):
    return s3.put_files(shapes[0])


def keys(paths):
    return sorted(f"images/{os.path.basename(path)}" for path in paths)


@pytest.fixture
def behind(s3, monkeypatch):
    """Return a function: requests pass through another one, which may answer in the server's place.

    It is called with the number of the object that is read, from 0, and the connection.
    """
    sockets = []
    host, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")

    def start(interfere):
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        sockets.append(listening)
        numbers, lock = iter(range(10**6)), threading.Lock()

        def one(connection):
            with connection:
                request = connection.recv(2**16)
                is_read = request.startswith(b"GET") and b".png" in request.split(b"\r\n")[0]
                with lock:
                    number = next(numbers) if is_read else None
                if number is not None and interfere(number, connection):
                    return
                with socket.create_connection((host, int(port))) as server:
                    head, _, body = request.partition(b"\r\n\r\n")
                    server.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
                    while data := server.recv(2**16):
                        connection.sendall(data)

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "1")

        def stop():
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()

        return stop

    yield start
    for one in sockets:
        one.close()


# the same as of files


def test_a_search_on_urls_has_the_scores_of_files_and_reads_each_object_once(
    s3, shapes, urls, tmp_path
):
    paths, y = shapes
    of_files = search(tmp_path / "files").fit(paths, y)
    with count_forward_passes() as counter:
        of_urls = search(tmp_path / "urls").fit(urls, y)
    assert counter.computed == len(urls)
    assert sorted(s3.reads()) == keys(paths)
    np.testing.assert_array_equal(scores(of_urls), scores(of_files))
    assert of_urls.best_params_ == of_files.best_params_

    s3.forget()
    with count_forward_passes() as counter:
        again = search(tmp_path / "urls").fit(urls, y)
    assert s3.reads() == []
    assert counter.computed == 0
    np.testing.assert_array_equal(scores(again), scores(of_files))


def rows_of(X):
    return transformer(None).fit_transform(X)


def test_a_worker_process_reads_by_url(s3, shapes, urls):
    get_reusable_executor().shutdown()  # workers have the environment of their start
    executor = get_reusable_executor(max_workers=1)
    try:
        rows = executor.submit(wrap_non_picklable_objects(rows_of), urls).result()
    finally:
        executor.shutdown()
    assert sorted(s3.reads()) == keys(shapes[0])
    np.testing.assert_array_equal(rows, rows_of(shapes[0]))


def test_rows_of_urls_are_found_for_files_of_the_same_content(shapes, urls, tmp_path):
    rows = transformer(tmp_path).fit_transform(urls)
    with count_forward_passes() as counter:
        np.testing.assert_array_equal(transformer(tmp_path).fit_transform(shapes[0]), rows)
    assert counter.computed == 0


def test_urls_files_and_arrays_may_be_mixed(shapes, urls, tmp_path):
    paths = shapes[0]
    mixed = [urls[0], paths[1], read_image(paths[2]), {"path": urls[3]}, urls[0]]
    rows = transformer(tmp_path / "mixed").fit_transform(mixed)
    expected = transformer(tmp_path / "files").fit_transform(paths[[0, 1, 2, 3, 0]])
    np.testing.assert_array_equal(rows, expected)


def test_without_a_store_each_object_is_read_once_a_call_and_nothing_is_asked_before(
    s3, shapes, urls
):
    fitted = transformer(None).fit(urls)
    s3.forget()
    rows = fitted.transform(np.concatenate([urls, urls[:2]]))
    assert sorted(s3.reads()) == keys(shapes[0])
    assert {method for method, _, _ in s3.requests()} == {"GET"}
    np.testing.assert_array_equal(rows[:2], rows[-2:])


def test_an_object_that_changed_is_read_again_and_no_other(s3, shapes, urls, tmp_path):
    paths = shapes[0]
    transformer(tmp_path).fit_transform(urls)
    with open(paths[1], "rb") as file:
        s3.put("images/00.png", file.read())
    s3.forget()
    with count_forward_passes() as counter:
        rows = transformer(tmp_path).fit_transform(urls)
    assert s3.reads() == ["images/00.png"]
    assert counter.computed == 0  # the content of another image, which has its row
    np.testing.assert_array_equal(rows[0], rows[1])


def test_a_network_that_learns_has_the_predictions_of_files(s3, shapes, urls, tmp_path):
    def fitted(X, cache):
        classifier = FineTunedClassifier(
            **SMALL,
            recipe="fast",
            augment="light",
            max_epochs=3,
            random_state=0,
            feature_cache=cache,
        )
        return classifier.fit(X, shapes[1])

    s3.forget()
    of_urls = fitted(urls, tmp_path / "urls")
    # epochs of new views decode what is in memory
    assert sorted(s3.reads()) == keys(shapes[0])
    of_files = fitted(shapes[0], tmp_path / "files")
    np.testing.assert_array_equal(of_urls.predict_proba(urls), of_files.predict_proba(shapes[0]))


def test_checks_of_images_read_by_url(s3, shapes, urls, tmp_path):
    paths = shapes[0]
    with open(paths[0], "rb") as file:
        twice = [*urls[:4], s3.put("copy.png", file.read()), s3.put("text.png", b"no image")]
    records = {record.position: record.problems for record in check_images(twice)}
    assert "unreadable" in records[5]
    with pytest.warns(UserWarning, match=r"text\.png: text, not an image"):
        found = near_duplicates(twice, feature_cache=tmp_path, backbone=None)
    assert [record.positions for record in found] == [(0, 4)]
    assert found[0].sources == (twice[0], twice[4])


def test_reports_read_by_url_and_show_no_secret(s3, shapes, urls, tmp_path):
    pytest.importorskip("jinja2")
    paths, y = shapes
    signed = np.array([f"{url}?X-Amz-Signature=hush" for url in urls], dtype=object)
    for url, path in zip(signed, paths, strict=True):
        with open(path, "rb") as file:
            s3.put(url.partition(f"{s3.name}/")[2], file.read())
    model = make_pipeline(transformer(tmp_path / "rows"), LogisticRegression(max_iter=1000))
    report = ErrorReport.from_cv(model, signed, y, cv=3, map_method="pca")
    expected = ErrorReport.from_cv(model, paths, y, cv=3, map_method="pca")
    np.testing.assert_array_equal(report.y_pred, expected.y_pred)
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "00.png?..." in page
    assert "hush" not in page
    monitor = DriftMonitor().fit(signed, y, estimator=model.fit(signed, y))
    assert not monitor.compare(urls).is_drift


def test_a_folder_in_a_bucket_is_loaded_as_one_on_disk_is(s3, shapes, tmp_path):
    for i, kind in enumerate(("disc", "square", "disc")):
        s3.put(f"train/{kind}/deep/{i}.png", b"1")
    for name in ("train/readme.txt", "train/top.png", "train/.hidden/1.png", "training/x/1.png"):
        s3.put(name, b"1")
    s3.put("train/empty/about.txt", b"1")
    with pytest.warns(UserWarning, match="left out") as caught:
        paths, labels = load_image_folder(f"s3://{s3.name}/train")
    assert caught[0].filename == __file__
    assert "readme.txt" in str(caught[0].message)
    assert "top.png" in str(caught[0].message)
    assert str(caught[1].message).endswith("1 folder(s), empty")
    start = f"s3://{s3.name}/train"
    assert paths.tolist() == [
        f"{start}/disc/deep/0.png",
        f"{start}/disc/deep/2.png",
        f"{start}/square/deep/1.png",
    ]
    assert labels.tolist() == ["disc", "disc", "square"]
    with pytest.warns(UserWarning, match="readme"):
        assert len(load_image_folder(f"{start}/", labelled=False)) == 4
    with pytest.raises(ValueError, match="no class folder with an image below path='s3://"):
        load_image_folder(f"{start}/disc/none")
    with pytest.raises(FileNotFoundError, match="path='s3://there-is-none' can't be listed"):
        load_image_folder("s3://there-is-none")


def test_splits_in_a_bucket_are_no_classes(s3):
    for split in ("train", "val"):
        for kind in ("disc", "square"):
            s3.put(f"{split}/{kind}/1.png", b"1")
    with pytest.raises(ValueError, match="holds the splits train, val"):
        load_image_folder(f"s3://{s3.name}")


def test_many_objects_of_a_folder_are_listed_and_few_are_asked_for(s3, shapes, tmp_path):
    with open(shapes[0][0], "rb") as file:
        data = file.read()
    many = [s3.put(f"many/{i:03}.png", data) for i in range(70)]
    few = [s3.put(f"few/{i}.png", data) for i in range(3)]
    s3.forget()
    transformer(tmp_path).fit_transform(many + few)
    asked = s3.requests("HEAD")
    assert sorted(path for _, path, _ in asked) == [f"/{s3.name}/few/{i}.png" for i in range(3)]
    assert len([query for _, _, query in s3.requests("GET") if "list-type" in query]) == 1
    s3.forget()
    with pytest.raises(ImageReadError) as caught:
        transformer(tmp_path).fit_transform([*many, f"s3://{s3.name}/many/none.png"])
    assert [failure.position for failure in caught.value.failures] == [70]
    assert s3.reads() == []


# secrets


def test_no_credential_is_in_an_estimator_its_pickle_or_its_store(s3, shapes, urls, tmp_path):
    fitted = make_pipeline(transformer(tmp_path), LogisticRegression()).fit(urls, shapes[1])
    saved = tmp_path / "model.joblib"
    joblib.dump(fitted, saved)
    for data in (
        pickle.dumps(fitted),
        saved.read_bytes(),
        repr(fitted).encode(),
        pickle.dumps(clone(fitted)),
        *(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()),
    ):
        assert b"hush-hush-secret" not in data
        assert b"AKIAIOSFODNN7EXAMPLE" not in data
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(fitted)).predict(urls), fitted.predict(urls)
    )


# what fails


def failures_of(urls, cache):
    with pytest.raises(ImageReadError) as caught:
        transformer(cache).fit_transform(urls)
    assert "hush-hush-secret" not in str(caught.value)
    return {failure.position: failure for failure in caught.value.failures}


def test_all_images_that_can_not_be_read_are_named_and_the_others_are_stored(
    s3, shapes, urls, tmp_path
):
    wrong = [
        f"s3://{s3.name}/images/missing.png",
        "s3://there-is-none/a.png",
        s3.put("text.png", b"no image"),
        s3.put("empty.png", b""),
        "https://me:hush-hush-secret@127.0.0.1:1/a.png?sig=hush-hush-secret",
        "ftp://host/a.png",
        str(tmp_path / "missing.png"),
    ]
    failures = failures_of([*urls, *wrong], tmp_path)
    reasons = [failures[len(urls) + i].reason for i in range(len(wrong))]
    for reason, expected in zip(
        reasons,
        ["no such object", "no such", "text, not", "empty", "not public", "ftp", "no such"],
        strict=True,
    ):
        assert expected in reason
    assert failures[len(urls)].source == wrong[0]
    assert failures[len(urls) + 4].source == "https://127.0.0.1:1/a.png?..."
    with count_forward_passes() as counter:
        transformer(tmp_path).fit_transform(urls)
    assert counter.computed == 0


def test_rows_of_images_that_can_not_be_read_are_nan_where_that_is_wanted(s3, urls, tmp_path):
    with pytest.warns(UserWarning, match="no such object"):
        rows = transformer(tmp_path, on_error="nan").fit_transform(
            [*urls[:2], f"s3://{s3.name}/missing.png"]
        )
    assert np.isnan(rows[2]).all()
    assert not np.isnan(rows[:2]).any()


# without the last header the client would send its next request to a connection that has ended
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def test_a_bucket_that_may_not_be_read_is_an_error_of_its_images(behind, urls, tmp_path):
    def forbid(number, connection):
        connection.sendall(FORBIDDEN)
        return True

    behind(forbid)
    failures = failures_of(urls, tmp_path)
    assert len(failures) == len(urls)
    assert all("access denied (403)" in failure.reason for failure in failures.values())


def truncated(connection):
    connection.sendall(
        b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nETag: "1"\r\n'
        b"Last-Modified: Sat, 28 Nov 2026 21:00:00 GMT\r\n\r\n\x89PNG"
    )
    connection.shutdown(socket.SHUT_RDWR)


def test_objects_that_come_in_part_are_errors_and_no_row_is_of_a_part(
    behind, shapes, urls, tmp_path
):
    broken = set()

    def break_off(number, connection):
        if number % 4 or number >= 24:
            return False
        broken.add(number)
        truncated(connection)
        return True

    behind(break_off)
    failures = failures_of(urls, tmp_path)
    assert 0 < len(failures) <= len(broken)
    assert all("broke off" in failure.reason for failure in failures.values())
    rows = transformer(tmp_path).fit_transform(urls)  # what broke is over
    np.testing.assert_array_equal(rows, transformer(tmp_path / "f").fit_transform(shapes[0]))


def test_a_server_that_dies_in_mid_run_loses_no_row_and_the_next_run_reads_the_rest(
    s3, behind, shapes, urls, tmp_path, monkeypatch
):
    endpoint = os.environ["AWS_ENDPOINT_URL"]

    def die(number, connection):
        if number == 10:
            stop()
        return number >= 10  # without an answer

    stop = behind(die)
    monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "0")
    monkeypatch.setenv("SKTRANSFER_REMOTE_CONNECTIONS", "2")
    failures = failures_of(urls, tmp_path)
    assert 0 < len(failures) < len(urls)
    # at its old place, what is stored is stored under the digest of the content
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with count_forward_passes() as counter:
        rows = transformer(tmp_path).fit_transform(urls)
    assert counter.computed == len(failures)
    np.testing.assert_array_equal(rows, transformer(tmp_path).fit_transform(shapes[0]))


def test_a_server_that_hangs_ends_the_run(behind, urls, tmp_path, monkeypatch):
    end = threading.Event()

    def hang(number, connection):
        end.wait(60)
        return True

    behind(hang)
    monkeypatch.setenv("SKTRANSFER_REMOTE_TIMEOUT", "1")
    monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "0")
    try:
        failures = failures_of(urls, tmp_path)
    finally:
        end.set()
    assert len(failures) == len(urls)
    assert {failure.reason for failure in failures.values()} == {"the store did not answer in time"}


SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def test_a_fault_that_passes_is_no_error(behind, shapes, urls, tmp_path, monkeypatch):
    def fail_at_first(number, connection):
        if number < 3:
            connection.sendall(SLOW_DOWN)
        return number < 3

    behind(fail_at_first)
    monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "4")
    rows = transformer(tmp_path / "urls").fit_transform(urls)
    np.testing.assert_array_equal(rows, transformer(tmp_path / "f").fit_transform(shapes[0]))


def test_the_library_that_is_missing_is_named_with_the_extra(urls, monkeypatch, tmp_path):
    import sys

    from sktransfer import _object_store

    monkeypatch.setattr(_object_store, "_buckets", {})
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ImportError, match=r"pip install 'sktransfer\[remote\]'"):
        transformer(tmp_path).fit_transform(urls)
