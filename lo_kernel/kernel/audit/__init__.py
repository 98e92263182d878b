"""The record: what ran in a workspace, what came of it, and whose data it read.

    audit/log-000000000001.jsonl    the chain: one record a line, each hashed together with the one before
    audit/text-000000000001.jsonl   code and other free text, beside the chain: it can be deleted
    audit/aliases.jsonl             which alias stands for which learner; beside the chain, too
    audit/anchors.jsonl             what retention deleted, signed
    audit/head, audit/id            where the chain ends, for the processes that share it; its name

The end of the chain is written down outside of the workspace too (:mod:`~lo_kernel.kernel.audit.witness`), so
that a shortened file is found out. :mod:`~lo_kernel.kernel.audit.log` writes, ``verify`` checks, ``reading``
reads; ``recorder`` knows what a kernel puts on record. The format is in ``lo_kernel/kernel/schemas/``.
"""
