# VSRResNet small with spatially adaptive losses under mmengine, stage 2: the training of
# options/train_adaptive_gan_small.yml, and the test of options/test_adaptive_gan_small.yml. Stage 1 is
# options/mmengine/vsrresnet_small.yaml.
_base_ = ['./_base_/small.py']

vid4_y = dict(
    type='STVSRTestDataset', scale=4, dataroot_gt='datasets/vid4_GT.lmdb', temporal_scale=1, color='y')
adam = dict(optimizer=dict(type='Adam', lr=1.0e-4, betas=(0.9, 0.99), fused=True))

model = dict(
    type='RecipeModel',
    model_type='AdaptiveGANModel',
    scale=4,
    network_g=dict(type='VSRResNet', scale=4, num_feat=32, num_block=7, first_conv='early', add_center=True),
    network_d=dict(type='VSRResDiscriminator', num_feat=32, patch_size=64),
    path=dict(
        pretrain_network_g='experiments/VSRResNet_small_x4/models/net_g_latest.pth', param_key_g='params_ema'),
    train=dict(
        gan_opt=dict(type='GANLoss', gan_type='vanilla', loss_weight=0.001),
        pixel_opt=dict(type='SpatiallyAdaptiveCharbonnierLoss', alpha=0.001, beta=0.099),
        feature_opt=dict(type='SpatiallyAdaptiveFeatureLoss', feature_net='random', alpha=0.998, beta=0.998)))
# Of several processes each network is wrapped by itself.
model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')

train_dataloader = dict(
    batch_size=8,
    dataset=dict(type='SeededDataset', dataset=dict(
        type='STVSRClipDataset',
        scale=4,
        dataroot_gt='datasets/train',  # any folder of clips, LMDB or video
        color='y',
        temporal_scale=1,
        num_frame=5,
        random_reverse=True,
        use_hflip=True,
        use_rot=True,
        gt_size=64,
        cache=True)))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1500, val_interval=500)
optim_wrapper = dict(constructor='NetworkOptimWrapperConstructor', net_g=adam, net_d=adam)
param_scheduler = dict(
    type='RecipeLR',
    scheduler=dict(type='CosineAnnealingRestartLR', periods=[1500], eta_min=1.0e-6),
    warmup_iter=100,
    by_epoch=False)

val_dataloader = dict(dataset=dict(**vid4_y, num_frame=3))
val_evaluator = dict(
    type='ClipMetrics', frame_metrics=dict(psnr=dict(type='calculate_psnr', crop_border=4, test_y_channel=True)))

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
