# Written by scripts/update_tables.py from the table in basicsr_stvsr/zoo/table.py
# fstrn-small: x4 in space, of luma
_base_ = ['../../options/mmengine/fstrn_small.py']

model = dict(network_g={'_delete_': True, 'type': 'FSTRN', 'num_feat': 32, 'num_frb': 20, 'up_kernel': 'pixelshuffle'})
