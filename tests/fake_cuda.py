"""GPUs that are not there: what CUDA does is noted, checked, and done on the CPU."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import torch

# What waits for the device, and copies from it, in one go.
_SYNCHRONOUS = {"cpu", "numpy", "item", "tolist", "__bool__", "__float__", "__int__", "__array__"}


class OnDevice(torch.Tensor):
    """A tensor that is told to be on a GPU, and so is what is computed with it."""

    cuda: "FakeCuda"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert func.__name__ not in _SYNCHRONOUS, f"{func.__name__} waits for the device"
        if func.__name__ == "copy_" and not isinstance(args[0], OnDevice):
            host, value = args[:2]
            assert kwargs.get("non_blocking"), "the copy to the host waits"
            assert getattr(host, "pinned", False), "only copies to pinned memory don't wait"
            cls.cuda.note("to host", value.numel() * value.element_size())
        return super().__torch_function__(func, types, args, kwargs)


class FakeCuda:
    """So many GPUs of one model.

    Attributes
    ----------
    notes : list of (str, object)
        What happened: ``"to device"`` and ``"to host"`` with a number of bytes, ``"upload"`` of a
        parameter or buffer with its device, ``"record"``, ``"wait"``, and ``"empty cache"``.
    most_pinned : int or None
        The bytes that can be pinned at once.
    """

    def __init__(self, monkeypatch, n_devices=1):
        self.notes, self.most_pinned = [], None
        self._lock = threading.Lock()
        OnDevice.cuda = self
        self._to, self._empty = torch.Tensor.to, torch.empty
        fake = self

        class Event:
            def record(self, stream):
                fake.note("record", stream)

            def synchronize(self):
                fake.note("wait")

        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: n_devices,
            "current_device": lambda: 0,
            "_is_in_bad_fork": lambda: False,
            "get_device_name": lambda device=None: "a GPU",
            "get_device_capability": lambda device=None: (9, 0),
            "get_device_properties": lambda device: SimpleNamespace(
                uuid=f"fake-{torch.device(device).index or 0}"
            ),
            "device": lambda device: nullcontext(),
            "current_stream": lambda device: str(device),
            "empty_cache": lambda: fake.note("empty cache"),
            "Event": Event,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        # there is no autocast for a GPU that is not there
        autocast = torch.autocast
        monkeypatch.setattr(
            torch, "autocast", lambda kind, *args, **kw: autocast("cpu", *args, **kw)
        )
        monkeypatch.setattr(torch.Tensor, "to", lambda *args, **kwargs: fake._moved(args, kwargs))
        monkeypatch.setattr(torch, "empty", self._made)

    def note(self, what, detail=None):
        with self._lock:
            self.notes.append((what, detail))

    def noted(self, what):
        """Return the details of all notes of a kind."""
        return [detail for kind, detail in self.notes if kind == what]

    def _moved(self, args, kwargs):
        tensor = args[0]
        wanted = (*args[1:], kwargs.get("device"))
        device = next((value for value in wanted if isinstance(value, torch.device)), None)
        if device is None or device.type == "meta":
            return self._to(*args, **kwargs)
        if device.type != "cuda":
            assert not isinstance(tensor, OnDevice), "the copy to the host waits"
            return self._to(*args, **kwargs)
        if tensor.dtype == torch.uint8:
            assert kwargs.get("non_blocking"), "the copy of images waits"
            assert getattr(tensor, "pinned", False), "only copies of pinned memory don't wait"
            self.note("to device", tensor.numel())
        else:
            self.note("upload", str(device))
        return tensor.detach().clone().as_subclass(OnDevice)

    def _made(self, *shape, pin_memory=False, **options):
        made = self._empty(*shape, **options)
        if pin_memory:
            n_bytes = made.numel() * made.element_size()
            if self.most_pinned is not None and n_bytes > self.most_pinned:
                raise RuntimeError("CUDA error: out of memory")
            made.pinned = True
        return made
