"""The benchmark that GPUs are measured with runs here too: its smallest setting, on the CPU."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))
    try:
        import bench_gpu
    finally:
        sys.path.remove(str(FOLDER))
    return bench_gpu


@pytest.fixture(scope="module")
def lines(bench):
    options = bench.options_of(["--device", "cpu", "--size", "smallest"])
    return [line for variant in bench.variants(options) for line in bench.run(variant, options)]


def test_each_section_gives_its_figures(lines):
    measured = {(line["section"], line["what"]) for line in lines}
    assert {
        ("extraction", "arrays"),
        ("extraction", "loop"),
        ("extraction", "jpeg"),
        ("extraction", "decoding"),
        ("extraction", "one at a time"),
        ("extraction", "arrays / loop"),
        ("training", "steps"),
        ("training", "steps / plain"),
        ("search", "skorch / search"),
    } <= measured
    assert all(line["least"] > 0 for line in lines)
    assert {line["precision"] for line in lines if line["section"] == "extraction"} == {
        "float32",
        "bfloat16",
    }


def test_a_gpu_is_measured_in_all_sections_without_further_options(bench):
    options = bench.options_of(["--device", "cuda:1"])
    variants = bench.variants(options)
    assert "extraction:vit_b_16:bfloat16" in variants
    assert variants[-3:] == ["training:resnet50", "search:resnet50", "memory:resnet50"]
    assert options.compile


def test_a_claim_that_does_not_hold_is_named(bench):
    facts = "extraction", "resnet50", "float32"
    good = bench.row(*facts, "arrays / loop", "ratio", [0.96, 0.99])
    bad = bench.row(*facts, "busy", "share", [0.5])
    unknown = bench.row(*facts, "cosine with the CPU", "cosine", [float("nan")])
    assert bench.missed([good]) == []
    assert bench.missed([good, bad, unknown]) == [
        "resnet50, float32: busy is 0.5, claimed 0.9",
        "resnet50, float32: cosine with the CPU is nan, claimed 0.9999",
    ]


def test_kernels_that_run_at_once_count_once(bench):
    assert bench.covered([(0, 2), (1, 3), (1, 2), (5, 6)]) == 4
    assert bench.covered([]) == 0
