"""The files of docs/scale.md are what they say: a job file that bash runs as Slurm would, a cluster for Ray."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml

from tests.docs.pages import TEXT, read_blocks

SBATCH, CLUSTER = (block.text for block in read_blocks("docs/scale.md") if block.kind == TEXT)


def test_the_job_file_starts_each_task_as_its_rank(tmp_path: Path) -> None:
    for name, script in {
        "srun": 'for SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done\n',
        "ttd": 'echo "$RANK/$WORLD_SIZE $1 $2"\n',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NTASKS": "2"}
    ran = subprocess.run(["bash"], input=SBATCH, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["0/2 prune /shared/cc3m/", "1/2 prune /shared/cc3m/"]


def test_the_cluster_has_eight_machines() -> None:
    cluster = yaml.safe_load(CLUSTER)
    machines = {cluster["provider"]["head_ip"], *cluster["provider"]["worker_ips"]}
    assert machines == {f"node{number}" for number in range(8)}
    assert cluster["min_workers"] == cluster["max_workers"] == 7
