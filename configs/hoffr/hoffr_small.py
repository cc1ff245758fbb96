# Written by scripts/update_tables.py from the table in basicsr_stvsr/zoo/table.py
# hoffr-small: x4 in space, of frames blurred by motion, which it sharpens
_base_ = ['../../options/mmengine/hoffr_small.py']

model = dict(network_g={'_delete_': True,
                        'type': 'HOFFR',
                        'num_feat': 32,
                        'num_block': 5,
                        'num_rcab': 2,
                        'reduction': 8,
                        'num_flow_feat': 16})
