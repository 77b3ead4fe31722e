"""The edge editor. strokes.py: what a person drew. widget.py: the widget. editor.js and editor.css: its front end."""

from edgeconnect_lite.editor.widget import EdgeEditor

__all__ = ["EdgeEditor"]
