# HOFFR small under mmengine: the training of options/train_hoffr_small.yml, and the test of
# options/test_hoffr_small.yml.
_base_ = ['./_base_/small.py']

blurred_vid4 = dict(scale=4, motion_blur=dict(exposure=2.0, num_frame=9), temporal_scale=1)

model = dict(
    model_type='HOFFRModel',
    scale=4,
    network_g=dict(type='HOFFR', num_feat=48, num_block=5, num_rcab=1, reduction=8, num_flow_feat=16, upscale='direct'),
    path=dict(
        pretrain_network_g='experiments/HOFFR_small_flow_x4/models/net_g_latest.pth',
        param_key_g='params_ema',
        strict_load_g=False),
    train=dict(
        pixel_opt=dict(type='MSELoss'),
        deblur_opt=dict(type='MSELoss', loss_weight=0.5),
        flow_opt=dict(type='PyramidWarpLoss', loss_weight=0.1, level_weights=[0.5, 0.5, 1.0], distance='l1')))

train_dataloader = dict(
    batch_size=2,
    dataset=dict(dataset=dict(
        scale=4,
        motion_blur=dict(exposure=[0.5, 2.0], num_frame=9),
        lq_sharp=True,
        temporal_scale=1,
        num_frame=8,
        gt_size=128)))
train_cfg = dict(max_iters=1600, val_interval=500)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'net_g.flow_net': dict(lr_mult=0.25)}),
    clip_grad=dict(max_norm=0.1))
param_scheduler = dict(scheduler=dict(periods=[1600]))

val_dataloader = dict(dataset=dict(**blurred_vid4, num_frame=8))
val_evaluator = dict(
    frame_metrics=dict(
        psnr=dict(type='calculate_psnr', crop_border=0),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True)))

test_dataloader = dict(dataset=blurred_vid4)
test_evaluator = dict(
    frame_metrics=dict(
        psnr=dict(type='calculate_psnr', crop_border=0),
        ssim=dict(type='calculate_ssim', crop_border=0),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True),
        ssim_y=dict(type='calculate_ssim', crop_border=0, test_y_channel=True)))
