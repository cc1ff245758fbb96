import sys

import pytest
from run_util import run_fresh

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc')

# Without torch, which takes seconds. Page faults of filling 64 MiB that were just freed, by default and after the call
FAULTS = '''
import resource
import sys
import numpy as np

sys.path.insert(0, 'basicsr_stvsr/utils')
from cpu_memory import keep_freed_memory

def faults():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), keep_freed_memory(), faults())
'''
# MiB that the process holds of 64 once all but one are freed
HELD = '''
import resource
import sys
from pathlib import Path
import numpy as np

sys.path.insert(0, 'basicsr_stvsr/utils')
from cpu_memory import return_freed_memory

def resident():
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() // 2**20

def held():
    np.ones(2**21)  # having freed 16 MiB, glibc takes what is smaller from its heap
    before = resident()
    buffers = [np.ones(2**17) for _ in range(64)]
    del buffers[:-1]
    return resident() - before

print(held(), return_freed_memory(), held())
'''


def test_freed_memory_is_used_again():
    before, is_set, after = run_fresh('-c', FAULTS).stdout.split()
    assert is_set == 'True'
    assert int(before) > 20  # 32, or 16,384 where the kernel gives pages of 4 KiB instead of 2 MiB
    assert int(after) < 10


def test_freed_memory_is_returned():
    before, is_set, after = run_fresh('-c', HELD).stdout.split()
    assert is_set == 'True'
    assert int(before) > 48
    assert int(after) < 8
