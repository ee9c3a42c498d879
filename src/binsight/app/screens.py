"""The four tabs on one page, and the application that a server runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from binsight.app.attempts import BURST
from binsight.app.backend import Backend
from binsight.app.check_screen import CheckScreen
from binsight.app.components import QUIET
from binsight.app.count_screen import CountScreen
from binsight.app.examples import draw_bins, draw_parts
from binsight.app.find_screen import FindScreen
from binsight.app.store_screen import StoreScreen
from binsight.app.style import CSS, HEAD, theme
from binsight.app.surveys import Surveys
from binsight.app.visitors import Visitors

_MOST_WAITING = 64  # questions that wait; one more is told to come again
_AT_ONCE = 2  # of each kind
_LOOK_S = 0.02  # between two looks for questions; Gradio's own 0.001 takes a tenth of a core day and night
_TELL_S = 0.1  # between two messages of progress; Gradio's own are 0.01
_MOST_SESSIONS = 1000  # that are kept in mind: about 180 kB each
_SWEEP_S, _KEPT_S = 600, 3600  # of the cache: how often it is looked through, and how old its files become

Check = Callable[[str, str], bool]  # (name, password)


def build(backend: Backend, visitors: Visitors, shown: Path, work: Path, *, min_score: float) -> gr.Blocks:
    """The page. shown: Gradio's cache, which visitors load from. work: one that they do not. min_score: the first cut-off."""
    surveys = Surveys(backend)
    pictures = work / "examples"
    pictures.mkdir()
    page = gr.Blocks(title="binsight", analytics_enabled=False, delete_cache=(_SWEEP_S, _KEPT_S))
    with page:
        gr.HTML("<h1>binsight</h1><p>What is it, how many are in it, and do the books agree?</p>", elem_id="title")
        with gr.Tabs():
            with gr.Tab("Find a part", id="find"):
                find = FindScreen(backend, surveys, draw_parts(pictures), min_score)
            with gr.Tab("Count a bin", id="count"):
                CountScreen(backend, surveys, draw_bins(pictures))
            with gr.Tab("Check many", id="check"):
                CheckScreen(backend, visitors, shown, work)
            with gr.Tab("The store", id="store") as tab:
                store = StoreScreen(backend, surveys)
        tab.select(store.opened, None, store.outputs, **QUIET)
        page.load(find.opened, None, find.outputs, **QUIET)
    page.state_session_capacity = _MOST_SESSIONS  # which only `launch` would set
    page.queue(max_size=_MOST_WAITING, default_concurrency_limit=_AT_ONCE, api_open=False)
    page._queue.sleep_when_free, page._queue.progress_update_sleep_when_free = _LOOK_S, _TELL_S
    return page


def mounted(page: gr.Blocks, check: Check | None) -> FastAPI:
    """A page as an application. check: whether a visitor may look; None lets all in."""
    app = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=check,
        auth_message=f"Any name will do; the password is the app's. After {BURST} wrong ones wait half a minute for the next.",
        max_file_size="256mb",
        show_error=False,
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        theme=theme(),
        css=CSS,
        head=HEAD,
    )
    page.has_launched = page.is_running = True  # as `launch` would set them; else Gradio checks no path at all
    return app
