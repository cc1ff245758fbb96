"""Worker processes begin in one way."""
import signal
from concurrent.futures import ProcessPoolExecutor

import cv2
import torch

from basicsr_stvsr.utils.processes import prepare_worker, server_context


def test_a_worker_has_few_threads_and_leaves_signals_to_its_parent():
    context = server_context('basicsr_stvsr.utils.processes')
    with ProcessPoolExecutor(1, context, initializer=prepare_worker, initargs=(2,)) as pool:
        assert [pool.submit(number).result() for number in (torch.get_num_threads, cv2.getNumThreads)] == [2, 2]
        assert {pool.submit(signal.getsignal, number).result() for number in (signal.SIGINT, signal.SIGTERM)} == {
            signal.SIG_IGN}
