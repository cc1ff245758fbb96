"""The choices of the page, as arguments of `stvsr restore`."""
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..archs.spec import spec_of
from ..zoo.network_source import WITHOUT_WEIGHTS
from ..zoo.table import ZOO, outline

PREVIEW_SECONDS = 3.0
INTERPOLATOR = 'dis'  # doubles the frame rate with models that do not


def models() -> list[dict[str, Any]]:
    """Return the models whose weights are on this machine: name, what they do and for which videos, and scales."""
    entries = {name: (entry.network, entry.about, entry.purpose) for name, entry in ZOO.items()
               if entry.path.is_file()}
    entries |= {name: (network, 'x2 in time, quickly', 'videos that stutter')
                for name, network in WITHOUT_WEIGHTS.items()}
    found = []
    for name, (network, about, purpose) in entries.items():
        spec = spec_of(outline(network))
        found.append({'name': name, 'about': about + (f'; for {purpose}' if purpose else ''), 'scale': spec.scale,
                      'temporal_scale': spec.temporal_scale})
    return found


class Settings(BaseModel):
    """What a user chose.

    Attributes:
        model: name of a model.
        scale, height: size of the output; both None: what the model makes.
        rate: 'keep' or 'double' that of the input, or frames per second.
        start, duration: the part to restore, seconds; None: up to the end.
        preview: restore only the first seconds of that part.
    """
    model_config = ConfigDict(extra='forbid', allow_inf_nan=False)

    model: str
    scale: Annotated[float, Field(gt=0, le=8)] | None = None
    height: Annotated[int, Field(ge=16, le=8640)] | None = None
    rate: Literal['keep', 'double'] | Annotated[float, Field(gt=0, le=1000)] = 'keep'
    start: Annotated[float, Field(ge=0)] = 0
    duration: Annotated[float, Field(gt=0)] | None = None
    preview: bool = False

    @field_validator('model')
    @classmethod
    def _is_model(cls, name: str) -> str:
        if name not in (*ZOO, *WITHOUT_WEIGHTS):  # not a file of this machine
            raise ValueError('no such model')
        return name

    def arguments(self, *, is_image: bool) -> list[str]:
        """Return the arguments of `stvsr restore`, without its paths."""
        network = ZOO[self.model].network if self.model in ZOO else WITHOUT_WEIGHTS[self.model]
        spec = spec_of(outline(network))
        doubles, enlarges = spec.temporal_scale > 1, spec.scale > 1
        found = ['--model', self.model]
        if self.height is not None:
            found += ['--height', str(self.height)]
        elif self.scale is not None:
            found += ['--scale', f'{self.scale:g}']
        if is_image:
            return found
        if self.rate == 'keep':
            found += ['--space-only'] if doubles and enlarges else []
        else:
            found += [] if doubles else ['--interpolate', INTERPOLATOR]
            found += [] if self.rate == 'double' else ['--fps', f'{self.rate:g}']
        if self.start:
            found += ['--start', f'{self.start:g}']
        if (seconds := self.seconds) is not None:
            found += ['--duration', f'{seconds:g}']
        return found

    @property
    def seconds(self) -> float | None:
        """Return the duration of the part to restore; None: up to the end."""
        if self.preview:
            return min(PREVIEW_SECONDS, self.duration or PREVIEW_SECONDS)
        return self.duration


def read_settings(values: Any) -> Settings:
    """Return the settings that a page sent; raise ValueError with a sentence if one is wrong."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first['loc'][0]) if first['loc'] else 'the settings'
        raise ValueError(f'The value of "{name}" cannot be used: {first["msg"]}.') from None
