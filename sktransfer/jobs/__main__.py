"""``python -m sktransfer.jobs``: shards of a job from a batch system or a shell."""

import argparse
import os
import sys
from collections.abc import Sequence

from ._extraction_job import ExtractionJob
from ._record import NAME


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sktransfer.jobs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="compute shards that are not in place; exit status 0 if they are, then"
    )
    run.add_argument("--shard", type=int, metavar="N", help="this one only, from 0; else all")
    run.add_argument(
        "--of",
        type=int,
        metavar="K",
        help="with --shard N: the shards N, N + K, N + 2 K and so on, for K tasks",
    )
    run.add_argument(
        "--n-jobs", type=_count, metavar="T", help="threads; default: the cores of this process"
    )
    status = commands.add_parser("status", help="print shards, images, failures and speed")
    for command in (run, status):
        command.add_argument("job", metavar="job.json", help="the file, or the folder of the job")
    options = parser.parse_args(arguments)
    if options.command == "run" and options.of is not None:
        is_in_range = options.shard is not None and 0 <= options.shard < options.of
        if not is_in_range:
            parser.error("--of K needs --shard N, and N from 0 to K - 1")
    try:
        job = ExtractionJob.open(_folder_of(options.job))
    except (OSError, ValueError, ImportError) as error:
        # of what the command was given; what fails in computing has its traceback
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    if options.command == "status":
        print(job.status())
    elif options.shard is None:
        print(job.run(cpus_per_worker=options.n_jobs))
    else:
        if options.of is None and not 0 <= options.shard < job.n_shards:
            run.error(f"--shard must be from 0 to {job.n_shards - 1}, got {options.shard}")
        # more tasks than shards is no error
        shards = range(options.shard, job.n_shards, options.of or job.n_shards)
        for shard in shards:
            is_computed = job.run_shard(shard, n_jobs=options.n_jobs)
            print(f"shard {shard}: {'computed' if is_computed else 'was in place'}", flush=True)
        # Each of many tasks would read what all shards say of themselves: the last one does.
        n_left = len(job._missing())
        print(f"{n_left} of {job.n_shards} shards are left" if n_left else job.close())
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _folder_of(job: str) -> str:
    return os.path.dirname(job) or "." if os.path.basename(job) == NAME else job


if __name__ == "__main__":
    sys.exit(main())
