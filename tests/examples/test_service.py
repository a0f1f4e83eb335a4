"""The web service of the examples: right answers, and a reason for every refusal."""

import importlib.util
import io
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer

for _extra in ("fastapi", "httpx", "multipart", "prometheus_client", "skops.io", "uvicorn"):
    pytest.importorskip(_extra)
anyio = pytest.importorskip("anyio")
TestClient = pytest.importorskip("fastapi.testclient").TestClient

FILE = Path(__file__).resolve().parents[2] / "examples" / "service" / "app.py"


@pytest.fixture(scope="module")
def app_module():
    spec = importlib.util.spec_from_file_location("service_app", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipeline(shapes):
    paths, labels = shapes
    transformer = PretrainedFeatureTransformer("mini", precision="float32")
    return make_pipeline(transformer, LogisticRegression()).fit(paths, labels)


def post(client, data, name="image.png"):
    return client.post("/predict", files={"image": (name, data)})


def test_answers_are_those_of_the_classifier(app_module, pipeline, shapes):
    paths, _ = shapes
    expected = pipeline.predict_proba(paths[:3])
    with TestClient(app_module.create_app(pipeline)) as client:
        answers = [post(client, Path(path).read_bytes()) for path in paths[:3]]
    for answer, row in zip(answers, expected, strict=True):
        assert answer.status_code == 200
        found = answer.json()
        assert found["label"] == pipeline.classes_[row.argmax()]
        np.testing.assert_allclose(list(found["probabilities"].values()), row, atol=1e-5)


def test_urls_and_paths_are_refused_and_nothing_is_read_by_them(
    app_module, pipeline, shapes, monkeypatch
):
    from sktransfer.images import _image_ref

    def refused(*arguments):
        raise AssertionError("it was read")

    monkeypatch.setattr(_image_ref, "fetch", refused)
    monkeypatch.setattr(_image_ref, "read_file", refused)
    with TestClient(app_module.create_app(pipeline)) as client:
        for text in ("https://host/a.png", "s3://bucket/a.png", str(shapes[0][0])):
            assert client.post("/predict", data={"image": text}).status_code == 422
            assert post(client, text.encode(), name=text).status_code == 422
            assert client.post("/predict", json={"image": text}).status_code == 422


def test_an_image_that_cannot_be_read_is_refused_with_the_reason(app_module, pipeline, shapes):
    good = Path(shapes[0][0]).read_bytes()
    with TestClient(app_module.create_app(pipeline)) as client:
        for data in (b"", b"no image", good[: len(good) // 2]):
            answer = post(client, data)
            assert answer.status_code == 422
            assert len(answer.json()["detail"]) > 10
        assert client.post("/predict").status_code == 422
        assert post(client, good).status_code == 200


def test_a_large_request_is_refused_whether_or_not_it_says_how_large_it_is(app_module, pipeline):
    with TestClient(app_module.create_app(pipeline, max_bytes=1000)) as client:
        answer = post(client, bytes(2000))
        assert answer.status_code == 413

        def parts():
            yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            yield from [bytes(100)] * 20
            yield b"\r\n--x--\r\n"

        kind = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post("/predict", content=parts(), headers=kind).status_code == 413
        assert 'predictions_total{status="413"} 2.0' in client.get("/metrics").text


def test_images_beyond_those_that_may_wait_are_refused_and_others_get_their_turn(
    app_module, shapes
):
    paths, labels = shapes
    may_go_on = threading.Event()

    class Slow(FineTunedClassifier):
        def predict_proba(self, X):
            assert not isinstance(X[0], bytes) or may_go_on.wait(60)
            return super().predict_proba(X)

    classifier = Slow("mini", freeze_depth=None).fit(paths, labels)
    data = Path(paths[0]).read_bytes()
    answers = []
    with TestClient(app_module.create_app(classifier, max_waiting=1, timeout=60)) as client:
        threads = [
            threading.Thread(target=lambda: answers.append(post(client, data))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        # one has its turn, one waits, and one is refused
        while not answers and any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
        may_go_on.set()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503]
    assert answers[0].status_code == 503
    assert answers[0].headers["retry-after"] == "1"


def test_an_image_that_gets_no_turn_in_time_is_refused(app_module, shapes):
    paths, labels = shapes
    may_go_on = threading.Event()

    class Slow(FineTunedClassifier):
        def predict_proba(self, X):
            assert not isinstance(X[0], bytes) or may_go_on.wait(60)
            return super().predict_proba(X)

    classifier = Slow("mini", freeze_depth=None).fit(paths, labels)
    data = Path(paths[0]).read_bytes()
    answers = []
    # long enough for an image to come on a busy machine, which has the same limit
    with TestClient(app_module.create_app(classifier, timeout=3)) as client:
        threads = [
            threading.Thread(target=lambda: answers.append(post(client, data))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        while not answers and any(thread.is_alive() for thread in threads):
            time.sleep(0.01)
        may_go_on.set()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [503, 200]


def test_nothing_of_a_request_is_stored(app_module, pipeline, shapes, cache):
    rng = np.random.default_rng(5)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(file, "png")
    pipeline.set_params(pretrainedfeaturetransformer__feature_cache=str(cache))
    pipeline.predict(shapes[0][:1])
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert before
    with TestClient(app_module.create_app(pipeline)) as client:
        assert post(client, file.getvalue()).status_code == 200
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_rows_are_stored_by_no_part_that_scikit_learn_has_copied(app_module, shapes, cache):
    paths, labels = shapes
    head = make_pipeline(
        PretrainedFeatureTransformer("mini", feature_cache=str(cache)), LogisticRegression()
    )
    votes = VotingClassifier([("a", head), ("b", clone(head))], voting="soft")
    calibrated = CalibratedClassifierCV(votes, cv=2).fit(paths, labels)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    file = io.BytesIO()
    noise = np.random.default_rng(6).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "png")
    with TestClient(app_module.create_app(calibrated)) as client:
        assert post(client, file.getvalue()).status_code == 200
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_where_no_image_may_wait_one_is_predicted(app_module, pipeline, shapes):
    with TestClient(app_module.create_app(pipeline, max_waiting=0)) as client:
        assert post(client, Path(shapes[0][0]).read_bytes()).status_code == 200


class Failing(FineTunedClassifier):
    def predict_proba(self, X):
        if isinstance(X[0], bytes):
            raise RuntimeError("no memory")
        return super().predict_proba(X)


def test_a_prediction_that_fails_is_counted_and_others_get_their_turn(app_module, shapes):
    paths, labels = shapes
    classifier = Failing("mini", freeze_depth=None).fit(paths, labels)
    data = Path(paths[0]).read_bytes()
    app = app_module.create_app(classifier)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert [post(client, data).status_code for _ in range(2)] == [500, 500]
        assert 'predictions_total{status="500"} 2.0' in client.get("/metrics").text


async def ask(app, data, gone=None, part=None):
    """Return the messages of an answer, to a client that may be gone or send a part alone."""
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body += data + b"\r\n--x--\r\n"
    asked, sent = [], []

    async def receive():
        asked.append(1)
        if len(asked) == 1:
            return {"type": "http.request", "body": body[:part], "more_body": part is not None}
        if gone is None:
            await anyio.sleep_forever()
        if not gone.is_set():  # a set event would be a point to cancel at
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    kind = (b"content-type", b"multipart/form-data; boundary=x")
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST"}
    scope |= {"scheme": "http", "path": "/predict", "raw_path": b"/predict", "query_string": b""}
    scope |= {"root_path": "", "headers": [kind], "client": ("a", 1), "server": ("b", 2)}
    await app(scope, receive, send)
    return sent


def test_the_image_of_a_client_that_has_gone_while_it_waited_is_not_predicted(app_module, shapes):
    paths, labels = shapes
    may_go_on, predicted = threading.Event(), []

    class Slow(FineTunedClassifier):
        def predict_proba(self, X):
            if isinstance(X[0], bytes):
                predicted.append(X[0])
                assert may_go_on.wait(60)
            return super().predict_proba(X)

    classifier = Slow("mini", freeze_depth=None).fit(paths, labels)
    first, second, third = (Path(path).read_bytes() for path in paths[:3])
    app = app_module.create_app(classifier, timeout=60)
    statuses = {}

    async def keep(name, *given):
        statuses[name] = (await ask(app, *given))[0]["status"]

    async def run():
        gone = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(keep, "first", first)
            while not predicted and "first" not in statuses:
                await anyio.sleep(0.01)
            group.start_soon(keep, "second", second, gone)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(keep, "third", third)
            await anyio.wait_all_tasks_blocked()
            gone.set()
            may_go_on.set()

    anyio.run(run)
    assert predicted == [first, third]
    assert statuses["first"] == statuses["third"] == 200
    assert statuses["second"] != 200


def test_a_client_that_goes_while_its_image_comes_is_no_error(app_module, pipeline, shapes):
    async def run():
        gone = anyio.Event()
        gone.set()
        return await ask(app, Path(shapes[0][0]).read_bytes(), gone, 100)

    app = app_module.create_app(pipeline)
    assert anyio.run(run)[0]["status"] == 499


def test_a_connection_on_which_no_image_came_in_time_is_ended(app_module, pipeline, shapes):
    data = Path(shapes[0][0]).read_bytes()
    app = app_module.create_app(pipeline, timeout=0.1)
    start = anyio.run(partial(ask, app, data, part=100))[0]
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]


def test_the_label_follows_the_threshold_of_the_classifier(app_module, pipeline, shapes):
    paths, _ = shapes
    disc, square = pipeline.classes_
    rare = FixedThresholdClassifier(FrozenEstimator(pipeline), threshold=0.0, pos_label=square)
    rare.fit(paths, shapes[1])
    is_disc = pipeline.predict(paths) == disc
    data = Path(paths[np.flatnonzero(is_disc)[0]]).read_bytes()
    with TestClient(app_module.create_app(rare)) as client:
        answer = post(client, data).json()
    assert answer["label"] == square
    assert answer["probabilities"][disc] > answer["probabilities"][square]


def test_requests_are_counted_by_their_status(app_module, pipeline, shapes):
    with TestClient(app_module.create_app(pipeline)) as client:
        post(client, Path(shapes[0][0]).read_bytes())
        post(client, b"no image")
        assert client.get("/health").json() == {"status": "ok"}
        metrics = client.get("/metrics").text
    assert 'predictions_total{status="200"} 1.0' in metrics
    assert 'predictions_total{status="422"} 1.0' in metrics
    assert "prediction_seconds_count 3.0" in metrics  # that of the start, and two


def test_a_file_with_other_types_is_not_loaded(app_module, pipeline, tmp_path):
    import skops.io

    path = tmp_path / "model.skops"
    skops.io.dump(pipeline, path)
    assert list(app_module.load(path).classes_) == list(pipeline.classes_)
    skops.io.dump(make_pipeline(Stranger(), LogisticRegression()), path)
    with pytest.raises(SystemExit, match=r"not trusted: .*Stranger.*--trust") as raised:
        app_module.load(path)
    name = str(raised.value).split("trusted: ")[1].split(". Name")[0]
    assert isinstance(app_module.load(path, [name])[0], Stranger)
    path.write_bytes(b"a pickle")
    with pytest.raises(SystemExit, match=r"model.skops is no file of skops"):
        app_module.load(path)


class Stranger(PretrainedFeatureTransformer):
    pass
