"""The embedded endpoint: SmolLM2-135M-Instruct behind TGI's wire protocol, on this machine's CPU.

weights.py       the GGUF file: find it, bring it, prove that it is the pinned one
vocabulary.py    token ids and their bytes, in both directions
llamacpp.py      llama.cpp's own server; the only module that imports xllamacpp
engine.py        the model as the server sees it: tokens in, tokens out
tgi.py           what goes over the wire: requests, answers, errors
validation.py    which requests TGI refuses, in TGI's words
generation.py    engine tokens to TGI tokens: text, stop strings, finish reason
metrics.py       TGI's Prometheus counters
settings.py      what a server is started with
routes.py        the HTTP routes
server.py        the process that serves them
process.py       start and stop that process around a build

Nothing else in prequery knows that this package exists, apart from the command line and the
pipeline, which ask :func:`prequery.local.process.start` for an address: builds speak to it over
HTTP, as they do to any other endpoint.
"""
