"""MBNet: video super-resolution and frame interpolation feed each other, x4 in space and x2 in time.

Paper: How Video Super-Resolution and Frame Interpolation Mutually Benefit (ACM MM 2021),
https://doi.org/10.1145/3474085.3475672.  No official code exists. Details that the paper leaves open are options here,
and the docstrings mark our choices.
Shapes: B clips, H x W pixels of the LR grid, s = scale. a and b are the two given frames, t the one halfway between.
The paper's flow_{p->q} lies on q's grid and samples p: it is our flow_qp, and warp(p, flow_qp) looks like q.
"""
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from .arch_util import at_least_float32, check_size_multiple, compile_parts, run_part, upsample, upsample_flow, warp
from .basicsr_networks import adapt, is_basicsr
from .frames_part import FramesPart
from .spec import NetSpec, part_spec_of

# Named sizes; options/train_mbnet*.yml contain the same. 'headline' is our reading of Table 3: of the sizes in Table 2,
# D = 16, C = 8 gives the printed 30.8 M.
MBNET_PRESETS: dict[str, dict[str, Any]] = {
    'headline': {
        'vsr_net': {'type': 'RDN', 'num_blocks': 16, 'num_layers': 8},
        'vfi_net': {'type': 'GridNet', 'channels': [32, 96, 192]},
    },
    'baseline': {
        'vsr_net': {'type': 'RDN', 'num_blocks': 8, 'num_layers': 8},
        'vfi_net': {'type': 'GridNet', 'channels': [32, 64, 96]},
    },
    # Ours, for CPUs: one round, and nearly all work is done on the LR grid. Both image nets correct a plain estimate
    # (residual), so that a short training goes into detail.
    'small': {
        'num_iters': 1, 'feedback': 'none', 'init_feedback': 'warped_hr',
        'flow_net': {'type': 'OFRNet', 'num_feat': 64, 'num_res': 4, 'flow_unit': 4.0},
        'refine_net': {'type': 'PACFlowNet', 'num_feat': 16, 'guide_channels': 8, 'kernel_size': 3, 'unshuffle': 2},
        'vsr_net': {'type': 'RDN', 'num_feat': 48, 'num_grow': 48, 'num_blocks': 10, 'num_layers': 1, 'joint': False,
                    'upscale': 'direct', 'residual': 'last'},
        'vfi_net': {'type': 'GridNet', 'channels': [32, 48, 64], 'num_columns': 4, 'unshuffle': 4, 'residual': True,
                    'blend': True},
    },
}


class MBNetAux(NamedTuple):
    """Additional outputs for MBNet's losses."""

    # The three SR frames after each round, (B, 3, 3, sH, sW); the last is the net's output. Empty with `flow_only`.
    rounds: list[Tensor]
    lq_flows_ab: list[Tensor]  # from coarse to fine, each (B, 2, ...) in pixels of its own grid
    lq_flows_ba: list[Tensor]
    hr_flow_ta: Tensor  # of the last round, (B, 2, sH, sW), HR pixels; with `flow_only` (B, 2, H, W), LR pixels
    hr_flow_tb: Tensor
    # Feature from the VSR net for the VFI net in the last round, (B, feature_channels, H, W); None with `flow_only`
    feature: Tensor | None = None


class SuperResolved(NamedTuple):
    """A frame restored by the VSR net, kept as the first frame of the next pair."""

    sr: Tensor  # (B, 3, sH, sW)
    feature: Tensor  # (B, feature_channels / 2, H, W)


def interpolate_flow(flow_ab: Tensor, flow_ba: Tensor, t: float = 0.5, form: str = 'superslomo') -> tuple[
        Tensor, Tensor]:
    """Interpolate the flows from time t to both frames, by a weighting quadratic in t (eqs. 2 and 3).

    With the grids that make the rest of the paper consistent, its printed pair has t and 1 - t swapped. At t = 0.5 the
    two forms are equal.

    Args:
        flow_ab, flow_ba: (B, 2, H, W).
        t: 0 is the time of a, 1 that of b.
        form: 'superslomo' or 'printed'.

    Returns:
        flow_ta and flow_tb, both (B, 2, H, W).
    """
    near, far = {'superslomo': (t, 1 - t), 'printed': (1 - t, t)}[form]
    cross = t * (1 - t)
    return near**2 * flow_ba - cross * flow_ab, far**2 * flow_ab - cross * flow_ba


@ARCH_REGISTRY.register()
class MBNet(nn.Module):
    """Restore three HR frames from two LR frames.

    In each round the VSR net sees the output of the VFI net from the previous round.

    The parts are chosen by name from BasicSR's ARCH_REGISTRY; docs/own_network.md shows how to plug in your own. The
    defaults are the paper's baseline with 14.85 M parameters (D = 8, C = 8).

    Args:
        scale: only 4, as in the paper.
        num_iters: rounds of interaction, with shared weights. The paper uses 2 and sees no gain from more; 1 is Table
            2's 'w/o interaction'.
        feedback: input of the next round, in addition to the SR frames: 'vfi', the middle frame warped back to both
            ends (the paper), or 'vsr', each SR frame warped to the other end (Table 1, row 4); 'none' requires
            num_iters = 1.
        vfi_feature: context for the VFI net: 'vsr', a feature of the VSR net (the paper), 'resnet', a separate net
            (`context_net`), or 'none' (Table 1, rows 1 to 3).
        interp: reading of eqs. 2 and 3, see `interpolate_flow`.
        init_feedback: feedback in the first round, which the paper leaves open: 'warped', the neighbouring LR frame
            warped onto this one and upsampled; 'warped_hr', the same frame upsampled first and then warped along the
            upsampled flow; 'reference', this frame upsampled; 'zeros'.
        checkpoint: with gradients enabled, keep only the inputs of the parts for the backward pass, and run each part
            once more (gradient checkpointing). On a CPU a step of batch 4 of 'headline' took 0.4 of the memory and 1.2
            times the time. Not one of the paper's options; the results are the same.
        flow_net, refine_net, vsr_net, vfi_net, context_net: {'type': name in ARCH_REGISTRY, and its arguments}.
    """

    def __init__(self, *, scale: int = 4, num_iters: int = 2, feedback: str = 'vfi', vfi_feature: str = 'vsr',
                 interp: str = 'superslomo', init_feedback: str = 'warped', checkpoint: bool = False,
                 flow_net: Mapping[str, Any] | None = None, refine_net: Mapping[str, Any] | None = None,
                 vsr_net: Mapping[str, Any] | None = None, vfi_net: Mapping[str, Any] | None = None,
                 context_net: Mapping[str, Any] | None = None):
        super().__init__()
        for name, value, known in (
            ('feedback', feedback, ('vfi', 'vsr', 'none')),
            ('vfi_feature', vfi_feature, ('vsr', 'resnet', 'none')),
            ('interp', interp, ('superslomo', 'printed')),
            ('init_feedback', init_feedback, ('warped', 'warped_hr', 'reference', 'zeros')),
        ):
            if value not in known:
                raise ValueError(f'{name} must be one of {", ".join(known)}, but got {value!r}')
        if num_iters < 1 or (feedback == 'none') != (num_iters == 1):
            raise ValueError("num_iters must be 1 with feedback 'none' and at least 2 otherwise, but got num_iters "
                             f'{num_iters} and feedback {feedback!r}')
        if context_net is not None and vfi_feature != 'resnet':
            raise ValueError(f"context_net is used only with vfi_feature 'resnet', but vfi_feature is {vfi_feature!r}")
        self.scale, self.num_iters, self.feedback = scale, num_iters, feedback
        self.vfi_feature, self.interp, self.init_feedback = vfi_feature, interp, init_feedback
        self.checkpoint = checkpoint

        self.flow_net = build_part(flow_net or {'type': 'OFRNet'})
        self.refine_net = build_part(refine_net or {'type': 'PACFlowNet'}, scale=scale)
        self.vsr_net = build_vsr_net(vsr_net or {'type': 'RDN'}, scale)
        self.context_net = build_part(context_net or {'type': 'ContextResNet'}) if vfi_feature == 'resnet' else None
        feature_source = {'vsr': self.vsr_net, 'resnet': self.context_net, 'none': None}[vfi_feature]
        feature_channels = part_spec_of(feature_source).feature_channels if feature_source else 0
        if feature_source and not feature_channels:
            raise ValueError(f"vfi_feature is {vfi_feature!r}, but {type(feature_source).__name__} returns no feature: "
                             'its part_spec has no feature_channels')
        self.vfi_net = build_part(
            vfi_net or {'type': 'GridNet', 'channels': [32, 64, 96]}, scale=scale, feature_channels=feature_channels)
        # 4: the grid of the VFI net, and the flow levels at 1/4, 1/2 and 1 of the LR size; a part may need a larger
        # multiple.
        part_specs = [part_spec_of(part) for part in self.children()]
        size_multiple = math.lcm(4, *(spec.size_multiple for spec in part_specs))
        min_size = max(spec.min_size for spec in part_specs)
        # The paper restores each pair separately. With one round and a VSR net that takes frames one by one, a frame of
        # two pairs is super-resolved once.
        shares = num_iters == 1 and not part_spec_of(self.vsr_net).joint
        self.spec = NetSpec(scale=scale, temporal_scale=2, num_frames=2, size_multiple=size_multiple, min_size=min_size,
                            color='rgb', sharing='windows' if shares else 'nothing')

    def forward(self, lq: Tensor, return_aux: bool = False, flow_only: bool = False, vsr_only: bool = False,
                vfi_only: bool = False, earlier: SuperResolved | None = None) -> (
            Tensor | tuple[Tensor, MBNetAux] | MBNetAux):
        """Restore one window of two frames.

        Args:
            lq: (B, 2, 3, H, W), RGB, 0-1; H and W divisible by `spec.size_multiple`.
            return_aux: also return additional outputs for the losses.
            flow_only: estimate only the LR flow, to train the flow net alone.
            vsr_only: stop at the given frames of the first round, to train the VSR net alone.
            vfi_only: the given frames pass no gradient on, to train the frame between them alone.
            earlier: frame a as restored with the previous pair; only b then goes through the VSR net. See
                `next_window`.

        Returns:
            (B, 3, 3, sH, sW): SR_a, SR_t, SR_b; with `return_aux`, a pair of it and MBNetAux; with `flow_only`,
                MBNetAux without rounds; with `vsr_only`, SR_a and SR_b, (B, 2, 3, sH, sW).

        Raises:
            ValueError: the input has a wrong shape.
        """
        if lq.dim() != 5 or lq.shape[1:3] != (2, 3):
            raise ValueError(f'MBNet takes two RGB frames, (B, 2, 3, H, W), but got {tuple(lq.shape)}')
        check_size_multiple(lq, self.spec.size_multiple, 'MBNet')
        a, b = lq.unbind(1)
        run = partial(run_part, recompute=self.checkpoint)

        # LR flow (eq. 1), both directions in one batch, and the flows from the middle (eqs. 2, 3)
        # Flows stay in float32 for frames of any dtype: bfloat16 rounds a motion of 20 pixels to eighths of one.
        both = run(self.flow_net, torch.cat((b, a)), torch.cat((a, b)))
        flows = [at_least_float32(flow).unflatten(0, (2, -1)).unbind() for flow in both]
        flows_ba, flows_ab = (list(direction) for direction in zip(*flows, strict=True))
        flow_ba, flow_ab = flows[-1]
        flow_ta, flow_tb = interpolate_flow(flow_ab, flow_ba, form=self.interp)
        if flow_only:
            return MBNetAux([], flows_ab, flows_ba, flow_ta, flow_tb)
        mid_flows = torch.cat((flow_ta, flow_tb), dim=1)
        warped_a, warped_b = warp(a, flow_ba), warp(b, flow_ab)  # a seen at b's time, b seen at a's

        lq_pair = torch.cat((a, b), dim=1)
        warped_lq = torch.cat((warped_b, warped_a), dim=1)
        sr_pair = upsample(lq_pair, self.scale)
        feedback = self.first_feedback(sr_pair, warped_lq, flow_ab, flow_ba)
        context = run(self.context_net, lq_pair) if self.context_net else None

        rounds = []
        for _ in range(self.num_iters):
            # Super-resolve the given frames (eq. 5) ...
            known = (lq_pair, F.pixel_unshuffle(sr_pair, self.scale), warped_lq,
                     F.pixel_unshuffle(feedback, self.scale), torch.cat((flow_ba, flow_ab), dim=1).to(lq.dtype))
            with torch.set_grad_enabled(torch.is_grad_enabled() and not vfi_only):
                if earlier is None:
                    sr_pair, feature = run(self.vsr_net, *known)
                else:
                    restored_b = run(self.vsr_net, *(pair.chunk(2, dim=1)[1] for pair in known))
                    sr_pair, feature = (torch.cat(pair, dim=1) for pair in zip(earlier, restored_b, strict=True))
            sr_a, sr_b = sr_pair.chunk(2, dim=1)
            if vsr_only:
                return torch.stack((sr_a, sr_b), dim=1)
            # ... bring the flows to HR with their help (eq. 4) ...
            hr_flow_ta, hr_flow_tb = at_least_float32(run(self.refine_net, mid_flows, sr_pair)).chunk(2, dim=1)
            # ... and make the frame between them (eq. 6).
            warped_pair = torch.cat((warp(sr_a, hr_flow_ta), warp(sr_b, hr_flow_tb)), dim=1)
            sr_t = run(self.vfi_net, warped_pair, {'vsr': feature, 'resnet': context, 'none': None}[self.vfi_feature])
            rounds.append(torch.stack((sr_a, sr_t, sr_b), dim=1))
            if len(rounds) < self.num_iters:
                feedback = self.next_feedback(rounds[-1], hr_flow_ta, hr_flow_tb)

        if return_aux:
            return rounds[-1], MBNetAux(rounds, flows_ab, flows_ba, hr_flow_ta, hr_flow_tb, feature)
        return rounds[-1]

    def next_window(self, lq: Tensor, earlier: SuperResolved | None) -> tuple[Tensor, SuperResolved]:
        """Restore the next pair of a stream; its first frame was super-resolved with the previous pair.

        This requires one round and a VSR net that takes frames one by one.

        Args:
            lq: see `forward`.
            earlier: the first frame of the pair, as restored with the previous pair; None at the start of a scene.

        Returns:
            (B, 3, 3, sH, sW), the output of `forward`, and `earlier` for the next pair.
        """
        frames, aux = self(lq, return_aux=True, earlier=earlier)
        return frames, SuperResolved(frames[:, 2], aux.feature.chunk(2, dim=1)[1])

    def compile(self, **arguments: Any) -> None:
        """Compile each part instead of the whole, so that it serves all rounds, and stays compiled with `checkpoint`.

        Args:
            arguments: those of torch.compile; by default, options that give correct gradients.
        """
        compile_parts(self, **arguments)

    def first_feedback(self, upsampled_pair: Tensor, warped_lq: Tensor, flow_ab: Tensor, flow_ba: Tensor) -> Tensor:
        """Return the feedback of the first round, (B, 6, sH, sW)."""
        if self.init_feedback == 'warped':
            return upsample(warped_lq, self.scale)
        if self.init_feedback == 'warped_hr':
            a, b = upsampled_pair.chunk(2, dim=1)
            neighbours, flows = torch.cat((b, a)), torch.cat((flow_ab, flow_ba))
            return torch.cat(warp(neighbours, upsample_flow(flows, self.scale)).chunk(2), dim=1)
        return upsampled_pair if self.init_feedback == 'reference' else torch.zeros_like(upsampled_pair)

    def next_feedback(self, frames: Tensor, flow_ta: Tensor, flow_tb: Tensor) -> Tensor:  # -> (B, 6, sH, sW)
        sr_a, sr_t, sr_b = frames.unbind(1)
        if self.feedback == 'vfi':
            # 'Reverse the direction of HR flow' (paper 3.5): warp the middle frame back to a's and to b's time.
            pair = warp(sr_t, -flow_ta), warp(sr_t, -flow_tb)
        else:
            # Warp each frame to the other's time by the concatenation of both half flows (our reading of Table 1, row
            # 4).
            pair = warp(sr_b, flow_tb - flow_ta), warp(sr_a, flow_ta - flow_tb)
        return torch.cat(pair, dim=1)


def build_part(opt: Mapping[str, Any], **given: Any) -> nn.Module:
    """Build {'type': name, arguments} from ARCH_REGISTRY; MBNet itself sets the arguments in `given`."""
    arguments = deepcopy(dict(opt))
    part_type = arguments.pop('type')
    arch = arch_of(part_type)
    decided = arguments.keys() & given.keys()
    if decided:
        raise ValueError(f'{min(decided)} of the part {part_type} is set by MBNet ({given[min(decided)]!r}); remove it')
    return arch(**arguments, **given)


def build_vsr_net(opt: Mapping[str, Any], scale: int) -> nn.Module:
    """Build a VSR net: a part as `build_part` does, or a network of frames such as BasicSR's; see `FramesPart`."""
    if 'arch_spec' not in opt and not is_basicsr(arch_of(opt['type'])):
        return build_part(opt, scale=scale)
    arguments = deepcopy(dict(opt))
    arch_spec = arguments.pop('arch_spec', None)
    return FramesPart(adapt(build_part(arguments), arch_spec), scale)


def arch_of(name: str) -> Callable[..., nn.Module]:
    """Return the class of a name in ARCH_REGISTRY; raise ValueError if there is none."""
    if not {name, f'{name}_basicsr'} & dict(iter(ARCH_REGISTRY)).keys():  # BasicSR adds its name to some
        raise ValueError(f'no network named {name!r} is registered in ARCH_REGISTRY')
    return cast(Callable[..., nn.Module], ARCH_REGISTRY.get(name))
