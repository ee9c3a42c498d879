"""How the screens look: fonts of the visitor's own device, and room for fingers."""

from __future__ import annotations

import gradio as gr

_FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
_MONO = ("ui-monospace", "monospace")

CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
#title h1 { font-size: 1.5rem; font-weight: 700; margin: 0; }
#title p { color: var(--body-text-color-subdued); margin: 0; }
.said { font-size: 1.05rem; margin: 0.25rem 0; overflow-wrap: anywhere; }
.said.failed, .said.bad { border-left: 4px solid #c9372c; padding-left: 0.6rem; }
.said.good { border-left: 4px solid #17834f; padding-left: 0.6rem; }
table.record, table.rows { border-collapse: collapse; width: 100%; font-size: 0.95rem; }
table.record caption, table.rows caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
table.record th, table.record td, table.rows th, table.rows td {
  border-bottom: 1px solid var(--border-color-primary); padding: 0.35rem 0.5rem; text-align: left; vertical-align: top;
}
table.record td { overflow-wrap: anywhere; }
table.record th { width: 30%; font-weight: 500; color: var(--body-text-color-subdued); }
.wide { overflow-x: auto; max-height: 480px; overflow-y: auto; }
button:focus-visible, [tabindex]:focus-visible { outline: 3px solid #2a4d8f !important; outline-offset: 2px; }
"""


def theme() -> gr.themes.Base:
    """Gradio's own look in quiet colours; no font is fetched."""
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
