#!/usr/bin/env bash
# Two consumers share the work; the collector adds the values of two metadata channels.
#
#          +--> consumer 1 --+
#   sim ---+                 +--> collector, associates --> write
#    |     +--> consumer 2 --+       ^
#    +------ x (CA), y (PVA) --------+
#
. "$(dirname "$0")/common.sh"

stage consumers consumer --n-consumers 2 --input-channel "${pv}image" \
    --output-channel "${pv}part:*" --status-channel "${pv}status:*" --server-queue-size 500 \
    --distributor-group share --distributor-trigger uniqueId
stage collector collector --producer-id-list 1,2 --input-channel "${pv}part:*" \
    --output-channel "${pv}all" --status-channel "${pv}collector" --server-queue-size 500 \
    --metadata-channels "ca://${pv}x,pva://${pv}y" \
    --processor-class $processors.MetadataAssociator \
    --processor-args '{"tolerance": 0.5, "channels": {"'"${pv}x"'": {"attribute": "x"},
                       "'"${pv}y"'": {"attribute": "y"}}}'
stage write write --input-channel "${pv}all" --output "$work/all.h5" \
    --status-channel "${pv}written" --server-queue-size 500

source_of "${pv}status:1,${pv}status:2,${pv}collector,${pv}written" --metadata-pv "ca://${pv}x,pva://${pv}y"
finish "$work"/{sim,consumers,collector,write}.json
exit "$failed"
