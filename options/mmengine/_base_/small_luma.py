# What the small networks of luma, x4, share: five frames as input, and the test of options/test_fstrn_small.yml.
_base_ = ['./small.py']

model = dict(scale=4)
train_dataloader = dict(dataset=dict(dataset=dict(scale=4, temporal_scale=1, color='y', num_frame=5)))
val_dataloader = dict(dataset=dict(scale=4, temporal_scale=1, color='y'))
test_dataloader = dict(dataset=dict(scale=4, temporal_scale=1, color='y'))
test_evaluator = dict(
    frame_metrics=dict(
        psnr=dict(type='calculate_float_psnr', crop_border=0),
        ssim=dict(type='calculate_float_ssim', crop_border=0),
        psnr_crop=dict(type='calculate_psnr', crop_border=4, test_y_channel=True),
        ssim_crop=dict(type='calculate_ssim', crop_border=4, test_y_channel=True),
        error_flat=dict(type='calculate_region_error', region='flat', crop_border=4, better='lower'),
        error_edge=dict(type='calculate_region_error', region='edge', crop_border=4, better='lower')))
