import pytest

from sktransfer.runtime import _memory
from sktransfer.runtime._memory import result_budget


def test_the_budget_is_a_part_of_what_the_machine_has():
    psutil = pytest.importorskip("psutil")
    assert 2**20 < result_budget() < psutil.virtual_memory().total / 4


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    monkeypatch.setattr(_memory, "_CGROUPS", tmp_path)
    return tmp_path


def write_group(folder, limit, used, stat, version=2):
    folder.mkdir(parents=True, exist_ok=True)
    names = {2: ("max", "current"), 1: ("limit_in_bytes", "usage_in_bytes")}[version]
    for name, value in zip(names, (limit, used), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    (folder / "memory.stat").write_text(stat)


def test_files_in_a_group_s_memory_count_as_free(tmp_path):
    write_group(tmp_path, 1000, 900, "anon 500\ninactive_file 400\n")
    assert _memory._left(tmp_path, "memory.max", "memory.current") == [500]


def test_a_group_without_a_limit_leaves_it_open(tmp_path):
    write_group(tmp_path, "max", 900, "inactive_file 400\n")
    assert _memory._left(tmp_path, "memory.max", "memory.current") == []
    assert _memory._left(tmp_path / "not there", "memory.max", "memory.current") == []


@pytest.mark.parametrize(("version", "line"), [(2, "0::/job/step"), (1, "4:memory:/job/step")])
def test_limits_of_the_groups_above_count(version, line, cgroups, monkeypatch):
    root = cgroups if version == 2 else cgroups / "memory"
    write_group(root / "job", 10**6, 10**5, "inactive_file 0\n", version)
    write_group(root / "job" / "step", 2 * 10**6, 10**5, "inactive_file 0\n", version)
    groups = cgroups / "groups"
    groups.write_text(f"9:cpu:/elsewhere\n{line}\n")
    monkeypatch.setattr(_memory, "_OWN_GROUPS", groups)
    assert sorted(_memory._left_in_cgroups()) == [9 * 10**5, 19 * 10**5]
