"""The seam for asyncio; `sync` offers the same names."""

from .concurrency import Flag as Flag
from .concurrency import Lock as Lock
from .concurrency import Mutex as Mutex
from .concurrency import PerHome as PerHome
from .concurrency import Promise as Promise
from .concurrency import Worker as Worker
from .concurrency import cancelled_by as cancelled_by
from .concurrency import current as current
from .concurrency import from_anywhere as from_anywhere
from .concurrency import going_on as going_on
from .concurrency import sleep as sleep
from .connections import Line as Line
from .connections import Wire as Wire
from .crew import DEFAULT_SIZE as DEFAULT_SIZE
from .crew import Crew as Crew
from .crew import checked_handler as checked_handler
from .crew import is_cancellable as is_cancellable
from .network import Client as Client
from .network import Network as Network
from .network import Node as Node
from .network import checked_client as checked_client
