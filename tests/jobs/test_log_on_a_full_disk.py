"""A disk that fills while a run is logged is one error that says where, and no thread's traceback."""

import time

import pytest

from ddim.jobs.train.log import Log
from ddim.jobs.train.loop import Progress


def test_a_full_disk_is_said_once(small_disk, capfd):
    log = Log(small_disk.path, 0)
    (small_disk.path / "other").write_bytes(b"x" * 2**15)
    small_disk.size(64)
    with pytest.raises(OSError, match=r"No space left on device: '.*disk'"):
        for step in range(1, 5000):
            log.write(Progress(step, 0.1, 0.1, 0.1, 0.1, 0.1))
    time.sleep(0.1)
    log.close()
    assert "Traceback" not in capfd.readouterr().err
