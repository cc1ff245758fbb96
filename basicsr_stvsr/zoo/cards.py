"""Format the zoo as model cards, as docs/model_zoo.md (written by scripts/update_tables.py), and as table rows."""
import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from pprint import pformat

from .papers import citation
from .table import ZOO, Entry, Score

FRAMES = {'all': 'all', 'vsr': 'given', 'vfi': 'between'}  # names of the groups of scored frames
NOT_TOLD = 'not stated'
COUNTED_OF = ' (multiplications with an addition each, of one window of 64x64 frames)'

INTRO = '''\
# Model zoo

<!-- Written by scripts/update_tables.py from the table in basicsr_stvsr/zoo/table.py -->

These networks come with weights. Use one by its name, as in `stvsr restore in.mp4 out.mp4 --model NAME`, or in Python:

```python
from basicsr_stvsr import load_network

net = load_network('fstrn-small')
```

They are small and were trained on a CPU for 47 minutes to 3¼ hours. The networks of the papers' size are not trained
yet. The [model card](../basicsr_stvsr/weights/README.md) says what each model is good for, and where it fails.
[Small networks](small_networks.md) compares them. GFLOPs are those that
[mmengine counts](openmmlab.md#flops-and-parameters) for one window of 64x64 frames.
'''

USAGE = '''\
## Commands

```bash
stvsr zoo list                  # the models, and where their weights are
stvsr zoo info fstrn-small      # the facts below
stvsr zoo fetch fstrn-small     # download weights that do not ship with the package
stvsr zoo verify                # check the sha256 of all files, and load them
```

Files are named `<Method>_<train set>_x<scale>-<first 8 digits of the sha256>.pth`, as in BasicSR's zoo. The full
sha256 is in the table of the zoo. It is checked before a file is loaded. Loading reads tensors and plain values only,
never code.

`fetch` saves files in `~/.cache/basicsr_stvsr`, or in the folder `STVSR_HOME`. It first looks in the folder
`STVSR_ZOO`, such as a mirror on a machine without internet, then at the address in the table (http, https or file).
A partial download is kept as `NAME.part`, and the same command continues it after an interruption. A file with another
sha256 is refused and removed. Nothing else downloads anything: for a missing model, the error names the command.

## Publishing

```bash
stvsr zoo publish experiments/FSTRN_small_x4/models/net_g_latest.pth --name FSTRN_small_clips_x4 \\
    --key params_ema --half --results results/test_FSTRN_small_x4/vid4.json
```

This writes `FSTRN_small_clips_x4-<hash>.pth` and a model card of the same name (`.md`) into the folder `--into`. It
prints the row for BasicSR's page ModelZoo.md, and the one for basicsr_stvsr/zoo/table.py. Everything but weights is
removed. By default it keeps both `params` and `params_ema`. `--key params_ema` keeps that set only, under the name
`params`, which BasicSR loads by default. The files below were made that way, in half precision (`--half`).
`--safetensors` (`pip install safetensors`) writes that format, which holds one set of weights: the average, unless you
pass `--key params`.

The options, the command and the number of iterations come from the folder of the training; otherwise, name the option
file with `--opt`. `--results` takes files that `stvsr test` wrote; a protocol's `results.json` must belong to these
weights. `--data` and `--licence` are texts for the card, and `--url` is the web folder that will serve the file.
Weights that do not fit the options, or are not finite, are refused.

In a checkout, `python scripts/update_tables.py --results results` then takes the scores of `basicsr/test.py`, and
writes this page, all tables of measured scores, and the files for the zoos of OpenMMLab (`configs/`,
`model-index.yml`) and BasicSR (`configs/basicsr.md`). `--speed` measures the speed of every model.

## Weights of other layouts

Wherever weights are read (option files, `--weights`, `publish`), a file may also hold them under `state_dict`, without
a key, with names that begin with `module.`, or as .safetensors. The log says which layout was found.
'''


# ---------------------------------------------------------------- pages

def page() -> str:
    """Return the text of docs/model_zoo.md."""
    cards = [card(name, entry) for name, entry in ZOO.items()]
    return '\n'.join([INTRO, *overview(), '', USAGE, *cards])


def overview() -> Iterator[str]:
    yield from table('model', 'makes', 'for', 'parameters', 'GFLOPs', 'file', 'weights')
    for name, entry in ZOO.items():
        yield row(f'[`{name}`](#{anchor(entry.weights)})', entry.about, entry.purpose or '-', f'{entry.parameters:,}',
                  gflops(entry), megabytes(entry), 'to fetch' if entry.url else 'in the package')


def card(name: str, entry: Entry) -> str:
    """Return the model card of a network, as a section of Markdown."""
    lines = [f'## {entry.weights}', '', '| | |', '|---|---|']
    lines += [row(fact, text) for fact, text in facts(name, entry).items()]
    for title, scores in ('Measured', entry.measured), ('Published', entry.published):
        if scores:
            lines += ['', f'{title}:', '', *table('test set', 'colours', 'frames', 'PSNR (dB)', 'SSIM')]
            lines += [row(*cells(score)) for score in scores]
    if entry.system:
        lines += ['', 'To cite:', '', citation(entry.system)]
    return '\n'.join(lines) + '\n'


def facts(name: str, entry: Entry) -> dict[str, str]:
    """Return the facts of a zoo entry as Markdown text, except for the scores."""
    stages = [f'`{stage.options}`, {f"{stage.iterations:,}" if stage.iterations else "unknown number of"} iterations'
              for stage in entry.stages]
    commands = [stage.command or f'python basicsr/train.py -opt {stage.options}' for stage in entry.stages]
    return {
        'model': f'`{name}`: {entry.about}',
        'network': f'`{json.dumps(entry.network)}`',
        'parameters': f'{entry.parameters:,}',
        'GFLOPs': f'{gflops(entry)}{COUNTED_OF if entry.gflops else ""}',
        'file': f'`{entry.weights}`, {megabytes(entry)}',
        'sha256': f'`{entry.sha256}`',
        'from': entry.url or ('ships with the package' if entry.path.is_file() else 'no address yet'),
        'trained on': entry.data,
        'option file': ', then '.join(stages),
        'trained by': ', then '.join(text if text == NOT_TOLD else f'`{text}`' for text in commands),
        'licence': entry.licence,
        'measured by': entry.measured_by or 'not measured',
        'published': 'see below' if entry.published else 'none of this network'}


def basicsr_row(entry: Entry) -> str:
    """Return a row in the format of BasicSR's docs/ModelZoo.md: the model, then PSNR and SSIM by test set."""
    by_set: dict[str, list[str]] = {}
    for score in entry.measured:
        _, color, frames, psnr, ssim = cells(score)
        what = color if frames == 'all' else f'{color}, frames {frames}'
        by_set.setdefault(score.test_set, []).append(f'({what}) {psnr}/{ssim}')
    measured = '<br/> '.join(f'[{test_set}] {"<br/> ".join(scores)}' for test_set, scores in by_set.items())
    name = Path(entry.weights).stem
    return row(f'[{name}]({entry.url})' if entry.url else name, measured or 'not measured')


def source(name: str, entry: Entry) -> str:
    """Return the row for the table in zoo/table.py, as Python code."""
    lines = [f'    {name!r}: Entry(']
    for field in fields(entry):
        value = getattr(entry, field.name)
        if field.default is MISSING or value != field.default:
            text = pformat(value, width=100, sort_dicts=False).replace('\n', f'\n{" " * (9 + len(field.name))}')
            lines.append(f'        {field.name}={text},')
    return '\n'.join([*lines, '    ),'])


# ---------------------------------------------------------------- formatting

def table(*head: str) -> list[str]:
    return [row(*head), f'|{"---|" * len(head)}']


def row(*texts: str) -> str:
    return f'| {" | ".join(text.replace("|", chr(92) + "|") for text in texts)} |'


def cells(score: Score) -> Iterable[str]:
    ssim = '-' if score.ssim is None else f'{score.ssim:.3f}'
    return score.test_set, score.color, FRAMES.get(score.frames, score.frames), f'{score.psnr:.2f}', ssim


def gflops(entry: Entry) -> str:
    return '-' if entry.gflops is None else f'{entry.gflops:.3f}'


def megabytes(entry: Entry) -> str:
    return f'{entry.size / 1e6:.2f} MB'


def anchor(title: str) -> str:
    """Return the anchor that GitHub generates for a heading."""
    return ''.join(c for c in title.lower() if c.isalnum() or c in '-_')
