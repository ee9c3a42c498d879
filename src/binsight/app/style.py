"""How the screens look, and what screen readers are told of them: fonts of the visitor's own device, and room for fingers."""

from __future__ import annotations

import gradio as gr

_FONTS = ("ui-sans-serif", "system-ui", "sans-serif")
_MONO = ("ui-monospace", "monospace")

# Gradio puts the names of its page's frame before each selector and after each comma, those within `:is(a, b)` too, where they
# make it match nothing and weigh more: so none is written here.
CSS = """
#title h1 { font-size: 1.5rem; font-weight: 700; margin: 0; }
#title p { color: var(--body-text-color-subdued); margin: 0; }

.said { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
.said.failed, .said.bad { border-left: 4px solid #c9372c; padding-left: 0.6rem; }
.said.good { border-left: 4px solid #17834f; padding-left: 0.6rem; }

#check-said:has(.wrap.full:not(.hide)) { min-height: 8.5rem; }
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
table.record tbody, table.record tr, table.rows thead, table.rows tbody, table.rows tr { border: 0 !important; }
table.record caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
p.title { font-size: 0.95rem; font-weight: 600; margin: 0; padding: 0.3rem 0; }
table.record th, table.record td, table.rows th, table.rows td {
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important;
  padding: 0.35rem 0.5rem !important; text-align: left; vertical-align: top;
}
table.record td { overflow-wrap: anywhere; }
table.record th { width: 30%; font-weight: 500; color: var(--body-text-color-subdued); }
table.bars { width: 100%; border-collapse: collapse; border: 0 !important; font-size: 0.95rem; }
table.bars caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
table.bars tbody, table.bars tr, table.bars th, table.bars td { border: 0 !important; background: none !important; }
table.bars th { width: 7.5rem; padding: 0.1rem 0.5rem !important; font-weight: 500; text-align: right; white-space: nowrap; }
table.bars td { padding: 0.1rem 0.5rem !important; }
table.bars td > div { display: flex; align-items: center; gap: 0.5rem; }
table.bars td span { flex: none; height: 1.1rem; min-width: 1px; max-width: calc(100% - 3.5rem); background: #3f74bd; }
table.bars tr.marked th, table.bars tr.marked td { font-weight: 700; }
table.bars tr.marked span { background: #b45309; }
table.rows th { white-space: nowrap; }
table.rows td:last-child, #check-rows table.rows td:first-child, #find-rows table.rows td:nth-child(2) {
  min-width: 6rem; overflow-wrap: anywhere;
}
.wide { overflow: auto; max-height: 75vh; }

@media (max-width: 520px) {
  .tab-container button { padding: 0 0.4rem !important; font-size: 0.85rem !important; }
}
button:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
"""

# Gradio confines CSS to what is inside its page's frame; this is for the frame itself.
_FRAME = "<style>@media (max-width: 520px) { .gradio-container .main.app { padding: 0.75rem !important; } }</style>"

# Gradio names every picture of a gallery "Thumbnail 3 of 12", its upload buttons all alike, and its examples not at all. And a
# sentence is read out when it changes only where its place is known as one that changes before it does. That a slider was moved
# is told when a pointer lets go of it, and not when a key does.
_NAMES = """<script>
(() => {
  const spoken = ["find-said", "find-record", "count-said", "count-books", "check-said", "store-said"];
  const name = (node, text) => { if (node.getAttribute("aria-label") !== text) node.setAttribute("aria-label", text); };
  const tell = () => {
    for (const id of spoken) document.getElementById(id)?.setAttribute("aria-live", "polite");
    for (const picture of document.querySelectorAll(".thumbnail-item")) {
      const caption = picture.querySelector(".caption-label")?.textContent.trim();
      if (caption) name(picture, caption);
    }
    for (const upload of document.querySelectorAll("button.upload-container")) {
      const label = upload.closest(".block")?.querySelector("label, [data-testid=block-label]")?.textContent.trim();
      if (label) name(upload, `${label}: ${upload.innerText.replace(/\\s+/g, " ").trim()}`);
    }
    for (const photo of document.querySelectorAll("#find-photo img, #count-photo img")) photo.alt ||= "The chosen photo";
    for (const examples of document.querySelectorAll(".gallery"))
      [...examples.querySelectorAll("button.gallery-item")].forEach((one, place) => name(one, `Example ${place + 1}`));
  };
  let isDue = false;
  const soon = () => { if (!isDue) { isDue = true; requestAnimationFrame(() => { isDue = false; tell(); }); } };
  const seen = { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["aria-label"] };
  addEventListener("keyup", (event) => {
    if (event.target.type === "range") event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  });
  new MutationObserver(soon).observe(document.documentElement, seen);
})();
</script>"""
HEAD = _FRAME + _NAMES


def theme() -> gr.themes.Base:
    """Gradio's own look in quiet colours, dark enough on white to be read outdoors; no font is fetched."""
    look = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
    return look.set(
        body_text_color_subdued="*neutral_600",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
    )
