"""The web service of the examples answers right under load, and its memory does not grow.

    python benchmarks/bench_service.py [folder] [--backbone mini] [--requests 10000]

examples/service/app.py runs in a process of its own with a classifier that is fitted here, to 200
drawn photographs of 256 pixels or to `folder`/<class>/<image>. As many clients as `--clients` send
requests to it without a pause, each with a connection of its own. One file in a hundred is no
image, cut short, or too large. The classifier predicts the same images here.

Printed are requests/s, the median, 99th percentile and largest of the milliseconds from request to
answer, and the memory of the service after a tenth of the requests and after all.

Claim: every answer is the right one (probabilities to 1e-4; 422 or 413 for bad files), and the
memory grows by less than 5 % after the first tenth. Ten minutes.
"""

import argparse
import http.client
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import skops.io
from PIL import Image

from _report import write_csv
from sktransfer import FineTunedClassifier, load_image_folder

APP = Path(__file__).parents[1] / "examples" / "service" / "app.py"
N_DRAWN, MOST_GROWTH, TOLERANCE = 200, 0.05, 1e-4
BOUNDARY = b"----image"


def draw():
    """Return JPEG bytes of discs and squares on noise, and which they are."""
    rng = np.random.default_rng(0)
    X, y = np.empty(N_DRAWN, dtype=object), np.arange(N_DRAWN) % 2
    rows, columns = np.mgrid[:256, :256]
    for i, is_disc in enumerate(y):
        pixels = rng.integers(0, 120, (256, 256, 3), dtype=np.uint8)
        half = rng.integers(20, 60)
        top, left = rng.integers(half, 256 - half, 2)
        down, right = abs(rows - top), abs(columns - left)
        inside = down**2 + right**2 < half**2 if is_disc else np.maximum(down, right) < half
        pixels[inside] = rng.integers(100, 255, 3)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg", quality=90)
        X[i] = file.getvalue()
    return X, np.where(y, "disc", "square")


def bad_files(X):
    """Return files that must be refused, each with the status of the answer."""
    return [(b"no image", 422), (X[0][: len(X[0]) // 2], 422), (bytes(11 * 2**20), 413)]


def request(connection, data):
    """Return status and answer, on a new connection where the service has ended the other."""
    head = b'Content-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    body = b"--" + BOUNDARY + b"\r\n" + head + data + b"\r\n--" + BOUNDARY + b"--\r\n"
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    # it may have refused the rest of a file that is too large; the answer is there
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/predict", body, kind)
    response = connection.getresponse()
    answer = response.read()
    return response.status, json.loads(answer) if response.status == 200 else answer


def client(numbers, port, X, expected, classes, bad, seconds, wrong):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in numbers:
        is_bad = number % 100 == 99
        data, status = bad[number // 100 % len(bad)] if is_bad else (X[number % len(X)], 200)
        start = time.perf_counter()
        try:
            found, answer = request(connection, data)
        except (OSError, http.client.HTTPException) as error:
            found, answer = f"{type(error).__name__}: {error}", None
        seconds[number] = time.perf_counter() - start
        if found != 200:
            connection.close()
        if found != status:
            wrong.append((number, status, found))
        elif not is_bad:
            row = [answer["probabilities"][label] for label in classes]
            if np.abs(np.subtract(row, expected[number % len(X)])).max() > TOLERANCE:
                wrong.append((number, expected[number % len(X)], row))
    connection.close()


def memory_of(pid):
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


def wait_until_it_answers(port, process):
    while process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/health")
            connection.getresponse().read()
            connection.close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the service has ended")


def load_test(port, pid, n_requests, n_clients, X, expected, classes):
    bad, seconds, wrong = bad_files(X), np.full(n_requests, np.nan), []

    def run(first, last):
        arguments = port, X, expected, classes, bad, seconds, wrong
        with ThreadPoolExecutor(n_clients) as pool:
            parts = [range(first + k, last, n_clients) for k in range(n_clients)]
            for done in [pool.submit(client, part, *arguments) for part in parts]:
                done.result()

    run(0, n_requests // 10)
    before = memory_of(pid)
    start = time.perf_counter()
    run(n_requests // 10, n_requests)
    rate = (n_requests - n_requests // 10) / (time.perf_counter() - start)
    times = seconds[n_requests // 10 :] * 1000
    return wrong, {
        "requests": n_requests,
        "clients": n_clients,
        "requests_per_s": round(rate, 1),
        "p50_ms": round(float(np.median(times)), 1),
        "p99_ms": round(float(np.percentile(times, 99)), 1),
        "most_ms": round(float(times.max()), 1),
        "wrong": len(wrong),
        "memory_mib_at_a_tenth": round(before, 1),
        "memory_mib_at_the_end": round(memory_of(pid), 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="<class>/<image>; without it, images are drawn")
    parser.add_argument("--backbone", nargs="+", default=["mini"])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4])
    arguments = parser.parse_args()
    if arguments.folder:
        paths, y = load_image_folder(arguments.folder)
        X = np.empty(len(paths), dtype=object)
        X[:] = [Path(path).read_bytes() for path in paths]
    else:
        X, y = draw()
    lines, all_wrong = [], []
    for backbone in arguments.backbone:
        classifier = FineTunedClassifier(backbone, feature_cache=None, random_state=0)
        classifier.set_params(freeze_depth=None).fit(X, y)
        expected = np.concatenate([classifier.predict_proba(X[i : i + 1]) for i in range(len(X))])
        classes = [str(label) for label in classifier.classes_]
        with tempfile.TemporaryDirectory() as folder:
            skops.io.dump(classifier, Path(folder) / "model.skops")
            for n_clients in arguments.clients:
                with socket.create_server(("127.0.0.1", 0)) as free:
                    port = free.getsockname()[1]
                command = [sys.executable, APP, f"{folder}/model.skops", "--port", str(port)]
                process = subprocess.Popen(
                    command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
                try:
                    wait_until_it_answers(port, process)
                    wrong, figures = load_test(
                        port, process.pid, arguments.requests, n_clients, X, expected, classes
                    )
                finally:
                    process.terminate()
                    process.wait()
                lines.append({"backbone": Path(backbone).stem, **figures})
                print(*(f"{name}={value}" for name, value in lines[-1].items()), flush=True)
                all_wrong += wrong
    write_csv("bench_service", lines)
    assert not all_wrong, all_wrong[:5]
    for line in lines:
        growth = line["memory_mib_at_the_end"] / line["memory_mib_at_a_tenth"] - 1
        assert growth < MOST_GROWTH, f"{line['backbone']}: memory {growth:+.1%}"


if __name__ == "__main__":
    main()
