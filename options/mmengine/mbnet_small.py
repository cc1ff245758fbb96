# MBNet small under mmengine: the training of options/train_mbnet_small.yml, and of
# options/test_mbnet_small.yml that on Vid4.
_base_ = ['./_base_/small.py']

vid4 = dict(type='STVSRTestDataset', scale=4, dataroot_gt='datasets/vid4_GT.lmdb')

model = dict(
    type='RecipeModel',
    model_type='MBNetModel',
    scale=4,
    network_g=dict(
        type='MBNet',
        scale=4,
        num_iters=2,
        feedback='vfi',
        vfi_feature='vsr',
        flow_net=dict(type='OFRNet', num_feat=64, num_res=4, flow_unit=4.0),
        refine_net=dict(type='PACFlowNet', num_feat=12, guide_channels=4),
        vsr_net=dict(type='RDN', num_feat=32, num_grow=16, num_blocks=4, num_layers=4, residual=True),
        vfi_net=dict(type='GridNet', channels=[12, 24, 48], residual=True)),
    path=dict(pretrain_network_g='experiments/MBNet_small_stage1_x4/models/net_g_latest.pth'),
    train=dict(
        pixel_opt=dict(type='L1Loss', loss_weight=1.0, reduction='mean'),
        flow_loss_images='gt',
        lq_flow_opt=dict(type='MultiScaleWarpLoss', loss_weight=0.5),
        hr_flow_opt=dict(type='MiddleFlowLoss', loss_weight=0.5)),
    val=dict(overlap='first'))

train_dataloader = dict(
    batch_size=4,
    dataset=dict(type='SeededDataset', dataset=dict(
        type='STVSRClipDataset',
        scale=4,
        dataroot_gt='datasets/train',  # any folder of clips, LMDB or video
        num_frame=3,
        random_reverse=True,
        use_hflip=True,
        use_rot=True,
        gt_size=128,
        cache=True)))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=900, val_interval=300)
optim_wrapper = dict(optimizer=dict(type='Adam', lr=3.0e-4, betas=(0.9, 0.99), fused=True))
param_scheduler = dict(
    type='RecipeLR',
    scheduler=dict(type='CosineAnnealingRestartLR', periods=[900], eta_min=1.0e-6),
    by_epoch=False)

val_dataloader = dict(dataset=dict(**vid4, num_frame=3))
val_evaluator = dict(
    type='ClipMetrics',
    frame_metrics=dict(
        psnr=dict(type='calculate_psnr', crop_border=0),
        ssim=dict(type='calculate_ssim', crop_border=0)))

test_dataloader = dict(dataset=vid4)
test_evaluator = dict(
    type='ClipMetrics',
    frame_metrics=dict(
        psnr=dict(type='calculate_psnr', crop_border=0),
        ssim=dict(type='calculate_ssim', crop_border=0),
        psnr_y=dict(type='calculate_psnr', crop_border=0, test_y_channel=True),
        ssim_y=dict(type='calculate_ssim', crop_border=0, test_y_channel=True),
        niqe=dict(type='calculate_niqe', crop_border=0, better='lower')))
