#!/usr/bin/env bash
# Two consumers share the frames and write compressed files of 100; one more file shows them all in
# order, and everything is verified.
#
#          +--> consumer 1, Hdf5Writer --> scan.1.000001.h5 …
#   sim ---+
#          +--> consumer 2, Hdf5Writer --> scan.2.000001.h5 …
#
. "$(dirname "$0")/common.sh"

stage save consumer --n-consumers 2 --input-channel "${pv}image" \
    --output-channel "${pv}saved:*" --status-channel "${pv}status:*" --server-queue-size 500 \
    --distributor-group share --distributor-trigger uniqueId \
    --processor-class $processors.Hdf5Writer \
    --processor-args '{"outputDirectory": "'"$work"'", "nImagesPerFile": 100,
        "outputFileNameFormat": "scan.{processorId}.{outputFileId:06d}.h5", "compression": "bslz4"}'

source_of "${pv}status:1,${pv}status:2"
finish "$work"/{sim,save}.json
pvapy-stream verify "$work"/scan.*.h5 --master "$work/scan.h5" || failed=1
exit "$failed"
