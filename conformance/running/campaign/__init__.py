"""The judgement of many targets: sources, ledger, engines, and who hands out the work."""
