"""The page: its tabs put together, and a server for it that talks to nobody but its visitors."""

from __future__ import annotations

import logging
import os
import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.themes import Default, Font
from starlette.middleware.trustedhost import TrustedHostMiddleware

from prototokens.errors import UsageError
from prototokens.explorer import style
from prototokens.explorer.gate import Gate
from prototokens.explorer.opening import Opening
from prototokens.explorer.work import Desk, Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FORGET = 3600  # seconds after which a visitor's files and shelf are dropped
WAITING = 20  # visitors in the queue; a further one gets the message that it is full
INTRODUCTION = """\
# prototokens
A text becomes a few trained vectors, and a frozen language model gives it back in one forward pass.
"""


def build(settings: Settings) -> gr.Blocks:
    """The page as Gradio's blocks. No model is loaded before it is needed."""
    desk = Desk(settings)
    with gr.Blocks(
        analytics_enabled=False, title="prototokens", delete_cache=(FORGET, FORGET)
    ) as page:
        with gr.Row(elem_id="top"):
            gr.Markdown(INTRODUCTION)
            share = gr.Button("Copy a link to this", size="sm", scale=0, elem_id="share")
        said = gr.HTML(elem_id="said")
        shelf = gr.State([], time_to_live=FORGET)
        Opening(desk, shelf, share, said).connect(page)

        def left(request: gr.Request) -> None:
            desk.forget(str(request.session_hash))

        page.unload(left)
    return page.queue(max_size=WAITING, default_concurrency_limit=4)


def app(settings: Settings, host: str) -> FastAPI:
    """The page as an application that uvicorn serves.

    No files but those sent up, no documentation, no strangers.
    """
    fonts, mono = ("system-ui", "sans-serif"), ("ui-monospace", "Menlo", "Consolas", "monospace")
    theme = Default(
        primary_hue="violet",
        font=[Font(name) for name in fonts],
        font_mono=[Font(name) for name in mono],
    )
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    served.add_middleware(Gate, max_characters=settings.max_characters)
    if host in LOOPBACK:
        # A page elsewhere whose name is made to point here is not this page.
        served.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]
        )
    return gr.mount_gradio_app(
        served,
        build(settings),
        path="",
        footer_links=[],
        show_error=False,
        max_file_size=settings.max_upload,
        allowed_paths=[],
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=theme,
        css=style.CSS,
        head=style.HEAD,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind the page's socket, before anything is built.

    Raises:
        UsageError: the address cannot be had.
    """
    bound = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()  # whoever comes before all is built waits, and is not turned away
    except (OSError, OverflowError) as error:
        if bound is not None:
            bound.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{host}, port {port} cannot be listened at ({reason}): name another with --host or"
            " --port"
        ) from error
    return bound


def serve(settings: Settings, host: str, bound: socket.socket) -> None:
    """Serve until Ctrl-C."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = (
        "False"  # read wherever Gradio would report to its makers
    )
    for noisy in ("httpx", "gradio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    config = uvicorn.Config(app(settings, host), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[bound])
