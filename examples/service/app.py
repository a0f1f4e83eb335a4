"""A web service: an image in, probabilities out.

    python examples/service/app.py model.skops --port 8000
    curl -F image=@photo.jpg http://127.0.0.1:8000/predict

`create_app` makes an application of any fitted classifier that takes images. It needs the extra
``service``.

========================================  ======================================================
POST /predict, an image as ``image``      200 with the label and the probability of each class
the image can't be read                   422 with the reason
more than ``max_bytes``                   413; the rest is not read
``max_waiting`` images wait already       503, and after how many seconds to try again
no turn within ``timeout`` seconds        503
the image does not come within them       408; the connection is ended
the client goes before its turn           none; the image is not predicted
GET /health                               200 where the classifier has predicted an image
GET /metrics                              counts and seconds of requests, for Prometheus
========================================  ======================================================

One image is predicted at a time: the network takes all cores. Neither images nor rows are stored.
"""

import argparse
from contextlib import asynccontextmanager
from zipfile import BadZipFile

import anyio
import numpy as np
import skops.io
import uvicorn
from anyio.to_thread import run_sync
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from sklearn.base import BaseEstimator
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from sktransfer.exceptions import ImageReadError

GONE = 499  # no status of HTTP; nobody reads it, and it is counted
MOST_CONNECTIONS = 200  # of which each may hold an image

# their labels are not those of the largest probability
WITH_THRESHOLD = (FixedThresholdClassifier, TunedThresholdClassifierCV)

FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}},
            }
        }
    },
}


def create_app(classifier, *, max_bytes=10 * 2**20, max_waiting=64, timeout=10.0):
    """Return an application that predicts with a fitted classifier or pipeline.

    Parameters
    ----------
    classifier : estimator
        Takes images as bytes of files, and has ``predict_proba`` and ``classes_``.
    max_bytes : int
        Largest request, in bytes.
    max_waiting : int
        Number of images that may wait; others are refused at once.
    timeout : float
        Longest wait for an image to come, and for its turn, in seconds.
    """
    classifier = getattr(classifier, "best_estimator_", classifier)  # of a search
    forget_images(classifier)
    registry = CollectorRegistry()
    requests = Counter(
        "predictions", "Requests for a prediction, by status", ["status"], registry=registry
    )
    seconds = Histogram("prediction_seconds", "Seconds of a prediction", registry=registry)
    turn = anyio.CapacityLimiter(1)

    def predict(data):
        images = np.empty(1, dtype=object)
        images[0] = data
        with seconds.time():
            probabilities = classifier.predict_proba(images)[0]
            if isinstance(classifier, WITH_THRESHOLD):
                return classifier.predict(images)[0], probabilities
            return classifier.classes_[probabilities.argmax()], probabilities

    @asynccontextmanager
    async def lifespan(app):
        # the first prediction loads the network; nobody should wait for it
        await run_sync(predict, np.zeros((32, 32, 3), dtype=np.uint8))
        yield

    app = FastAPI(title="sktransfer", lifespan=lifespan, max_body_size=max_bytes)
    app.add_middleware(Count, requests=requests)

    async def image_of(request):
        try:
            with anyio.fail_after(timeout):
                async with request.form(max_files=1) as form:
                    image = form.get("image")
                    data = await image.read() if isinstance(image, UploadFile) else None
        except TimeoutError:
            reason = f"the image did not come within {timeout:g} seconds"
            # else what is left of the image could hold the connection for ever
            raise HTTPException(408, reason, headers={"Connection": "close"}) from None
        except ClientDisconnect:
            raise HTTPException(GONE, "the client has gone") from None
        if data is None:
            raise HTTPException(422, "the form has no file with the name 'image'")
        return data

    @app.post("/predict", openapi_extra={"requestBody": FORM})
    async def answer(request: Request):
        data = await image_of(request)
        taken = turn.statistics()
        if taken.borrowed_tokens and taken.tasks_waiting >= max_waiting:
            raise busy("too many images wait")
        try:
            with anyio.fail_after(timeout):
                await turn.acquire()
        except TimeoutError:
            raise busy(f"no turn within {timeout:g} seconds") from None
        try:
            if await request.is_disconnected():
                raise HTTPException(GONE, "the client has gone")
            label, probabilities = await run_sync(predict, data)
        except ImageReadError as error:
            raise HTTPException(422, error.failures[0].reason) from None
        finally:
            turn.release()
        classes = [str(label) for label in classifier.classes_]
        return {
            "label": str(label),
            "probabilities": dict(zip(classes, probabilities.tolist(), strict=True)),
        }

    @app.get("/health")
    def health():
        return {"status": "ok"}

    @app.get("/metrics")
    def metrics():
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


class Count:
    """Count the requests for a prediction by the status of their answer.

    No ``app.middleware("http")``: behind that, a request does not know that its client has gone.
    """

    def __init__(self, app, requests):
        self.app = app
        self.requests = requests

    async def __call__(self, scope, receive, send):
        status = 500  # of an error of which no answer has been made yet

        async def note(message):
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            if scope["type"] == "http" and scope["path"] == "/predict":
                self.requests.labels(status).inc()


def busy(reason):
    return HTTPException(503, reason, headers={"Retry-After": "1"})


def forget_images(classifier):
    """Switch off the store of rows in an estimator and in all that it is made of.

    What a meta-estimator has fitted are copies, which are no parameters of it.
    """
    parts, seen = [classifier], set()
    while parts:
        part = parts.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (list, tuple)):
            parts += part
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, np.ndarray) and part.dtype == object:
            parts += part.ravel().tolist()
        elif isinstance(part, BaseEstimator) or type(part).__module__.startswith("sklearn."):
            if hasattr(part, "feature_cache"):
                part.feature_cache = None
            parts += getattr(part, "__dict__", {}).values()


def load(path, trusted=()):
    """Return a fitted estimator from a skops file of types of sktransfer, and of those trusted."""
    try:
        types = skops.io.get_untrusted_types(file=path)
    except BadZipFile:
        raise SystemExit(f"{path} is no file of skops.io.dump") from None
    others = [name for name in types if not name.startswith("sktransfer.") and name not in trusted]
    if others:
        raise SystemExit(
            f"{path} has types that are not trusted: {', '.join(others)}. Name those that you know "
            "after --trust"
        )
    return skops.io.load(path, trusted=types)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="file of skops.io.dump")
    parser.add_argument("--trust", nargs="+", default=[], help="types that the file may have")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    uvicorn.run(
        create_app(load(arguments.model, arguments.trust)),
        host=arguments.host,
        port=arguments.port,
        limit_concurrency=MOST_CONNECTIONS,
    )


if __name__ == "__main__":
    main()
