"""A job on Ray: the files of one process, whatever worker is lost. Where Ray is not installed, the refusal."""

import importlib.util
import os
import signal

import pytest
from test_generation import SEEDS, files, make, run

from ddim.jobs import on_ray
from ddim.refused import Refused

RAY = importlib.util.find_spec("ray") is not None


def test_only_ray_is_known():
    with pytest.raises(Refused, match="`on` is ray, or ray://host:port, got 'slurm'"):
        on_ray("slurm")


@pytest.mark.skipif(RAY, reason="Ray is installed")
def test_without_ray_the_extra_is_named():
    with pytest.raises(Refused, match=r"pip install 'ddim\[ray\]'"):
        on_ray("ray")


def test_whatever_calls_in_order_makes_the_same_files(tmp_path):
    def ahead(call, items):
        return iter([call(item) for item in items])

    run(tmp_path / "one")
    run(tmp_path / "many", over=ahead)
    assert files(tmp_path / "one") == files(tmp_path / "many")


@pytest.mark.skipif(not RAY, reason="Ray is an extra")
def test_workers_make_the_files_of_one_process_also_where_one_is_killed(tmp_path):
    import ray

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    run(tmp_path / "one", batch_size=2)
    died = tmp_path / "died"

    def dies_once(seeds):
        if seeds[0] == SEEDS[2] and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return make(seeds)

    def refuses(seeds):
        raise Refused("not these")

    try:
        over = on_ray("ray")
        run(tmp_path / "many", maker=dies_once, over=over, batch_size=2)
        assert died.exists() and files(tmp_path / "one") == files(tmp_path / "many")
        with pytest.raises(Refused, match=r"^not these$"):
            run(tmp_path / "none", maker=refuses, over=over)
    finally:
        ray.shutdown()
