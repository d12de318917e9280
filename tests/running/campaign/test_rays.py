"""Campaigns on a cluster of Ray: of several nodes, on this machine, one of which is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running.campaign.samples import RIGHT, folder, kernel, run, wrong

pytestmark = pytest.mark.full

ray = pytest.importorskip("ray")

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes: a head, which has no core to give, and two with one each."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
    try:
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def test_a_node_that_is_lost_costs_its_kernels_in_hand_and_no_verdict(
    cluster: Any, tmp_path: Path
) -> None:
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    texts = {f"times-{n}": wrong(n) for n in range(2, 8)}
    slow = kernel(f"time.sleep(0.2)\nreturn {wrong(0.5).split('return ')[1]}")
    source, out = folder(tmp_path / "kernels", texts | {"slow": slow}), tmp_path / "out"

    def lose() -> None:
        ledger = out / "ledger.sqlite"
        while not ledger.exists():
            time.sleep(0.1)
        time.sleep(12)  # in the middle: both import torch, or judge
        cluster.remove_node(nodes[0], allow_graceful=False)

    killer = threading.Thread(target=lose)
    killer.start()
    progress = run(source, out, engine="ray", address=cluster.address)
    killer.join()
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {row["name"]: row["reason"] for row in rows} == dict.fromkeys([*texts, "slow"], "value")
    assert (progress.broken, progress.left) == (len(texts) + 1, 0)
    assert run(source, out).done == 0  # another engine, the same ledger


def test_who_kills_its_worker_there_is_a_finding(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    kills = kernel(
        'line = open(f"/proc/{os.getppid()}/stat").read()\n'
        'os.kill(int(line.rpartition(")")[2].split()[1]), 9)'
    )
    source = folder(tmp_path / "kernels", {"kills": kills, "halves": wrong(0.5)})
    progress = run(source, tmp_path / "out", engine="ray", address=cluster.address)
    rows = [json.loads(r) for r in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert {row["name"]: row["reason"] for row in rows} == {"kills": "worker", "halves": "value"}
    assert progress.lost == 3


def test_right_ones_conform_there(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    source = folder(tmp_path / "kernels", {"right": RIGHT})
    out = tmp_path / "out"
    assert run(source, out, engine="ray", address=cluster.address).conforming == 1
