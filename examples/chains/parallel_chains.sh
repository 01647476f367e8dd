#!/usr/bin/env bash
# Two chains side by side, each with half of the frames.
#
#          +--> consumer 1, transposes --> write 1
#   sim ---+
#          +--> consumer 2, transposes --> write 2
#
# `*` in a channel name is the id of the stage.
. "$(dirname "$0")/common.sh"

stage transpose consumer --n-consumers 2 --input-channel "${pv}image" \
    --output-channel "${pv}turned:*" --status-channel "${pv}status:*" --server-queue-size 500 \
    --distributor-group halves --distributor-trigger uniqueId \
    --processor-class $processors.Transpose
# Each sees every second id: the step of ids is 2.
stage write write --n-consumers 2 --input-channel "${pv}turned:*" \
    --output "$work/half.{processorId}.h5" --master "$work/all.h5" \
    --status-channel "${pv}written:*" --server-queue-size 500 --oid-offset 2

source_of "${pv}status:1,${pv}status:2,${pv}written:1,${pv}written:2"
finish "$work"/{sim,transpose,write}.json
exit "$failed"
