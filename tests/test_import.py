"""What `import sktransfer` leaves until it is used."""

import subprocess
import sys

LATER = (
    "torchvision",
    "timm",
    "open_clip",
    "matplotlib",
    "onnx",
    "dask",
    "obstore",
    "urllib3",
    "boto3",
    "ray",
    "pyspark",
    "pyarrow",
    "torch._dynamo",
    "tqdm.notebook",
)


def test_what_takes_long_to_import_is_imported_when_it_is_used():
    code = (
        "import sys; import torch, sklearn; before = set(sys.modules); import sktransfer; "
        f"print([name for name in {LATER!r} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
