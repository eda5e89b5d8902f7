"""A Hub for tests: real HTTP on the loopback, for the real clients, unchanged.

`repos` and `git` are what it keeps, `state` what it knows, `repository`, `revisions`, `pulls`,
`downloads`, `lfs`, `xet` its calls, `xorbs` xet's formats, `faults` what goes wrong, `server`
the server.
A test takes the fixture `hub`, and `xet` beside it where large files are to go over xet.

`real` is the real Hub for tests of both: tests/test_hub_contract.py, tests/test_consumers.py.

How each behaviour was established. *Client*: huggingface_hub 2.4 sends, reads or documents it so,
and could not work otherwise. *Reported*: an answer of the real Hub, quoted in a public issue.
*Chosen*: not known of the real Hub; what is here is the stricter or the plainer possibility.

- Paths, bodies and members of every call; a repo's first commit with `.gitattributes` (client).
- 409 for a repo that exists, with its `url` in the body (client); the words (reported).
- 401 for a stranger, 404 for others, where a repo is missing or private (client); 401 "Invalid
  credentials in Authorization header" for an unknown or expired token (client; reported in
  huggingface_hub 3368).
- 403 "pass `create_pr=1`" without the right to write, also at the preupload and the LFS batch,
  where a body without `ref` asks for no right to the branch (reported in huggingface_hub 1182,
  hf-hub 199); 403 "don't have the rights to create a dataset" (reported in
  community-events 25). That a read token hears the same is chosen.
- Which files are large: the patterns are those of public datasets' `.gitattributes`; 10 MiB and NUL
  in the sample, are chosen. The repo's own `.gitignore` counts where
  none is sent (client). `oid` of the preupload is SHA-256 for a large file (client).
- 412 "A commit has happened since" (reported in dataset-viewer 2159); a prefix of 7 digits names
  a parent, and a pull request starts at its `parentCommit` (client's documentation).
- 404 "A file with this name doesn't exist" for a deletion (client). Deletions before additions,
  whatever their order in the body, is chosen.
- A commit without a change is made all the same (reported in huggingface_hub 1411: only the client
  leaves it out).
- 400 "LFS pointer pointed to a file that does not exist" (reported in huggingface_hub 3829); that
  large files belong to one repo (the client's copy between repos asks for it).
- 400 for a card's metadata, at the check and in the commit (reported in huggingface_hub 1927),
  "Invalid YAML in README.md" (in 1950); the licences (in 4218). That a key may not stand twice is
  how JavaScript's usual parser, whose errors those are, behaves. Language, sizes and configs are
  checked more loosely than there. The check answers 413 to a README that is too large (reported in
  mteb 1892); where that begins is chosen.
- 409 for a tag or branch that exists, 404 for one that does not (client); their words, and 400 for
  a commit to a tag, are chosen.
- 1,000 entries of the tree a page, 50 expanded, `Link` with `rel="next"`; 413 above 1,000 paths
  (client). 50 commits a page is chosen.
- A large file redirects to another origin, where the token is not sent (client).
- A pull request is `open` where a commit made it, `draft` where it was opened empty, its commits
  are below `refs/pr` (client). That a merge keeps what only the branch has, and is refused with
  409 where both changed a file, is chosen.
- xet: tokens, xorbs, shards, reconstructions and the question after a chunk are those of the
  public specification 1.1, and were watched as hf_xet 1.8 makes them: it asks for chunks below
  `default`, tries `/v1/xorb-grants` first and goes on where that is 404, sends shards to `/v2`.
  In a shard that answers a question, what the specification calls 48 reserved bytes are offsets
  (read in xet-core's source; with zeros hf_xet dies).
- `RateLimit` and `RateLimit-Policy` on every answer (client).
"""

from hub.faults import Call, Fault
from hub.real import TOKEN_VARIABLE, Place, RealHub
from hub.refusals import RefusalError
from hub.repos import Commit, File, Repo
from hub.server import Hub
from hub.state import Account

__all__ = [
    "TOKEN_VARIABLE",
    "Account",
    "Call",
    "Commit",
    "Fault",
    "File",
    "Hub",
    "Place",
    "RealHub",
    "RefusalError",
    "Repo",
]
