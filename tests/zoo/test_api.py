"""What `import basicsr_stvsr` offers."""
import numpy as np
import pytest
import torch

import basicsr_stvsr
from basicsr_stvsr.zoo.table import ZOO, entry_of, load


def test_all_names_are_there():
    assert all(hasattr(basicsr_stvsr, name) for name in basicsr_stvsr.__all__)
    assert set(basicsr_stvsr.__all__) <= set(dir(basicsr_stvsr))
    with pytest.raises(AttributeError, match="has no attribute 'restor'"):
        _ = basicsr_stvsr.restor


def test_models_are_listed_and_loaded():
    assert basicsr_stvsr.list_models() == list(ZOO)
    net = basicsr_stvsr.load_network('fstrn-small', device='cpu')
    assert not net.training and isinstance(net.spec, basicsr_stvsr.NetSpec) and net.spec.scale == 4
    for ours, expected in zip(net.parameters(), load('fstrn-small').parameters(), strict=True):
        assert torch.equal(ours, expected)


def test_a_network_of_its_options_takes_a_file_of_weights():
    entry = entry_of('fstrn-small')
    net = basicsr_stvsr.load_network(entry.network, entry.path, device='cpu')
    frames = [np.full((12, 16, 3), 20 * number, np.uint8) for number in range(3)]
    ours, expected = (list(basicsr_stvsr.restore(frames, model)) for model in (net, 'fstrn-small'))
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize('arguments, message', [
    (('mbnet',), "no model 'mbnet' in the zoo, expected one of "),
    (('fstrn-small', 'mine.pth'), 'weights: fstrn-small comes with its own'),
    (({'type': 'FSTRN', 'num_fea': 8},), 'network_g: .*num_fea'),
])
def test_what_is_no_model_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f'^{message}'):
        basicsr_stvsr.load_network(*arguments, device='cpu')
