"""A search on images in a bucket has the scores of files; a second one reads no object.

    python benchmarks/bench_remote.py hymenoptera mobilenet_v2_0.35.safetensors

Ants and bees are put into a bucket of moto's S3 server, a process of its own that answers each
request after 20 ms, about the time to the first byte of a store in the same region. In turns, a
fresh store each, five times:

- files: ``GridSearchCV`` over a logistic regression on paths.
- s3 cold: the same on ``s3://`` URLs; the server counts the requests.
- s3 warm: once more with the store of the cold run.

Then what the choice of the library rests on, in turns, five times: all objects read by 32 requests
at a time with obstore, as the package does, and with s3fs in its own event loop, where that is
installed; seconds, and seconds of this process's CPU. And the versions of all objects by one
listing for each folder, and one by one.

Claims: equal scores of every candidate and fold; the cold run reads each object once; the warm
run reads none and sends no more requests than there are folders for each call; obstore takes
less CPU than s3fs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from _report import write_csv
from sktransfer import PretrainedFeatureTransformer, load_image_folder

BUCKET = "hymenoptera"
SERVER = """
import sys, time
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    def log(self, type, message, *args): ...
app, counts = DomainDispatcherApplication(create_backend_app), {"objects": 0, "others": 0}
def answer(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/counts":
        text = f"{counts['objects']} {counts['others']}".encode()
        counts.update(objects=0, others=0)
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]
    is_object = environ["REQUEST_METHOD"] == "GET" and path.count("/") > 1
    counts["objects" if is_object else "others"] += 1
    time.sleep(float(sys.argv[1]))
    return app(environ, start_response)
server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
"""


def counts(port):
    """Return how many objects were read since the last call, and how many other requests came."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counts") as answer:
        return tuple(map(int, answer.read().split()))


def upload(paths, root):
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket=BUCKET)
    for path in paths:
        key = Path(path).relative_to(root).as_posix()
        client.put_object(Bucket=BUCKET, Key=key, Body=Path(path).read_bytes())


def timed(work):
    cpu, start = time.process_time(), time.perf_counter()
    result = work()
    return time.perf_counter() - start, time.process_time() - cpu, result


def search(X, y, weights, image_size, store):
    transformer = PretrainedFeatureTransformer(
        weights, image_size=image_size, precision="float32", feature_cache=store
    )
    pipeline = make_pipeline(transformer, LogisticRegression(max_iter=1000))
    fitted = GridSearchCV(pipeline, {"logisticregression__C": [0.01, 0.1, 1.0]}, cv=5).fit(X, y)
    return np.array([fitted.cv_results_[f"split{i}_test_score"] for i in range(5)])


def with_obstore(urls):
    from sktransfer.images._collection import as_images
    from sktransfer.images._read_ahead import ReadAhead

    images = as_images(urls)
    with ReadAhead(images, range(len(images))) as ahead:
        return sum(len(ahead[i].data) for i in range(len(images)))


def with_s3fs(urls):
    import s3fs

    files = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], skip_instance_cache=True)
    return sum(map(len, files.cat(list(urls), batch_size=32).values()))


def listed(urls):
    from sktransfer.images._remote_tags import remote_tags

    return len(remote_tags(list(urls)))


def one_by_one(urls):
    from sktransfer.images import _remote_tags

    before, _remote_tags._WORTH_A_LISTING = _remote_tags._WORTH_A_LISTING, len(urls) + 1
    try:
        return listed(urls)
    finally:
        _remote_tags._WORTH_A_LISTING = before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer")
    arguments = parser.parse_args()
    command = [sys.executable, "-c", SERVER, str(arguments.latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            os.environ.update(
                AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
                AWS_ACCESS_KEY_ID="benchmark",
                AWS_SECRET_ACCESS_KEY="benchmark",
                AWS_REGION="us-east-1",
            )
            measure(arguments, port)
        finally:
            server.terminate()


def measure(arguments, port):
    root = arguments.data / "train"
    paths, y = load_image_folder(root)
    upload(paths, root)
    urls, labels = load_image_folder(f"s3://{BUCKET}")
    assert labels.tolist() == y.tolist()
    found = {}  # variant -> list of (seconds, seconds of CPU, objects, other requests)

    def note(variant, work):
        counts(port)
        seconds, cpu, result = timed(work)
        found.setdefault(variant, []).append((seconds, cpu, *counts(port)))
        return result

    with tempfile.TemporaryDirectory() as store:  # what is slow at first
        search(paths, y, arguments.weights, arguments.image_size, store)
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as files, tempfile.TemporaryDirectory() as store:
            rest = (y, arguments.weights, arguments.image_size)
            of_files = note("files", lambda: search(paths, *rest, files))  # noqa: B023
            cold = note("s3 cold", lambda: search(urls, *rest, store))  # noqa: B023
            warm = note("s3 warm", lambda: search(urls, *rest, store))  # noqa: B023
        np.testing.assert_array_equal(cold, of_files)
        np.testing.assert_array_equal(warm, of_files)
    readers = {"obstore": with_obstore, "listing": listed, "one by one": one_by_one}
    if find_spec("s3fs"):
        readers["s3fs"] = with_s3fs
    for _ in range(arguments.repeats):
        for variant, read in readers.items():
            note(variant, lambda: read(urls))  # noqa: B023

    rows = []
    for variant, runs in found.items():
        seconds, cpu, objects, others = zip(*runs, strict=True)
        rows.append(
            {
                "variant": variant,
                "images": len(urls),
                "seconds": round(statistics.median(seconds), 3),
                "least": round(min(seconds), 3),
                "most": round(max(seconds), 3),
                "cpu_seconds": round(statistics.median(cpu), 3),
                "cpu_least": round(min(cpu), 3),
                "cpu_most": round(max(cpu), 3),
                "objects_read": max(objects),
                "other_requests": max(others),
            }
        )
        print(rows[-1])
    write_csv("bench_remote", rows)
    for one, other in (("s3 cold", "files"), ("s3 warm", "files"), ("s3fs", "obstore"),
                       ("one by one", "listing")):  # fmt: skip
        if {one, other} <= found.keys():
            ratios = [a[0] / b[0] for a, b in zip(found[one], found[other], strict=True)]
            cpu = [a[1] / b[1] for a, b in zip(found[one], found[other], strict=True)]
            print(
                f"{one} / {other}: time {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}), CPU {statistics.median(cpu):.2f} "
                f"({min(cpu):.2f} to {max(cpu):.2f})"
            )
    assert all(run[2] == len(urls) for run in found["s3 cold"])
    assert all(run[2] == 0 for run in found["s3 warm"])
    n_calls = 3 * 5 * 2 + 1  # of transform: to fit and to score, and the refit
    n_folders = len(set(labels))
    assert all(run[3] <= n_calls * n_folders for run in found["s3 warm"])
    if "s3fs" in found:
        medians = {name: statistics.median(run[1] for run in found[name]) for name in readers}
        assert medians["obstore"] < medians["s3fs"]


if __name__ == "__main__":
    main()
