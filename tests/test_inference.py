"""Windows, joining and padding, checked with a network whose output says what it was given."""
import pytest
import torch
from torch import nn

from basicsr_stvsr.inference import join_windows, pad_to_multiple, restore_clip, restore_windows, window_frames


class Pair(nn.Module):
    """x2 in both: repeats pixels, and puts the mean of its two frames between them."""

    scale, temporal_scale, num_frames, size_multiple = 2, 2, 2, 4

    def forward(self, lq):
        assert lq.shape[1] == 2 and lq.shape[-1] % 4 == 0 and lq.shape[-2] % 4 == 0
        a, b = lq.repeat_interleave(2, -1).repeat_interleave(2, -2).unbind(1)
        return torch.stack([a, (a + b) / 2, b], dim=1)


@pytest.mark.parametrize('num_frames', [2, 3, 4, 7])
@pytest.mark.parametrize('size', [(4, 8), (5, 7), (9, 4)])
@pytest.mark.parametrize('batch', [1, 2])
def test_any_length_and_size(num_frames, size, batch):
    lq = torch.rand(batch, num_frames, 3, *size)
    clip = restore_clip(Pair(), lq)
    assert clip.shape == (batch, 2 * num_frames - 1, 3, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(clip[:, ::2, :, ::2, ::2], lq)
    torch.testing.assert_close(clip[:, 1::2, :, 1::2, 1::2], (lq[:, 1:] + lq[:, :-1]) / 2)


def test_a_clip_shorter_than_the_window_is_refused():
    with pytest.raises(ValueError, match='windows of 2 frames, but the clip has 1'):
        restore_clip(Pair(), torch.rand(1, 1, 3, 4, 4))


def test_output_is_clamped():
    assert restore_clip(Pair(), torch.full((1, 2, 3, 4, 4), 1.5)).max() == 1


def test_pad_repeats_the_border():
    padded = pad_to_multiple(torch.arange(6.).view(1, 1, 1, 2, 3), 4)
    assert padded[0, 0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]


@pytest.mark.parametrize('overlap, expected, numbers', [
    ('first', [0, 1, 2, 11, 12], [0, 1, 2, 3, 4]),
    ('last', [0, 1, 10, 11, 12], [0, 1, 2, 3, 4]),
    ('mean', [0, 1, 6, 11, 12], [0, 1, 2, 3, 4]),
    ('all', [0, 1, 2, 10, 11, 12], [0, 1, 2, 2, 3, 4]),
])
def test_overlap_rules(overlap, expected, numbers):
    """Two windows of three frames: 0 1 2 and 10 11 12, whose frames 2 and 10 are the same one of the clip."""
    windows = torch.tensor([[0., 1, 2], [10, 11, 12]]).view(1, 2, 3, 1, 1, 1)
    assert join_windows(windows, 2, overlap).flatten().tolist() == expected
    assert window_frames(2, 3, 2, overlap) == numbers


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="first, last, mean, all, but got 'median'"):
        join_windows(torch.zeros(1, 1, 3, 1, 1, 1), 2, 'median')


def test_no_gradients_are_kept():
    net = nn.Sequential(nn.Conv3d(3, 3, 1))
    net.scale, net.temporal_scale, net.num_frames, net.size_multiple = 1, 1, None, 1
    net.forward = lambda lq, conv=net[0]: conv(lq.transpose(1, 2)).transpose(1, 2)
    assert not restore_windows(net, torch.rand(1, 2, 3, 4, 4)).requires_grad
