# FSTRN small under mmengine: the training of options/train_fstrn_small.yml, and the test of
# options/test_fstrn_small.yml.
_base_ = ['./_base_/small_luma.py']

model = dict(
    model_type='STVSRModel',
    network_g=dict(
        type='FSTRN', num_in_ch=1, num_feat=32, num_frb=20, block='frb', up_kernel='pixelshuffle', dropout=0.0),
    train=dict(pixel_opt=dict(type='CharbonnierLoss', loss_weight=1.0, reduction='mean', eps=1.0e-6)))

train_dataloader = dict(batch_size=4, dataset=dict(dataset=dict(gt_size=128)))
train_cfg = dict(max_iters=3800, val_interval=950)
param_scheduler = dict(scheduler=dict(periods=[3800]))

val_dataloader = dict(dataset=dict(num_frame=5))
val_evaluator = dict(
    frame_metrics=dict(
        psnr=dict(type='calculate_float_psnr', crop_border=0),
        ssim=dict(type='calculate_float_ssim', crop_border=0),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True)))
