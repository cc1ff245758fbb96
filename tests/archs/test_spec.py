"""The contract between networks and what runs them."""
from typing import NamedTuple

import pytest
import torch
from torch import nn

from basicsr_stvsr.archs.spec import NetSpec, spec_of


class State(NamedTuple):
    hr: torch.Tensor


@pytest.mark.parametrize('values, message', [
    ({'scale': 0}, 'scale must be a whole number of at least 1, but is 0'),
    ({'scale': 2.0}, r'scale must be a whole number of at least 1, but is 2\.0'),
    ({'num_frames': 0}, 'num_frames must be a whole number of at least 1, but is 0'),
    ({'temporal_scale': 3}, 'temporal_scale must be one of 1, 2, but is 3'),
    ({'color': 'bgr'}, "color must be one of None, rgb, y, yuv, but is 'bgr'"),
    ({'overlap': 'all'}, "overlap must be one of first, last, middle, mean, but is 'all'"),
    ({'sharing': 'frames'}, "sharing must be one of nothing, features, windows, but is 'frames'"),
    ({'first_output': 1, 'num_frames': 2}, 'a window of 2 frames gives no output, as first_output 1 are missing'),
    ({'state': State, 'needs_flow': True}, 'a recurrent network .* without flow'),
])
def test_values_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=f'^{message}'):
        NetSpec(**{'scale': 2, 'num_frames': 3, **values})


def test_a_misspelt_name_is_refused():
    with pytest.raises(TypeError, match="'num_frame'"):
        NetSpec(scale=2, num_frames=3, num_frame=2)


@pytest.mark.parametrize('spec, num_frames, window, clip, first, padding', [
    (NetSpec(scale=4, num_frames=1), 4, 4, 4, 0, (0, 0)),
    (NetSpec(scale=4, temporal_scale=2, num_frames=2), 4, 7, 7, 0, (0, 0)),
    # FISR: of 5 frames, the 7 around the middle ones; completed, the two at the ends too
    (NetSpec(scale=2, temporal_scale=2, num_frames=3, first_output=1), 5, 7, 7, 1, (0, 1)),
    # FSTRN: the middle one of 5 frames, and of a clip all
    (NetSpec(scale=4, num_frames=5, first_output=2, pads_ends=True), 9, 5, 9, 0, (2, 2)),
])
def test_lengths(spec, num_frames, window, clip, first, padding):
    assert (spec.length_of_window(num_frames), spec.length_of_clip(num_frames)) == (window, clip)
    assert spec.first_of_clip == first
    assert (spec.padding(), spec.padding(complete=True)) == padding


@pytest.mark.parametrize('spec, method', [
    (NetSpec(scale=2, num_frames=3, needs_flow=True), 'inputs'),
    (NetSpec(scale=2, num_frames=None, state=State), 'step'),
    (NetSpec(scale=2, num_frames=3, sharing='features'), 'features'),
    (NetSpec(scale=2, num_frames=2, sharing='windows'), 'next_window'),
])
def test_a_missing_method_is_named(spec, method):
    net = nn.Conv2d(3, 3, 3)
    net.spec = spec
    with pytest.raises(ValueError, match=f'^Conv2d has no method {method}, which its spec requires$'):
        spec_of(net)
    setattr(net, method, print)
    assert spec_of(net) is spec


@pytest.mark.parametrize('spec', [None, {'scale': 2}])
def test_a_network_without_a_spec(spec):
    net = nn.Conv2d(3, 3, 3)
    net.spec = spec
    with pytest.raises(ValueError, match=r'^Conv2d does not state what it needs: describe it by arch_spec'):
        spec_of(net)
