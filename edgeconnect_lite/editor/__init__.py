"""The edge editor. strokes.py: what a person drew. widget.py, editor.js: the widget. crop.py, crop.js: a photo of one's own."""

from edgeconnect_lite.editor.crop import CropTool
from edgeconnect_lite.editor.widget import EdgeEditor

__all__ = ["CropTool", "EdgeEditor"]
