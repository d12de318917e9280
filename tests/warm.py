"""For every process that trials are forked from: what torch loads at first use is loaded here.

Imported first there: a thread of torch's that runs when it forks is waited for in vain ever after.
"""

import torch
import torch._dynamo

from conformance.cases.profiles import PROFILES
from conformance.running.run import run_shard
from conformance.running.shards import Shard
from targets.builtin import BUILTIN
from tests.sessions import session_on

torch.set_num_threads(1)  # no thread may run when it forks
run_shard(session_on(BUILTIN), Shard("examples", 0), PROFILES["quick"])
