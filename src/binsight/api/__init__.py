"""`binsight serve`: the library's verbs over HTTP. One file an idea; `app.create_app` puts them together."""

from binsight.errors import MissingExtra

try:
    import fastapi as fastapi
    import prometheus_client as prometheus_client
    import python_multipart as python_multipart
    import uvicorn as uvicorn
except ImportError as error:
    raise MissingExtra(error.name or "fastapi", extra="api") from error
