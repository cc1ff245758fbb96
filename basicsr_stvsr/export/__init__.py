"""Export networks to ONNX files."""
from .onnx_export import CheckError, ExportError, export_network

__all__ = ['CheckError', 'ExportError', 'export_network']
