"""A small server with OpenAI's interface: many clients, one model, one engine thread.

    settings.py   every limit        errors.py    what a client is told
    engine.py     the thread that makes all texts side by side (no HTTP in it)
    fields.py     one field of a request, checked        body.py     a request's JSON, within limits
    orders.py     a request's JSON -> what to make       replies.py  what was made -> JSON, SSE
    api.py        the routes         guard.py     who may ask         metrics.py  /metrics
    page.html     the built-in page  run.py       sockets, signals, slow clients

Needs an extra, pip install 'phi-infer[server]'; importing this package alone does not.
"""

__all__: list[str] = []
