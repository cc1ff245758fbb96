# FISR small under mmengine: the training of options/train_fisr_small.yml, and the test of options/test_fisr_small.yml.
_base_ = ['./_base_/small.py']

vid4_yuv = dict(scale=2, color='yuv', flow_opt=dict(type='DISFlow'))

model = dict(
    model_type='FISRModel',
    scale=2,
    network_g=dict(type='FISRNet', num_feat=[8, 8, 16], residual=True, upscale='frames'),
    train=dict(
        temporal_opt=dict(
            type='MultiScaleTemporalLoss',
            lambda_r=1.0,
            lambda_tm1=1.0,
            lambda_tmm=1.0,
            lambda_td=0.1,
            lambda_tm2=0.1,
            lambda_stride2=1.0,
            level_weights=[4.0, 2.0, 1.0],
            td_mode='official')),
    val=dict(overlap='last'))

train_dataloader = dict(batch_size=2, dataset=dict(dataset=dict(
    scale=2,
    color='yuv',
    stored_color='rgb',
    num_frame=9,
    gt_size=128,
    flow_opt=dict(type='DISFlow'),
    flow_strides=[1, 2])))
train_cfg = dict(max_iters=3300, val_interval=500)
optim_wrapper = dict(optimizer=dict(lr=5.0e-4))
param_scheduler = dict(scheduler=dict(periods=[3300]))

val_dataloader = dict(dataset=dict(**vid4_yuv, num_frame=5))
val_evaluator = dict(
    frame_metrics=dict(
        psnr_yuv=dict(type='calculate_fisr_psnr'),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True)))

test_dataloader = dict(dataset=vid4_yuv)
test_evaluator = dict(
    frame_metrics=dict(
        psnr_yuv=dict(type='calculate_fisr_psnr'),
        ssim_yuv=dict(type='calculate_fisr_ssim'),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True),
        ssim_y=dict(type='calculate_ssim', crop_border=0, test_y_channel=True)))
