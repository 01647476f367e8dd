#!/usr/bin/env bash
# Four consumers share the work; a collector puts their results in order again.
#
#          +--> consumers 1 to 4 --+
#   sim ---+    (one frame each,   +--> collector --> write
#          +--> in turn)         --+
#
. "$(dirname "$0")/common.sh"

stage consumers consumer --n-consumers 4 --input-channel "${pv}image" \
    --output-channel "${pv}part:*" --status-channel "${pv}status:*" --server-queue-size 500 \
    --distributor-group share --distributor-trigger uniqueId --distributor-updates 3 \
    --processor-class $processors.Transpose
stage collector collector --producer-id-list 1,2,3,4 --input-channel "${pv}part:*" \
    --output-channel "${pv}all" --status-channel "${pv}collector" --server-queue-size 500 \
    --collector-cache-size 200 --gap-timeout 30
stage write write --input-channel "${pv}all" --output "$work/all.h5" \
    --status-channel "${pv}written" --server-queue-size 500 --compression bslz4

source_of "${pv}status:1,${pv}status:2,${pv}status:3,${pv}status:4,${pv}collector,${pv}written"
finish "$work"/{sim,consumers,collector,write}.json
exit "$failed"
