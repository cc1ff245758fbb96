# FISR small under mmengine: the training of options/train_fisr_small.yml, and the test of options/test_fisr_small.yml.
_base_ = ['./_base_/small.py']

vid4_yuv = dict(
    type='STVSRTestDataset', scale=2, dataroot_gt='datasets/vid4_GT.lmdb', color='yuv', flow_opt=dict(type='DISFlow'))

model = dict(
    type='RecipeModel',
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

train_dataloader = dict(
    batch_size=2,
    dataset=dict(type='SeededDataset', dataset=dict(
        type='STVSRClipDataset',
        scale=2,
        dataroot_gt='datasets/train',  # any folder of clips, LMDB or video
        color='yuv',
        stored_color='rgb',
        num_frame=9,
        gt_size=128,
        random_reverse=True,
        use_hflip=True,
        use_rot=True,
        cache=True,
        flow_opt=dict(type='DISFlow'),
        flow_strides=[1, 2])))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3300, val_interval=500)
optim_wrapper = dict(optimizer=dict(type='Adam', lr=5.0e-4, betas=(0.9, 0.99), fused=True))
param_scheduler = dict(
    type='RecipeLR',
    scheduler=dict(type='CosineAnnealingRestartLR', periods=[3300], eta_min=1.0e-6),
    warmup_iter=100,
    by_epoch=False)

val_dataloader = dict(dataset=dict(**vid4_yuv, num_frame=5))
val_evaluator = dict(
    type='ClipMetrics',
    frame_metrics=dict(
        psnr_yuv=dict(type='calculate_fisr_psnr'),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True)))

test_dataloader = dict(dataset=vid4_yuv)
test_evaluator = dict(
    type='ClipMetrics',
    frame_metrics=dict(
        psnr_yuv=dict(type='calculate_fisr_psnr'),
        ssim_yuv=dict(type='calculate_fisr_ssim'),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True),
        ssim_y=dict(type='calculate_ssim', crop_border=0, test_y_channel=True)))
