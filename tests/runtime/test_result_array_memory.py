import pytest

from sktransfer.runtime import _result_array
from sktransfer.runtime._result_array import result_budget


def test_the_budget_is_a_part_of_what_the_machine_has():
    psutil = pytest.importorskip("psutil")
    assert 2**20 < result_budget() < psutil.virtual_memory().total / 4


def test_where_the_system_does_not_say_what_is_free_half_of_all_counts(tmp_path, monkeypatch):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(_result_array, "_MEMINFO", tmp_path / "not there")
    assert result_budget() == pytest.approx(psutil.virtual_memory().total / 8, rel=0.01)
    monkeypatch.delattr(_result_array.os, "sysconf_names", raising=False)
    assert result_budget() == 2**30


@pytest.mark.parametrize(("left", "expected"), [([], 1000), ([600], 600), ([5000, 800], 800)])
def test_the_least_of_what_is_free_and_what_limits_leave_counts(
    left, expected, tmp_path, monkeypatch
):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       9000 kB\nMemAvailable:   1000 kB\n")
    monkeypatch.setattr(_result_array, "_MEMINFO", meminfo)
    monkeypatch.setattr(_result_array, "_left_in_cgroups", lambda: [1024 * value for value in left])
    assert result_budget() == 1024 * expected // 4


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    monkeypatch.setattr(_result_array, "_CGROUPS", tmp_path)
    return tmp_path


def write_group(folder, limit, used, stat, version=2):
    folder.mkdir(parents=True, exist_ok=True)
    names = {2: ("max", "current"), 1: ("limit_in_bytes", "usage_in_bytes")}[version]
    for name, value in zip(names, (limit, used), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    (folder / "memory.stat").write_text(stat)


def test_files_in_a_group_s_memory_count_as_free(tmp_path):
    write_group(tmp_path, 1000, 900, "anon 500\ninactive_file 400\n")
    assert _result_array._left(tmp_path, "memory.max", "memory.current") == [500]


def test_a_group_without_a_limit_leaves_it_open(tmp_path):
    write_group(tmp_path, "max", 900, "inactive_file 400\n")
    assert _result_array._left(tmp_path, "memory.max", "memory.current") == []
    assert _result_array._left(tmp_path / "not there", "memory.max", "memory.current") == []


@pytest.mark.parametrize(("version", "line"), [(2, "0::/job/step"), (1, "4:memory:/job/step")])
def test_limits_of_the_groups_above_count(version, line, cgroups, monkeypatch):
    root = cgroups if version == 2 else cgroups / "memory"
    write_group(root / "job", 10**6, 10**5, "inactive_file 0\n", version)
    write_group(root / "job" / "step", 2 * 10**6, 10**5, "inactive_file 0\n", version)
    groups = cgroups / "groups"
    groups.write_text(f"9:cpu:/elsewhere\n{line}\n")
    monkeypatch.setattr(_result_array, "_OWN_GROUPS", groups)
    assert sorted(_result_array._left_in_cgroups()) == [9 * 10**5, 19 * 10**5]
