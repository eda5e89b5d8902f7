"""A built folder becomes a release: in another folder or URL, or on the Hub as one commit, one tag.

Output folder -> `content.read` -> `Content` -> `folder.release` or `hub.release` -> `Outcome`.
Both compare what is held with what is to be, refuse before they write, and can be run again.

    content    what an output folder holds of one config, proved whole and unchanged
    changes    what a release would change, and which versions may follow which
    folder     the same layout in a folder or any fsspec URL; the lock last
    wire       the Hub, call by call, and what its refusals mean
    hub        shards first, then one commit, then one tag
"""
