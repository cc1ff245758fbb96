# FSTRN small under mmengine: the training of options/train_fstrn_small.yml, and the test of
# options/test_fstrn_small.yml.
_base_ = ['./_base_/small.py']

vid4_y = dict(
    type='STVSRTestDataset', scale=4, dataroot_gt='datasets/vid4_GT.lmdb', temporal_scale=1, color='y')

model = dict(
    type='RecipeModel',
    model_type='STVSRModel',
    scale=4,
    network_g=dict(
        type='FSTRN', num_in_ch=1, num_feat=32, num_frb=20, block='frb', up_kernel='pixelshuffle', dropout=0.0),
    train=dict(pixel_opt=dict(type='CharbonnierLoss', loss_weight=1.0, reduction='mean', eps=1.0e-6)))

train_dataloader = dict(
    batch_size=4,
    dataset=dict(type='SeededDataset', dataset=dict(
        type='STVSRClipDataset',
        scale=4,
        dataroot_gt='datasets/train',  # any folder of clips, LMDB or video
        temporal_scale=1,
        color='y',
        num_frame=5,
        gt_size=128,
        random_reverse=True,
        use_hflip=True,
        use_rot=True,
        cache=True)))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=3800, val_interval=950)
optim_wrapper = dict(optimizer=dict(type='Adam', lr=1.0e-3, betas=(0.9, 0.99), fused=True))
param_scheduler = dict(
    type='RecipeLR',
    scheduler=dict(type='CosineAnnealingRestartLR', periods=[3800], eta_min=1.0e-6),
    warmup_iter=100,
    by_epoch=False)

val_dataloader = dict(dataset=dict(**vid4_y, num_frame=5))
val_evaluator = dict(
    type='ClipMetrics',
    frame_metrics=dict(
        psnr=dict(type='calculate_float_psnr', crop_border=0),
        ssim=dict(type='calculate_float_ssim', crop_border=0),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True)))

test_dataloader = dict(dataset=vid4_y)
test_evaluator = dict(
    type='ClipMetrics',
    frame_metrics=dict(
        psnr=dict(type='calculate_float_psnr', crop_border=0),
        ssim=dict(type='calculate_float_ssim', crop_border=0),
        psnr_crop=dict(type='calculate_psnr', crop_border=4, test_y_channel=True),
        ssim_crop=dict(type='calculate_ssim', crop_border=4, test_y_channel=True),
        error_flat=dict(type='calculate_region_error', region='flat', crop_border=4, better='lower'),
        error_edge=dict(type='calculate_region_error', region='edge', crop_border=4, better='lower')))
