"""Deformable convolution without torchvision's operator, against that of onnxruntime."""
import pytest
import torch

from basicsr_stvsr.utils.deform_conv import deform_conv2d


@pytest.mark.parametrize('stride, padding, dilation, offset_groups, groups', [
    (1, 1, 1, 2, 1), (2, 1, 1, 1, 2), (1, 2, 2, 4, 1), ((2, 1), (0, 1), 1, 1, 1)])
def test_it_equals_the_operator_of_onnx(stride, padding, dilation, offset_groups, groups):
    onnx, runtime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def pair(value):
        return list(value) if isinstance(value, tuple) else [value, value]

    image, weight, bias = random(2, 4, 7, 9), random(6, 4 // groups, 3, 2), random(6)
    h, w = ((size + 2 * pad - gap * (taps - 1) - 1) // step + 1 for size, pad, gap, taps, step in zip(
        (7, 9), pair(padding), pair(dilation), (3, 2), pair(stride), strict=True))
    offset = 2 * random(2, 2 * offset_groups * 6, h, w)  # far out of the image, too
    mask = random(2, offset_groups * 6, h, w).sigmoid()
    node = onnx.helper.make_node(
        'DeformConv', ['X', 'W', 'offset', 'B', 'mask'], ['Y'], kernel_shape=[3, 2], strides=pair(stride),
        pads=2 * pair(padding), dilations=pair(dilation), offset_group=offset_groups, group=groups)
    inputs = {'X': image, 'W': weight, 'offset': offset, 'B': bias, 'mask': mask}
    inputs_info, output_info = ([onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                                 for name in names] for names in (inputs, 'Y'))
    model = onnx.helper.make_model(onnx.helper.make_graph([node], 'conv', inputs_info, output_info),
                                   opset_imports=[onnx.helper.make_opsetid('', 19)], ir_version=10)
    expected, = runtime.InferenceSession(model.SerializeToString()).run(
        None, {name: value.numpy() for name, value in inputs.items()})
    torch.testing.assert_close(deform_conv2d(image, offset, weight, bias, stride, padding, dilation, mask),
                               torch.from_numpy(expected), rtol=0, atol=1e-4)
