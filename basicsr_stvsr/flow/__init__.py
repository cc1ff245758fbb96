"""Sources of optical flow, estimators and files, registered by name in FLOW_REGISTRY."""
from ..config.registered import FLOW_REGISTRY
from ..discovery import import_modules
from .archive_flow import WarpArchive, read_flow_archive, read_warp_archive
from .base import FlowEstimator, StoredFlow, build_flow

import_modules(__name__, __path__, '_flow')

__all__ = [
    'FLOW_REGISTRY', 'FlowEstimator', 'StoredFlow', 'WarpArchive', 'build_flow', 'read_flow_archive',
    'read_warp_archive']
