"""What Gradio's login page keeps to itself: that an address has no tries left, and for how long.

Its script looks at two answers to a password only, a right and a wrong one. So the page gets a script of ours, which shows
what the third one says.
"""

from __future__ import annotations

from starlette.types import Message, Send

_SCRIPT = b"""<script>
(() => {
  const ask = window.fetch.bind(window);
  let waiting;
  window.fetch = async (place, options) => {
    const answer = await ask(place, options);
    if (answer.status === 429 && String(place).split("?")[0].replace(/\\/$/, "").endsWith("/login")) {
      const told = document.getElementById("no-tries") ?? document.createElement("p");
      told.id = "no-tries";
      told.setAttribute("role", "alert");
      told.style.cssText = "position: fixed; inset: 0 0 auto 0; margin: 0; padding: 0.8rem; text-align: center; z-index: 10;"
        + "background: #c9372c; color: #fff; font-family: sans-serif";
      document.body.append(told);
      told.textContent = await answer.clone().text();
      clearTimeout(waiting);
      waiting = setTimeout(() => told.remove(), 1000 * Number(answer.headers.get("retry-after")));
    }
    return answer;
  };
})();
</script>"""


def telling(send: Send) -> Send:
    """What sends an answer on, with the script where it is an HTML page that nothing has compressed."""
    start: Message = {}
    parts: list[bytes] = []

    async def held(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        headers, page = dict(start.get("headers", ())), b"".join(parts)
        if headers.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in headers:
            page = page.replace(b"</head>", _SCRIPT + b"</head>", 1)
            others = [header for header in start["headers"] if header[0] != b"content-length"]
            start["headers"] = [*others, (b"content-length", str(len(page)).encode())]
        await send(start)
        await send({"type": "http.response.body", "body": page})

    return held
