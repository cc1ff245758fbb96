"""The zoo in words: model cards, docs/model_zoo.md, and rows of tables.

    python -m basicsr_stvsr.zoo_page > docs/model_zoo.md
"""
import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from pprint import pformat

from .zoo import ZOO, Entry, Score

FRAMES = {'all': 'all', 'vsr': 'given', 'vfi': 'between'}  # of the groups of frames that are scored
NOT_TOLD = 'not told'
COUNTED_OF = ' (multiplications with an addition each, of one window of 64x64 frames)'

INTRO = '''\
# Model zoo

<!-- Made of the table in basicsr_stvsr/zoo.py by `python -m basicsr_stvsr.zoo_page > docs/model_zoo.md` -->

Networks with weights, by name: `stvsr restore in.mp4 out.mp4 --model NAME`, or in Python

```python
from basicsr_stvsr.zoo import load

net = load('fstrn-small')
```

They are small, trained on a CPU for an hour or two; the networks of the papers' size are not trained yet. What they are
good for, and what not, is in their [model card](../basicsr_stvsr/weights/README.md). GFLOPs are what
[mmengine counts](openmmlab.md#flops-and-parameters) of one window of frames of 64x64 pixels.
'''

USAGE = '''\
## Commands

```
stvsr zoo list                  # the models, and whether their weights are here
stvsr zoo info NAME             # the facts below
stvsr zoo fetch NAME            # gets weights that do not ship with the package
stvsr zoo verify [NAME]         # compares files with their sha256, and tries whether they load
stvsr zoo publish CHECKPOINT    # makes such a file of a training
```

Files are named `<Method>_<train set>_x<scale>-<first 8 digits of the sha256>.pth`, as in BasicSR's zoo. The whole
sha256 is in the table of the zoo, and compared before anything of a file is loaded; then only tensors and plain
values are, never code.

`fetch` puts files into `~/.cache/basicsr_stvsr`, or the folder that `STVSR_HOME` names. It looks into the folder
`STVSR_ZOO` first, such as a mirror on a machine without internet, then at the address in the table (http, https or
file). What comes is kept in `NAME.part` until it is whole and its sha256 is right; after an interruption the same
command goes on from there. A file with another sha256 is refused and removed. Nothing else ever downloads: a model
that is not there is an error that names the command.

## Publishing

```
stvsr zoo publish experiments/FSTRN_small_x4/models/net_g_latest.pth --name FSTRN_small_clips_x4 \\
    --key params_ema --half --results results/test_FSTRN_small_x4/vid4.json
```

writes `FSTRN_small_clips_x4-<hash>.pth` and a model card of the same name (`.md`) into the folder `--into`, and
prints the row for BasicSR's page ModelZoo.md and the one for basicsr_stvsr/zoo.py. Whatever is not weights is
stripped; `params` and `params_ema` are kept as they are. `--key params_ema` keeps one of them, under the name
`params`, which BasicSR loads without being told; so were the files below made, in half precision (`--half`).
`--safetensors` (`pip install safetensors`) writes that format, which holds one set of weights: the average, unless
`--key params` is given.

The options, the command and the iterations are read from the folder of the training; elsewhere, `--opt` names the
option file. `--results` takes files that `stvsr test` wrote; `results.json` of a protocol must be of these weights.
`--data` and `--licence` are texts for the card, which says so where they are not told, `--url` is the folder on the web
in which the file will lie. Weights that do not fit the options, or are not finite, are refused.

## Weights of other layouts

Wherever weights are read, by option files, `--weights` and `publish`, a file may also hold them under `state_dict`,
bare, with names that begin with `module.`, or as .safetensors. A line in the log then says what was done.
'''


# ---------------------------------------------------------------- pages

def page() -> str:
    """docs/model_zoo.md."""
    cards = [card(name, entry) for name, entry in ZOO.items()]
    return '\n'.join([INTRO, *overview(), '', USAGE, *cards])


def overview() -> Iterator[str]:
    yield from table('model', 'makes', 'parameters', 'GFLOPs', 'file', 'weights')
    for name, entry in ZOO.items():
        yield row(f'[`{name}`](#{anchor(entry.weights)})', entry.about, f'{entry.parameters:,}', gflops(entry),
                  megabytes(entry), 'to fetch' if entry.url else 'in the package')


def card(name: str, entry: Entry) -> str:
    """The model card of a network, as a section of Markdown."""
    lines = [f'## {entry.weights}', '', '| | |', '|---|---|']
    lines += [row(fact, text) for fact, text in facts(name, entry).items()]
    for title, scores in ('Measured', entry.measured), ('Published', entry.published):
        if scores:
            lines += ['', f'{title}:', '', *table('test set', 'colours', 'frames', 'PSNR (dB)', 'SSIM')]
            lines += [row(*cells(score)) for score in scores]
    return '\n'.join(lines) + '\n'


def facts(name: str, entry: Entry) -> dict[str, str]:
    """What the table says, in words, but for the numbers; Markdown."""
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
    """A row as of video networks in BasicSR's docs/ModelZoo.md: the model, then by test set PSNR and SSIM."""
    by_set: dict[str, list[str]] = {}
    for score in entry.measured:
        _, color, frames, psnr, ssim = cells(score)
        what = color if frames == 'all' else f'{color}, frames {frames}'
        by_set.setdefault(score.test_set, []).append(f'({what}) {psnr}/{ssim}')
    measured = '<br/> '.join(f'[{test_set}] {"<br/> ".join(scores)}' for test_set, scores in by_set.items())
    name = Path(entry.weights).stem
    return row(f'[{name}]({entry.url})' if entry.url else name, measured or 'not measured')


def source(name: str, entry: Entry) -> str:
    """The row of the table in zoo.py, as Python."""
    lines = [f'    {name!r}: Entry(']
    for field in fields(entry):
        value = getattr(entry, field.name)
        if field.default is MISSING or value != field.default:
            text = pformat(value, width=100, sort_dicts=False).replace('\n', f'\n{" " * (9 + len(field.name))}')
            lines.append(f'        {field.name}={text},')
    return '\n'.join([*lines, '    ),'])


# ---------------------------------------------------------------- pieces

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
    """What GitHub makes of a heading."""
    return ''.join(c for c in title.lower() if c.isalnum() or c in '-_')


if __name__ == '__main__':
    print(page(), end='')
