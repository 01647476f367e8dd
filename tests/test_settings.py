from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from pvapy_stream.errors import SettingsError
from pvapy_stream.settings import (
    ConsumerSettings,
    LoggingSettings,
    MetadataChannel,
    MirrorSettings,
    Settings,
    SimulatorSettings,
    WriterSettings,
    option_of,
)

# The options of the incumbent's commands; both forms are in use in scripts.
CONSUMER = """
-id --consumer-id -nc --n-consumers -cid --consumer-id-list -ic --input-channel -im --input-mode
-ia --input-args -oc --output-channel -om --output-mode -oa --output-args -sc --status-channel
-cc --control-channel -ifs --id-format-spec -sqs --server-queue-size -rqs --receiver-queue-size
-cqs --client-queue-size -ao --accumulate-objects -at --accumulation-timeout -pf --processor-file
-pc --processor-class -pa --processor-args -of --oid-field -oo --oid-offset -fr --field-request
-siu --skip-initial-updates -dpn --distributor-plugin-name -dg --distributor-group
-ds --distributor-set -dt --distributor-trigger -du --distributor-updates
-nds --n-distributor-sets -mc --metadata-channels -rt --runtime -rp --report-period
-rs --report-stats -ll --log-level -lf --log-file -dc --disable-curses
"""
SIMULATOR = """
-id --input-directory -if --input-file -mm --mmap-mode -hds --hdf-dataset
-hcm --hdf-compression-mode -cfg --config-file -fps --frame-rate -nx --n-x-pixels -ny --n-y-pixels
-cm --color-mode -dt --datatype -mn --minimum -mx --maximum -nf --n-frames -cs --cache-size
-rt --runtime -cn --channel-name -npv --notify-pv -nvl --notify-pv-value -mpv --metadata-pv
-std --start-delay -shd --shutdown-delay -rp --report-period -dc --disable-curses
"""
MIRROR = "-cm --channel-map -rt --runtime -rp --report-period"


def consumer(**values: Any) -> ConsumerSettings:
    return ConsumerSettings.of(input_channel="in", **values)


@pytest.mark.parametrize(
    ("model", "flags"),
    [(ConsumerSettings, CONSUMER), (SimulatorSettings, SIMULATOR), (MirrorSettings, MIRROR)],
)
def test_every_option_users_know_is_there_once(model: type[Settings], flags: str) -> None:
    options = [option for name in model.model_fields if (option := option_of(model, name))]
    ours = [flag for option in options for flag in option.flags]
    assert len(ours) == len(set(ours))
    assert set(flags.split()) - set(ours) == set()


@pytest.mark.parametrize(
    "model", [ConsumerSettings, SimulatorSettings, MirrorSettings, WriterSettings]
)
def test_every_setting_has_help(model: type[Settings]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("1,2,5", (1, 2, 5)),
        ("[1, 2]", (1, 2)),
        ("range(3,6)", (3, 4, 5)),
        ("range(1,10,4)", (1, 5, 9)),
        (" 7 ", (7,)),
        ([4, 2], (4, 2)),
    ],
)
def test_id_lists(text: Any, ids: tuple[int, ...]) -> None:
    assert consumer(consumer_id_list=text).ids == ids


@pytest.mark.parametrize(
    "text", ["1,x", "range(1,2,0)", "range(5,5)", "1,1", "__import__('os').getpid()", "1.5"]
)
def test_wrong_id_lists_are_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match="--consumer-id-list"):
        consumer(consumer_id_list=text)


def test_ids_count_up_from_the_first() -> None:
    assert consumer().ids == (1,)
    assert consumer(consumer_id=3, n_consumers=2).ids == (3, 4)
    assert consumer(consumer_id_list="").ids == (1,)


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({}, 1),
        ({"n_consumers": 4}, 1),
        ({"n_consumers": 4, "distributor_group": "g"}, 4),
        ({"n_consumers": 4, "distributor_updates": 3}, 10),
        (
            {
                "n_consumers": 4,
                "distributor_set": "s",
                "n_distributor_sets": 2,
                "distributor_updates": 8,
            },
            9,
        ),
        ({"n_consumers": 4, "distributor_group": "g", "oid_offset": 7}, 7),
        (
            {
                "n_consumers": 4,
                "distributor_group": "g",
                "distributor_policy": "least-queued",
                "input_mode": "pva",
            },
            1,
        ),
    ],
)
def test_the_step_of_ids(options: dict[str, Any], step: int) -> None:
    assert consumer(**options).id_step == step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distributor_policy": "fastest"}, "'fastest' is unknown; give runs, least-queued or"),
        ({"distributor_policy": "sticky:"}, "'sticky:' is unknown; give runs, least-queued or"),
        ({"distributor_policy": "least-queued", "n_consumers": 2}, "give --distributor-group"),
        ({"distributor_policy": "sticky:run", "distributor_group": "g"}, "with one command"),
        (
            {
                "distributor_policy": "least-queued",
                "distributor_group": "g",
                "n_consumers": 2,
                "input_mode": "auto",
            },
            "--input-mode pva, or use --input-mode shm",
        ),
        (
            {
                "distributor_policy": "sticky:run",
                "distributor_updates": 5,
                "input_mode": "shm",
            },
            "leave --distributor-updates out",
        ),
    ],
)
def test_policies_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        consumer(**options)


def test_metadata_channels() -> None:
    channels = consumer(metadata_channels="pva://x, ca://y,z,").metadata_channels
    assert channels == (
        MetadataChannel("x", "pva"),
        MetadataChannel("y", "ca"),
        MetadataChannel("z", "ca"),
    )


def test_an_unknown_scheme_is_part_of_a_ca_name(caplog: pytest.LogCaptureFixture) -> None:
    assert consumer(metadata_channels="http://x").metadata_channels == (
        MetadataChannel("http://x", "ca"),
    )
    assert "http://x: used as the name of a CA channel" in caplog.text


@pytest.mark.parametrize("text", ["pva://", "ca://"])
def test_wrong_metadata_channels(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a metadata channel"):
        consumer(metadata_channels=text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("out:*", "out:007"), ("_", "pvapy:consumer:007:output"), ("plain", "plain"), ("", "")],
)
def test_names_get_the_id(name: str, expected: str) -> None:
    assert consumer(id_format_spec="03d").named(name, "consumer", "output", 7) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"no_such": 1}, "unknown setting 'no_such'; known are"),
        ({"input_mode": "tcp"}, "--input-mode"),
        ({"processor_args": "[1]"}, "--processor-args: must be a JSON object"),
        ({"processor_args": "{"}, "--processor-args: is not JSON"),
        ({"n_consumers": 0}, "--n-consumers"),
        ({"id_format_spec": "zz"}, "--id-format-spec: 'zz' cannot format an integer"),
        ({"accumulate_objects": 5, "receiver_queue_size": 3}, "never fits"),
        ({"log_level": "loud"}, "--log-level"),
        ({"field_request": "field("}, "--field-request: is not a field request"),
        ({"field_request": "a b)"}, "--field-request: is not a field request"),
        ({"field_request": "uniqueId,va lue(x"}, "'value\\(x' is not a field"),
        ({"output_channel": "in"}, "--input-channel and --output-channel are both in"),
        ({"output_channel": "in", "output_mode": "pva"}, "are both in"),
        ({"output_channel": "in", "input_mode": "auto"}, "are both in"),
        ({"status_channel": "s", "control_channel": "s"}, "are both s"),
        ({"consumer_id": -1, "status_channel": "s"}, "from 0 on"),
    ],
)
def test_wrong_values_are_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        consumer(**values)
    assert caught.value.exit_code == 2


def test_a_missing_channel_is_named() -> None:
    with pytest.raises(SettingsError, match="--input-channel is required"):
        ConsumerSettings.of()


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        consumer(n_consumers=-1, oid_field="")
    assert "--n-consumers" in str(caught.value)
    assert "--oid-field" in str(caught.value)


def test_settings_cross_to_other_processes() -> None:
    settings = consumer(
        processor_args='{"a": [1]}', metadata_channels="pva://x", consumer_id_list="1,4"
    )
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        consumer().runtime = 3  # type: ignore[misc]


def test_replace_validates_again() -> None:
    settings = consumer(processor_args='{"a": 1}', runtime=5)
    changed = settings.replace(runtime=7)
    assert (changed.runtime, changed.processor_args, settings.runtime) == (7, {"a": 1}, 5)
    with pytest.raises(SettingsError):
        settings.replace(n_consumers=0)


def test_case_does_not_matter_where_it_did_not() -> None:
    settings = consumer(log_level="INFO", input_mode="PVA")
    assert (settings.level, settings.input_mode) == (logging.INFO, "pva")
    assert LoggingSettings.of().level == logging.WARNING
