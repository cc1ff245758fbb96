# Written by scripts/update_tables.py from the table in basicsr_stvsr/zoo/table.py
# fisr-small: x2 in space, x2 in time
_base_ = ['../../options/mmengine/fisr_small.py']

model = dict(network_g={'_delete_': True, 'type': 'FISRNet', 'num_feat': [6, 8, 16], 'residual': True})
