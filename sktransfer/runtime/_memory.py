"""How much memory there is for results."""

import os
from pathlib import Path

# Of the memory that is available: as much again may be copied by what comes after, and
# other processes of a search hold theirs.
_SHARE = 4
# Where the system does not say: little for a computer that trains networks
_UNKNOWN = 4 * 2**30

_MEMINFO = Path("/proc/meminfo")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def result_budget() -> int:
    """Return the bytes that one result may take in memory: a quarter of what is available."""
    return _available() // _SHARE


def _available() -> int:
    """Return the bytes that can be had without swapping, within the limits of a container."""
    if _MEMINFO.exists():
        fields = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
        if "MemAvailable" in fields:
            free = int(fields["MemAvailable"].split()[0]) * 1024
            return min([free, *_left_in_cgroups()])
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # macOS: no count of what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return _UNKNOWN


def _left_in_cgroups() -> list[int]:
    """Return what the limits of this process's control groups leave, those above included."""
    left = []
    for line in _OWN_GROUPS.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = root / name.lstrip("/")
        for group in (folder, *folder.parents):
            if root not in (group, *group.parents):
                break
            left += _left(group, limit, usage)
    return left


def _left(group: Path, limit: str, usage: str) -> list[int]:
    try:
        most = (group / limit).read_text().strip()
        used = int((group / usage).read_text())
        stat = (group / "memory.stat").read_text()
    except OSError:  # the root has none, and a container may not see those above it
        return []
    if most == "max":
        return []
    # pages of files count as used and are given back when memory is wanted
    pages = dict(line.split() for line in stat.splitlines())
    files = int(pages.get("total_inactive_file", pages.get("inactive_file", 0)))
    return [max(0, int(most) - used + files)]
