# What the small networks share under mmengine: the scope, by which this package's classes are found, samples in the
# order of BasicSR's loop, and the training of Adam by a cosine on any folder of clips.
default_scope = 'basicsr_stvsr'
randomness = dict(seed=0)  # manual_seed

model = dict(type='RecipeModel')

train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='SeededSampler', enlarge_ratio=100),
    dataset=dict(type='SeededDataset', dataset=dict(
        type='STVSRClipDataset',
        dataroot_gt='datasets/train',  # any folder of clips, LMDB or video
        random_reverse=True,
        use_hflip=True,
        use_rot=True,
        cache=True)))
train_cfg = dict(type='IterBasedTrainLoop')
optim_wrapper = dict(optimizer=dict(type='Adam', lr=1.0e-3, betas=(0.9, 0.99), fused=True))
param_scheduler = dict(
    type='RecipeLR',
    scheduler=dict(type='CosineAnnealingRestartLR', eta_min=1.0e-6),
    warmup_iter=100,
    by_epoch=False)

val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='STVSRTestDataset', dataroot_gt='datasets/vid4_GT.lmdb'))
val_evaluator = dict(type='ClipMetrics')
val_cfg = dict(type='ValLoop')
test_dataloader = val_dataloader
test_evaluator = dict(type='ClipMetrics')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100))
log_processor = dict(type='LogProcessor', by_epoch=False)
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01)]  # ema_decay: 0.99
