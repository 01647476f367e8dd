"""Unreasonable values that PvaPy's programs accept, and the values used instead."""

from __future__ import annotations

import logging

from pydantic import BeforeValidator

_STAGE = """
--input-channel --output-channel --status-channel --control-channel --id-format-spec
--server-queue-size --receiver-queue-size --processor-file --processor-class --processor-args
--oid-field --oid-offset --field-request --skip-initial-updates --metadata-channels --runtime
--report-period --report-stats --log-level --log-file --disable-curses
"""
# The long options of PvaPy's programs by settings class, for abbreviations.
OPTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(f"--help --version {text}".split())
    for name, text in {
        "ConsumerSettings": f"""{_STAGE}
--consumer-id --n-consumers --consumer-id-list --input-mode --input-args --output-mode
--output-args --accumulate-objects --accumulation-timeout --distributor-plugin-name
--distributor-group --distributor-set --distributor-trigger --distributor-updates
--n-distributor-sets
""",
        "CollectorSettings": f"{_STAGE} --collector-id --producer-id-list --collector-cache-size",
        "MirrorSettings": "--channel-map --runtime --report-period",
        "SimulatorSettings": """
--input-directory --input-file --mmap-mode --hdf-dataset --hdf-compression-mode --config-file
--frame-rate --n-x-pixels --n-y-pixels --color-mode --datatype --minimum --maximum --n-frames
--cache-size --runtime --channel-name --notify-pv --notify-pv-value --metadata-pv --start-delay
--shutdown-delay --report-period --disable-curses
""",
    }.items()
}

_log = logging.getLogger(__name__)
_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Log a warning, once in this process."""
    if message not in _warned:
        _warned.add(message)
        _log.warning("%s", message)


def at_least(lowest: int, option: str, meaning: str = "") -> BeforeValidator:
    """Use the lowest valid number in place of one below it, as PvaPy does.

    Args:
        lowest: the lowest valid number.
        option: its option, for the warning.
        meaning: what the lowest number means; "" gives no warning: PvaPy documents such values.
    """

    def raised(value: object) -> object:
        if not isinstance(value, (int, float)) or value >= lowest:
            return value
        if meaning:
            warn_once(f"{option} {value:g} is below {lowest}: {lowest} is used ({meaning})")
        return lowest

    return BeforeValidator(raised)
