"""The published examples: their commands, and what is seen at the end of the chain.

In a command, `~` is the start of the names of this test, `@FILE` the file of the processors,
`@FOLDER` a folder, `@KEY` a private key and `@PORT_n` a port.
"""

from __future__ import annotations

from dataclasses import dataclass

TURN = "--processor-file @FILE --processor-class HpcAdImageProcessor"
METADATA = "--processor-file @FILE --processor-class HpcAdMetadataProcessor"
SPLIT = "--processor-file @FILE --processor-class SplitAdImageProcessor"
STITCH = "--processor-file @FILE --processor-class StitchAdImageProcessor"
PASS = "--processor-class pvapy.hpc.userDataProcessor.UserDataProcessor"
PASS_IMAGE = "--processor-class pvapy.hpc.adImageProcessor.AdImageProcessor"
SAVE = "--processor-class pvapy.hpc.adOutputFileProcessor.AdOutputFileProcessor"
QUEUES = "--server-queue-size 100 --receiver-queue-size 1000"
BIG_QUEUES = "--server-queue-size 1000 --receiver-queue-size 10000"
DEBUG = "--log-level debug"
MIRROR = 'pvapy-mirror-server --channel-map "(~pvapy:image,~ad:image,pva,1000)"'
SIX = ",".join(f"pva://~m{number}" for number in range(1, 7))


@dataclass(frozen=True, slots=True)
class Shape:
    """How images are spread over channels.

    Attributes:
        copies: in how many channels each image is.
        run: how many images in sequence are in the same channels; 0 when all are, None when that
            depends on when each consumer came.
    """

    copies: int = 1
    run: int | None = 0


@dataclass(frozen=True, slots=True)
class Example:
    """A published example.

    Attributes:
        name: id of its test.
        stages: its commands from the first consumer to the last, in the order of the stream.
        source: the simulator's command.
        ends: names of the channels at the end of the chain; `{}` is a number from 1 to `n`.
        shape: how images are spread over these channels.
        mirror: command of the mirror server.
        loses: whether it shows how images are lost.
        attributes: names of attributes of the images at the end.
        files: whether images are saved.
        copies: how many consumers of its second stage get a part of each image.
    """

    name: str
    stages: tuple[str, ...]
    source: str
    ends: str = "~consumer:{}:output"
    n: int = 1
    shape: Shape = Shape()
    mirror: str = ""
    loses: bool = False
    attributes: tuple[str, ...] = ()
    files: bool = False
    copies: int = 1


def stage(name: str, source: str, more: str, program: str = "consumer") -> str:
    return (
        f"pvapy-hpc-{program} --input-channel ~{source} --control-channel ~{name}:*:control"
        f" --status-channel ~{name}:*:status --output-channel ~{name}:*:output {more}"
        " --report-period 10"
    )


def first(more: str, name: str = "consumer") -> str:
    return stage(name, "pvapy:image", more)


def sim(more: str, channel: str = "pvapy:image") -> str:
    return f"pvapy-ad-sim-server -cn ~{channel} -rt 60 {more}"


def small(more: str, channel: str = "pvapy:image") -> str:
    return sim(f"-nx 128 -ny 128 -dt uint8 {more}", channel)


SLOW = small("-fps 1")
FAST = small("-fps 10000 -rp 10000")
AD = small("-fps 2000 -rp 2000", "ad:image")
LARGE = sim("-nx 3840 -ny 2160 -dt uint8 -fps 100 -rp 100")
FOUR = first(f"{TURN} {QUEUES} --n-consumers 4 --distributor-updates 8", "processor")
SETS = f"{TURN} {DEBUG} --n-consumers 2 --distributor-updates 3 --n-distributor-sets 2"
TILES = (
    first(
        f"""{SPLIT} --processor-args='{{"nx" : 1920, "ny" : 1080}}' --server-queue-size 100""",
        "split",
    ),
    stage(
        "process",
        "split:1:output",
        f"{PASS} --server-queue-size 100 --n-consumers 4 --distributor-updates 1",
    ),
)
FILES = (
    '"outputDirectory" : "@FOLDER",'
    ' "outputFileNameFormat" : "bdp_{uniqueId:06d}.{processorId}.tiff"'
)
RIGHTS = '"privateKeyFilePath" : "@KEY"'
CRYPT = "--processor-class pvapy.hpc.adImageData{0}or.AdImageData{0}or".format


def parallel(number: int) -> str:
    return stage(
        "consumer",
        f"passthrough:{number}:output",
        f"--consumer-id {4 * number - 3} {TURN} --server-queue-size 100 --n-consumers 4"
        " --distributor-updates 8 --oid-offset 57",
    )


def protected(n: int, rate: int, more: str = "") -> Example:
    return Example(
        f"protection-{n}-consumers" if more else "protection-overwhelmed",
        (first(f"{TURN} {QUEUES} {more}"),),
        small(f"-fps {rate} -rp {rate}"),
        n=n,
        shape=Shape(run=n > 1),
        loses=not more,
    )


def throughput(name: str, n: int, more: str, metadata: bool = False) -> Example:
    source = f"-nf 100 -dt uint8 {f'-mpv {SIX}' if metadata else ''} -nx 64 -ny 64"
    options = f"{PASS} --server-queue-size 1000 --n-consumers {n} {more}"
    if metadata:
        options = options.replace(
            PASS, f"{METADATA} --metadata-channels {SIX} --accumulate-objects 10"
        )
    return Example(name, (first(options),), sim(source), n=n, shape=Shape(run=n > 1))


XYZ = "pva://~x,pva://~y,pva://~z"
COLLECT_METADATA = stage(
    "collector",
    "pvapy:image",
    f"--collector-id 1 --producer-id-list 1 {METADATA} --server-queue-size 100"
    " --collector-cache-size 100 --receiver-queue-size 1000 --metadata-channels {}",
    "collector",
)
COLLECT = "--collector-id 1 --producer-id-list 1,2,3,4"

EXAMPLES = (
    Example("single", (first(f"{TURN} {DEBUG}"),), SLOW),
    Example(
        "multiple",
        (first(f"{TURN} {DEBUG} --n-consumers 2"),),
        SLOW,
        n=2,
        shape=Shape(copies=2),
    ),
    Example(
        "distribution",
        (first(f"{TURN} {DEBUG} --n-consumers 2 --distributor-updates 1"),),
        SLOW,
        n=2,
        shape=Shape(run=1),
    ),
    Example(
        "sets",
        tuple(
            first(f"{SETS} --consumer-id {i} --distributor-set {s}")
            for i, s in ((1, "A"), (3, "B"))
        ),
        SLOW,
        n=4,
        shape=Shape(copies=2, run=3),
    ),
    Example("protection-none", (first(PASS),), FAST, loses=True),
    Example("protection-server-queue", (first(f"{PASS} --server-queue-size 1000"),), FAST),
    protected(1, 5000),
    protected(2, 5000, "--n-consumers 2 --distributor-updates 1"),
    protected(4, 8000, "--n-consumers 4 --distributor-updates 1"),
    Example(
        "chain",
        (
            FOUR,
            stage(
                "file",
                "processor:*:output",
                f'{SAVE} --processor-args \'{{{FILES}, "objectIdOffset" : "25"}}\''
                f" --n-consumers 4 {BIG_QUEUES}",
            ),
        ),
        AD,
        ends="~file:{}:output",
        n=4,
        shape=Shape(run=8),
        mirror=MIRROR,
        files=True,
    ),
    Example(
        "parallel",
        (
            first(
                f"{PASS} --server-queue-size 100 --distributor-updates 8 --n-consumers 2",
                "passthrough",
            ),
            parallel(1),
            parallel(2),
        ),
        small("-fps 8000 -rp 8000"),
        n=8,
        shape=Shape(run=None),
    ),
    Example("split", TILES, LARGE, ends="~process:{}:output", n=4, shape=Shape(copies=4)),
    Example(
        "collector",
        (
            FOUR,
            stage(
                "collector",
                "processor:*:output",
                f"{COLLECT} {PASS} --server-queue-size 1000 --collector-cache-size 10000"
                " --receiver-queue-size 2000",
                "collector",
            ),
            stage(
                "file",
                "collector:1:output",
                f"{SAVE} --processor-args '{{{FILES}}}' --n-consumers 4 {BIG_QUEUES}"
                " --distributor-updates 1",
            ),
        ),
        AD,
        ends="~file:{}:output",
        n=4,
        shape=Shape(run=1),
        mirror=MIRROR,
        files=True,
    ),
    Example(
        "stitch",
        (
            *TILES,
            stage(
                "collector",
                "process:*:output",
                f"""{COLLECT} {STITCH} --processor-args='{{"nx" : 3840, "ny" : 2160}}'"""
                " --server-queue-size 100 --collector-cache-size 100",
                "collector",
            ),
        ),
        LARGE,
        ends="~collector:{}:output",
        copies=4,
    ),
    Example(
        "metadata-collector-pva",
        (COLLECT_METADATA.format(XYZ),),
        sim(f"-nx 128 -ny 128 -fps 100 -rp 100 -mpv {XYZ}"),
        ends="~collector:{}:output",
        attributes=("~x", "~y", "~z"),
    ),
    Example(
        "metadata-collector-ca",
        (COLLECT_METADATA.format("~x,~y,~z"),),
        f"EPICS_DB_INCLUDE_PATH=@DBD {sim('-nx 128 -ny 128 -fps 1 -mpv ~x,~y,~z')}",
        ends="~collector:{}:output",
        attributes=("~x", "~y", "~z"),
    ),
    Example(
        "metadata-consumers",
        (
            first(
                f"--consumer-id 1 --n-consumers 4 {METADATA}"
                """ --processor-args '{"timestampTolerance" : 0.00025}' --server-queue-size 2000"""
                " --accumulate-objects 10 --receiver-queue-size 0 --distributor-updates 1"
                " --metadata-channels pva://~pvapy:x,pva://~pvapy:y,pva://~pvapy:z"
            ),
        ),
        sim(
            "-nx 128 -ny 128 -fps 2000 -rp 2000 -mpv pva://~ad:x,pva://~ad:y,pva://~ad:z",
            "ad:image",
        ),
        n=4,
        shape=Shape(run=1),
        mirror='pvapy-mirror-server --channel-map "'
        + ",".join(f"(~pvapy:{name},~ad:{name},pva,1000)" for name in ("image", "x", "y", "z"))
        + '"',
        attributes=("~pvapy:x", "~pvapy:y", "~pvapy:z"),
    ),
    Example(
        "encryption",
        (
            first(
                f"{CRYPT('Encrypt')} --processor-args '{{{RIGHTS}, \"sign\" : 1}}' {DEBUG}", "enc"
            ),
            stage(
                "dec",
                "enc:*:output",
                f"{CRYPT('Decrypt')} --oid-field objectId"
                f" --processor-args '{{{RIGHTS}, \"verify\" : 1}}' {DEBUG}",
            ),
            stage("proc", "dec:*:output", f"{TURN} {DEBUG}"),
        ),
        SLOW,
        ends="~proc:{}:output",
    ),
    Example(
        "firewall",
        (
            'EPICS_PVA_NAME_SERVERS="127.0.0.1:@PORT_1 127.0.0.1:@PORT_2"'
            " EPICS_PVA_BROADCAST_PORT=@PORT_4"
            f" {first(f'{PASS_IMAGE} --server-queue-size 100', 'stage1')}"
            " --consumer-id 1 --output-mode pva",
            f"EPICS_PVAS_SERVER_PORT=@PORT_2 EPICS_PVA_BROADCAST_PORT=@PORT_5"
            f" {stage('stage2', 'stage1:*:output', f'{PASS_IMAGE} --skip-initial-updates 0')}"
            " --consumer-id 1 --input-mode pvas --output-channel ~stage:*:output",
        ),
        "EPICS_PVAS_SERVER_PORT=@PORT_1 EPICS_PVA_BROADCAST_PORT=@PORT_3 "
        + small("-fps 20 -rp 20"),
        ends="~stage:{}:output",
    ),
    throughput("throughput-single", 1, ""),
    throughput("throughput-distribution", 4, "--distributor-updates 1"),
    throughput("throughput-metadata-single", 1, "", metadata=True),
    throughput("throughput-metadata-distribution", 4, "--distributor-updates 1", metadata=True),
)
