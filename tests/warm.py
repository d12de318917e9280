"""For every process that trials are forked from: what torch loads at first use is loaded here.

Imported first there: a thread of torch's that runs when it forks is waited for in vain ever after.
"""

import torch
import torch._dynamo

from conformance.cases.plans import Shard
from conformance.cases.profiles import PROFILES
from conformance.running.shards import Session, run_shard
from targets.builtin import BUILTIN

torch.set_num_threads(1)  # no thread may run when it forks
run_shard(Session(BUILTIN, "cpu", 0), Shard("examples", 0), PROFILES["quick"])
