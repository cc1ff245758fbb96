"""Print the JSON schema of option files, or with --reference the tables of docs/options.md."""
import argparse
import json

from .json_schema import json_schema, reference

if __name__ == '__main__':
    parser = argparse.ArgumentParser(prog='python -m basicsr_stvsr.config', description=__doc__)
    parser.add_argument('--reference', action='store_true', help='print the tables of docs/options.md')
    if parser.parse_args().reference:
        print(reference(), end='')
    else:
        print(json.dumps(json_schema(), indent=1, ensure_ascii=False))
