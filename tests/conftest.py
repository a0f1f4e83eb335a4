"""What tests share: drawn images, an own store, and the way to real photographs."""

import os

# Before torch is imported. The suite's networks are small, and threads that wait
# for each other cost more than they bring, above all beside pytest in parallel.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before scipy is imported: some of scikit-learn's checks are skipped without it.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import runpy
import signal
from importlib.resources import files
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

SHARED = Path(__file__).resolve().parents[2] / "shared"
IMAGENET = SHARED / "weights" / "mobilenet_v2_0.35_imagenet.safetensors"
HYMENOPTERA = SHARED / "data" / "hymenoptera"


_CLOSING_LINE = "closing line"
_closing_lines: list[str] = []


@pytest.fixture
def closing_lines(request):
    """Return a list; its lines are printed when all tests have run."""
    lines = []
    yield lines
    # with the report of the test, which a worker of pytest-xdist sends to the main process
    request.node.user_properties += [(_CLOSING_LINE, line) for line in lines]


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        _closing_lines.extend(
            text for name, text in report.user_properties if name == _CLOSING_LINE
        )


def pytest_terminal_summary(terminalreporter):
    for line in _closing_lines:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory):
    """Keep activations of the tests out of the user's cache folder."""
    before = os.environ.get("SKTRANSFER_CACHE")
    os.environ["SKTRANSFER_CACHE"] = str(tmp_path_factory.mktemp("store"))
    yield
    if before is None:
        del os.environ["SKTRANSFER_CACHE"]
    else:
        os.environ["SKTRANSFER_CACHE"] = before


@pytest.fixture
def cache(tmp_path):
    """Return the folder of an empty store."""
    return tmp_path / "cache"


class _Unreadable:
    """A label that raises when anything is asked of it."""

    def _raise(self, *_):
        raise AssertionError("a label of the target was read")

    __eq__ = __ne__ = __lt__ = __gt__ = __hash__ = __len__ = __iter__ = __array__ = _raise
    __repr__ = __str__ = __bool__ = __int__ = __float__ = __index__ = _raise


@pytest.fixture
def hidden_labels():
    """Return a function of labels, an array of which those that are hidden can't be read."""

    def hide(labels, is_hidden):
        hidden = np.empty(len(labels), dtype=object)
        for i, label in enumerate(labels):
            hidden[i] = _Unreadable() if is_hidden[i] else label
        return hidden

    return hide


def draw_shape(kind: str, rng: np.random.Generator, size: int = 48) -> Image.Image:
    """Draw a disc or a square of random place and colour on a noisy ground."""
    ground = rng.integers(0, 90, size=(size, size, 3), dtype=np.uint8)
    image = Image.fromarray(ground)
    left, top = rng.integers(2, size // 3, size=2)
    box = [int(left), int(top), int(left) + size // 2, int(top) + size // 2]
    colour = tuple(int(value) for value in rng.integers(140, 255, size=3))
    pen = ImageDraw.Draw(image)
    (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=colour)
    return image


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Return 24 paths of drawn discs and squares, and their labels."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for i in range(24):
        kind = "disc" if i % 2 else "square"
        path = folder / f"{i:02d}.png"
        draw_shape(kind, rng).save(path)
        paths.append(str(path))
        labels.append(kind)
    return np.array(paths, dtype=object), np.array(labels)


@pytest.fixture(scope="session")
def mini_file():
    """Return the path of the embedded backbone's file."""
    return str(files("sktransfer.backbones.sources").joinpath("mini.safetensors"))


@pytest.fixture(scope="session")
def imagenet_weights():
    """Return the path of a backbone with real ImageNet weights."""
    if not IMAGENET.exists():
        pytest.skip("needs the shared ImageNet weights of MobileNetV2-0.35")
    return str(IMAGENET)


@pytest.fixture(scope="session")
def hymenoptera():
    """Return {"train": (paths, labels), "val": (paths, labels)} of ants and bees."""
    if not HYMENOPTERA.exists():
        pytest.skip("needs the shared photographs of ants and bees")
    from sktransfer import load_image_folder

    return {split: load_image_folder(HYMENOPTERA / split) for split in ("train", "val")}


class S3:
    """A bucket on an S3 server on this machine, and the requests that came since it was made."""

    def __init__(self, requests, client, name):
        self._requests, self._client = requests, client
        self._n_before = len(requests)
        self.name = name
        client.create_bucket(Bucket=name)

    def put(self, key, data):
        """Write an object, and return its URL."""
        self._client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"s3://{self.name}/{key}"

    def put_files(self, paths, folder="images"):
        """Write files under their names, and return their URLs."""
        return np.array(
            [self.put(f"{folder}/{Path(path).name}", Path(path).read_bytes()) for path in paths],
            dtype=object,
        )

    def requests(self, method=None, *, of_client=False):
        """Return (method, path, query) of the requests, without those that this class sent."""
        return [
            (m, path, query)
            for m, path, query, agent in self._requests[self._n_before :]
            if ("Boto3" in agent) == of_client and method in (None, m)
        ]

    def reads(self):
        """Return the keys of the objects that were read, one for each request."""
        start = f"/{self.name}/"
        return [p.removeprefix(start) for _, p, _ in self.requests("GET") if len(p) > len(start)]

    def forget(self):
        """Count requests from here on."""
        self._n_before = len(self._requests)


@pytest.fixture(scope="session")
def _s3_server():
    """Start an S3 server that notes its requests; return its URL and these."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto.moto_server.werkzeug_app")
    from threading import Thread

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type, message, *args): ...

    app, requests = DomainDispatcherApplication(create_backend_app), []

    def noting(environ, start_response):
        names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_USER_AGENT")
        requests.append(tuple(environ.get(name, "") for name in names))
        return app(environ, start_response)

    server = make_server("127.0.0.1", 0, noting, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    thread.join()
    server.server_close()


_bucket_numbers = count()


@pytest.fixture
def s3(_s3_server, monkeypatch):
    """Return a new bucket, whose server and credentials are those of the environment."""
    import boto3

    url, requests = _s3_server
    for name in [name for name in os.environ if name.startswith(("AWS_", "SKTRANSFER_REMOTE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    return S3(requests, client, f"bucket-{next(_bucket_numbers)}")


@pytest.fixture
def deadly_head():
    """Return a maker of heads that kill their process in the fit of a number, and only then."""
    import torch

    def make(folder, n_fits):
        def head(n_in, n_out):  # goes to the workers with its code
            for i in count(1):
                try:
                    os.close(os.open(folder / str(i), os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                break
            if i == n_fits:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.nn.Linear(n_in, n_out)

        return head

    return make


@pytest.fixture
def fake_cuda(monkeypatch, tmp_path):
    """Return a maker of GPUs that are not there; their locks are this test's own."""
    make = runpy.run_path(str(Path(__file__).with_name("fake_cuda.py")))["FakeCuda"]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return lambda n_devices=1: make(monkeypatch, n_devices)


@pytest.fixture
def threads_at_work():
    """Return a function that does work in a process, and tells how many threads it kept busy.

    It returns the most that read images or ran a frozen network at once, each counted with
    torch's threads in it, and the most threads of torch in a step of training.
    """

    def measure(work):  # goes to the workers with its code
        import threading

        import torch

        from sktransfer.runtime._threads import CorePool
        from sktransfer.training._net import TransferNet

        lock, counts = threading.Lock(), {"now": 0, "extracting": 0, "training": 0}
        in_turn, train_step = CorePool._in_turn, TransferNet.train_step

        def counted_in_turn(self, work, *args, **kwargs):
            def counted(*args, **kwargs):
                n = torch.get_num_threads()
                with lock:
                    counts["now"] += n
                    counts["extracting"] = max(counts["extracting"], counts["now"])
                try:
                    return work(*args, **kwargs)
                finally:
                    with lock:
                        counts["now"] -= n

            return in_turn(self, counted, *args, **kwargs)

        def counted_train_step(self, *args, **kwargs):
            counts["training"] = max(counts["training"], torch.get_num_threads())
            return train_step(self, *args, **kwargs)

        CorePool._in_turn, TransferNet.train_step = counted_in_turn, counted_train_step
        try:
            work()
        finally:
            CorePool._in_turn, TransferNet.train_step = in_turn, train_step
        return counts["extracting"], counts["training"]

    return measure
