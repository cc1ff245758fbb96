# Written by scripts/update_tables.py from the table in basicsr_stvsr/zoo/table.py
# adaptive-gan-small: x4 in space, of luma; sharper, and further from the truth
_base_ = ['../../options/mmengine/adaptive_gan_small.py']

model = dict(network_g={'_delete_': True,
                        'type': 'VSRResNet',
                        'scale': 4,
                        'num_feat': 32,
                        'num_block': 4,
                        'add_center': True})
