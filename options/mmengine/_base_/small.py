# What the small networks share under mmengine: the scope, by which this package's classes are found, and samples in the
# order of BasicSR's loop.
default_scope = 'basicsr_stvsr'
randomness = dict(seed=0)  # manual_seed

train_dataloader = dict(
    num_workers=1, persistent_workers=True, sampler=dict(type='SeededSampler', enlarge_ratio=100))
val_dataloader = dict(batch_size=1, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=False))
test_dataloader = dict(batch_size=1, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=False))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100))
log_processor = dict(type='LogProcessor', by_epoch=False)
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01)]  # ema_decay: 0.99
