#!/usr/bin/env bash
# Three stages, one after another: transpose, bin, save.
#
#   sim --> consumer 1, transposes --> consumer 2, bins 2 x 2 --> write
#
. "$(dirname "$0")/common.sh"

stage transpose consumer --input-channel "${pv}image" --output-channel "${pv}turned" \
    --status-channel "${pv}status:1" --server-queue-size 500 \
    --processor-class $processors.Transpose
stage bin consumer --consumer-id 2 --input-channel "${pv}turned" --output-channel "${pv}binned" \
    --status-channel "${pv}status:2" --server-queue-size 500 \
    --processor-class $processors.Binning --processor-args '{"bx": 2, "by": 2, "mode": "sum"}'
stage write write --consumer-id 3 --input-channel "${pv}binned" --output "$work/binned.h5" \
    --status-channel "${pv}status:3" --server-queue-size 500

source_of "${pv}status:1,${pv}status:2,${pv}status:3"
finish "$work"/{sim,transpose,bin,write}.json
exit "$failed"
