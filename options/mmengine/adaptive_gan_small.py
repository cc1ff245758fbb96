# VSRResNet small with spatially adaptive losses under mmengine, stage 2: the training of
# options/train_adaptive_gan_small.yml, and the test of options/test_adaptive_gan_small.yml. Stage 1 is
# options/mmengine/vsrresnet_small.yaml.
_base_ = ['./_base_/small_luma.py']

adam = dict(optimizer=dict(type='Adam', lr=1.0e-4, betas=(0.9, 0.99), fused=True))

model = dict(
    model_type='AdaptiveGANModel',
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

train_dataloader = dict(batch_size=8, dataset=dict(dataset=dict(gt_size=64)))
train_cfg = dict(max_iters=1500, val_interval=500)
optim_wrapper = dict(_delete_=True, constructor='NetworkOptimWrapperConstructor', net_g=adam, net_d=adam)
param_scheduler = dict(scheduler=dict(periods=[1500]))

val_dataloader = dict(dataset=dict(num_frame=3))
val_evaluator = dict(frame_metrics=dict(psnr=dict(type='calculate_psnr', crop_border=4, test_y_channel=True)))
