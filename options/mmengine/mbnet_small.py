# MBNet small under mmengine: the training of options/train_mbnet_small.yml, and of
# options/test_mbnet_small.yml that on Vid4.
_base_ = ['./_base_/small.py']

model = dict(
    model_type='MBNetModel',
    scale=4,
    network_g=dict(
        type='MBNet',
        scale=4,
        num_iters=1,
        feedback='none',
        vfi_feature='vsr',
        init_feedback='warped_hr',
        flow_net=dict(type='OFRNet', num_feat=64, num_res=4, flow_unit=4.0),
        refine_net=dict(type='PACFlowNet', num_feat=16, guide_channels=8, kernel_size=3, unshuffle=2),
        vsr_net=dict(
            type='RDN', num_feat=48, num_grow=48, num_blocks=10, num_layers=1, joint=False, upscale='direct',
            residual='last'),
        vfi_net=dict(
            type='GridNet', channels=[32, 48, 64], num_columns=4, unshuffle=4, residual=True, blend=True)),
    path=dict(
        pretrain_network_g='experiments/MBNet_small_flow_x4/models/net_g_latest.pth', param_key_g='params_ema'),
    train=dict(
        pixel_opt=dict(type='L1Loss', loss_weight=1.0, reduction='mean'),
        flow_loss_images='gt',
        flow_sup_opt=dict(type='FlowSupervisionLoss', loss_weight=0.006),
        hr_flow_opt=dict(type='MiddleFlowLoss', loss_weight=0.1)),
    val=dict(overlap='first'))

train_dataloader = dict(
    batch_size=8,
    dataset=dict(dataset=dict(
        scale=4,
        dataroot_flow='datasets/train_gt_flow.lmdb',
        num_frame=3,
        gt_size=160)))
train_cfg = dict(max_iters=2800, val_interval=700)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'net_g.flow_net': dict(lr_mult=0.25)}),
    clip_grad=dict(max_norm=1.0))
param_scheduler = dict(scheduler=dict(periods=[2800]))

custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.001)]  # ema_decay: 0.999

val_dataloader = dict(dataset=dict(scale=4, num_frame=3))
val_evaluator = dict(
    frame_metrics=dict(
        psnr=dict(type='calculate_psnr', crop_border=0),
        ssim=dict(type='calculate_ssim', crop_border=0)))

test_dataloader = dict(dataset=dict(scale=4))
test_evaluator = dict(
    frame_metrics=dict(
        psnr=dict(type='calculate_psnr', crop_border=0),
        ssim=dict(type='calculate_ssim', crop_border=0),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True),
        ssim_y=dict(type='calculate_ssim', crop_border=0, test_y_channel=True),
        niqe=dict(type='calculate_niqe', crop_border=0, better='lower')))
