"""Why ours differ from PvaPy's programs: the one table of explanations.

A key is a pattern (as of the shell) of ``WHAT: PVAPY'S > OURS``, in which nothing is ``none``. The
first that fits explains a difference. Values that are treated differently are in docs/incumbent.md.
"""

from __future__ import annotations

_SHM = "shared memory of one host, which PvaPy has not"
_PROMETHEUS = "metrics for Prometheus, which PvaPy does not serve"
_ACCESS = "access rights; PvaPy lets everybody put"

_PROGRAMS = {
    "* --shm-*: none > *": _SHM,
    "* --pva-*: none > *": "PVAccess on our own sockets",
    "* --metrics-*: none > *": _PROMETHEUS,
    "* --allow-host: none > *": _PROMETHEUS,
    "* --ledger: none > *": "the fate of every id, for the audit",
    "* --remote-timeout: none > *": "output modes pva and rpc try again; PvaPy drops the object",
    "* --control-from: none > *": _ACCESS,
    "* --access-security: none > *": _ACCESS,
    "* --pause-queue-size: none > *": "command pause, which PvaPy has not",
    "* --batch-size: none > *": "many images in one call of the processor, which PvaPy has not",
    "* --batch-timeout: none > *": "many images in one call of the processor, which PvaPy has not",
    "* --drain-timeout: none > *": "what waits at stop is processed; PvaPy throws it away",
    "* --status-period: none > *": "PvaPy has a fixed period of 10 s",
    "* --log-format: none > *": "form of log lines; PvaPy has one",
    "* --keep-past*: none > *": "the newest objects are kept for receivers that missed some",
    "* --repair*: none > *": "missed objects are asked for again",
    "* --metadata-optional: none > *": "metadata that never come are a failure here",
}
_CONSUMER = {
    "consumer --distributor-updates: str, no default > int, no default": (
        "a number; PvaPy takes it as text, and fails later when it is none"
    ),
    "consumer --max-restarts: none > *": "processes that die are started again",
    "consumer --distributor-policy: none > *": "objects are divided by load, or by a field",
}
_COLLECTOR = {
    "collector --input-mode: none > str, pva": "the modes of consumers; PvaPy's takes PVA only",
    "collector --input-args: none > str, no default": "arguments of the input mode",
    "collector --output-mode: none > str, pvas": "the modes of consumers; PvaPy's has pvas only",
    "collector --output-args: none > str, no default": "arguments of the output mode",
    "collector --gap-timeout: none > *": "bounds the wait for a producer that is silent",
    "collector --producer-disorder: none > *": "producers whose ids are not in order",
}
_MIRROR = {
    "mirror --channel-map: str, no default > str, required": (
        "PvaPy ends with exit code 1 without it, too"
    ),
    "mirror --oid-field: none > *": "names the ids in the ledger",
    "mirror --log-*: none > *": "PvaPy's mirror logs nothing",
    "mirror --status-channel: none > *": "status as stages show it; PvaPy's mirror has none",
    "mirror --wait-*: none > *": "nothing is lost before the consumers are there",
    "mirror counters nPublished: none > count": "a further counter, beside PvaPy's",
    "mirror counters nErrors: none > count": "a further counter, beside PvaPy's",
}
_SIMULATOR = {
    "sim --log-*: none > *": "PvaPy's simulator logs nothing",
    "sim --status-channel: none > *": "status as stages show it; PvaPy's simulator has none",
    "sim --output-mode: none > *": _SHM,
    "sim --n-publish: none > *": "ends after a number of frames",
    "sim --wait-*: none > *": "starts when clients are there; PvaPy's waits for a fixed time",
}
_MODES = {
    "*-mode shm: none > yes": _SHM,
    "input-mode auto: none > yes": "shared memory where the source has it, else pva",
    "input-mode dectris: none > yes": "Stream V2 of DECTRIS detectors",
    "output-mode both: none > yes": "pvas and shared memory at once",
}
_FIELDS = {
    "* status *Stats*.n[A-Z]*: UINT > ULONG": "counters have 64 bits, and do not wrap",
    "* status *bjectId: UINT > LONG": "ids have 64 bits",
    "* status *.receiverStats.nErrors: none > ULONG": "as a consumer's own receiverStats",
    "* status *.receiverStats.errorRate: none > DOUBLE": "as a consumer's own receiverStats",
    "* status metadataStats_1.state: none > STRING": "whether the channel is there",
    "* status metadataStats_1.nWith*: none > ULONG": "objects with a value, and without",
    "* status metadataStats_1.coverage: none > DOUBLE": "the share of objects with a value",
    "* status state: none > STRING": "starting, running, paused, stopped, failed and others",
    "* status restarts: none > UINT": "how often the process was started again",
    "* status message: none > STRING": "the last error",
    "* status outputChannel: none > STRING": "for those who look at a whole chain",
    "* status controlChannel: none > STRING": "for those who look at a whole chain",
    "collector status inputChannel: none > STRING": "as in a consumer's status",
    "* status publisherStats.nRejected: none > ULONG": "what the output did not take",
    "* status publisherStats.rejectedRate: none > DOUBLE": "what the output did not take",
    "collector status publisherStats.*: none > *": "as in a consumer's status",
    "collector status queueStats.*: none > ULONG": "as in a consumer's status",
    "* status processorStats.nFiltered: none > ULONG": "what a processor drops on purpose",
    "* status processorStats.nSkipped: none > ULONG": "what a processor leaves to others",
    "* status processorStats.nDuplicates: none > ULONG": "ids that came more than once",
    "* status processorStats.nUnknown: none > ULONG": "ids of which nothing is known",
    "* status processorStats.nEpochs: none > ULONG": "how often ids began again",
    "* status processorStats.nRepaired: none > ULONG": "missed objects that came after all",
    "* status latencyStats.*: none > *": "from the time stamp to the end of processing",
}
EXPLAINED: dict[str, str] = {
    **_PROGRAMS, **_CONSUMER, **_COLLECTOR, **_MIRROR, **_SIMULATOR, **_MODES, **_FIELDS,
}  # fmt: skip
