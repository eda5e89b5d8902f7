"""llama.cpp's own server with the packaged weights, in a process of its own.

It is started as its users start it: its defaults, its routes, no TGI before it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prequery.local import weights

ALIAS = weights.MODEL_ID
"""`--alias` names the model after its repository, so that a recipe can name it too."""

_SERVE = """
import json, os, sys
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import xllamacpp
params = xllamacpp.CommonParams()
for name, value in json.loads(sys.argv[1]).items():
    owner, _, last = name.rpartition(".")
    target = getattr(params, owner) if owner else params
    setattr(target, last, value)
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


@contextmanager
def llamacpp(slots: int = 2, **settings: object) -> Iterator[str]:
    """Yield the address of a server, as long as the block.

    Args:
        slots: Answers at the same time.
        settings: Other parameters of llama.cpp's, by their C++ names.
    """
    found = weights.find()
    assert found is not None, "the test environment brings the weights: scripts/setup test"
    chosen = {
        "model.path": str(found.path),
        "model_alias": [ALIAS],
        "n_parallel": slots,
        "n_ctx": slots * 1024,
        "cpuparams.n_threads": 2,
        "cpuparams_batch.n_threads": 2,
        "cache_ram_mib": 0,
        "fit_params": False,
        "ui": False,
        "verbosity": -1,
        **settings,
    }
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE, json.dumps(chosen)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.stdin.close()
            child.wait(60)
