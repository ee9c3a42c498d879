"""How the screens look: fonts of the visitor's own device, and room for fingers."""

from __future__ import annotations

import gradio as gr

_FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
_MONO = ("ui-monospace", "monospace")

CSS = """
#title h1 { font-size: 1.5rem; font-weight: 700; margin: 0; }
#title p { color: var(--body-text-color-subdued); margin: 0; }

.said { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
.said.failed, .said.bad { border-left: 4px solid #c9372c; padding-left: 0.6rem; }
.said.good { border-left: 4px solid #17834f; padding-left: 0.6rem; }

#check-said { min-height: 8.5rem; }
#check-said .wrap.full:not(.hide) { height: 8.5rem !important; background: var(--body-background-fill) !important; }

.gallery-container .grid-wrap { min-height: 0 !important; max-height: none !important; overflow: visible; }
.gallery-container .grid-container {
  grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)) !important; grid-template-rows: none !important;
  grid-auto-rows: auto !important; align-items: start; padding-top: 1.6rem !important;
}
.gallery-container .thumbnail-item {
  display: flex; flex-direction: column; justify-content: flex-start; height: auto !important; aspect-ratio: auto !important;
}
.gallery-container .thumbnail-item img {
  width: 100% !important; height: auto !important; aspect-ratio: 1; object-fit: contain;
}
.gallery-container .caption-label {
  position: static !important; width: 100%; max-width: 100% !important; opacity: 1 !important; border: 0 !important;
  padding: 0.3rem 0.4rem; text-align: left; white-space: normal !important; overflow-wrap: anywhere;
  color: var(--body-text-color) !important; background: none !important; font-size: 0.85rem; line-height: 1.25;
}

table.record, table.rows { border-collapse: collapse; width: 100%; font-size: 0.95rem; border: 0 !important; }
table.record :is(thead, tbody, tr), table.rows :is(thead, tbody, tr) { border: 0 !important; }
table.record caption, table.rows caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
table.record th, table.record td, table.rows th, table.rows td {
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important;
  padding: 0.35rem 0.5rem !important; text-align: left; vertical-align: top;
}
table.record td { overflow-wrap: anywhere; }
table.record th { width: 30%; font-weight: 500; color: var(--body-text-color-subdued); }
table.rows :is(th, td) { white-space: nowrap; }
table.rows td:last-child { white-space: normal; min-width: 12rem; overflow-wrap: anywhere; }
.wide { overflow: auto; max-height: 75vh; }

@media (max-width: 520px) {
  .tab-container button { padding: 0 0.4rem !important; font-size: 0.85rem !important; }
}
button:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
"""

# Gradio confines CSS to what is inside its page's frame; this is for the frame itself.
HEAD = "<style>@media (max-width: 520px) { .gradio-container .main.app { padding: 0.75rem !important; } }</style>"


def theme() -> gr.themes.Base:
    """Gradio's own look in quiet colours; no font is fetched."""
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
