#!/usr/bin/env bash
# Each image is cut in four; four consumers work on a tile each; the collector makes it whole.
#
#          +--> consumer 1, tile 0 --+
#   sim ---+--> …                    +--> collector, stitches --> write
#          +--> consumer 4, tile 3 --+
#
. "$(dirname "$0")/common.sh"

# Without a distributor group every consumer gets every image.
stage split consumer --n-consumers 4 --input-channel "${pv}image" \
    --output-channel "${pv}tile:*" --status-channel "${pv}status:*" --server-queue-size 500 \
    --processor-class $processors.TileSplitter \
    --processor-args '{"tilesX": 2, "tilesY": 2, "tile": "processorId"}'
stage stitch collector --producer-id-list 1,2,3,4 --input-channel "${pv}tile:*" \
    --output-channel "${pv}whole" --status-channel "${pv}collector" --server-queue-size 500 \
    --collector-cache-size 200 --gap-timeout 30 --processor-class $processors.TileStitcher
stage write write --input-channel "${pv}whole" --output "$work/whole.h5" \
    --status-channel "${pv}written" --server-queue-size 500

source_of "${pv}status:1,${pv}status:2,${pv}status:3,${pv}status:4,${pv}collector,${pv}written"
finish "$work"/{sim,split,stitch,write}.json
exit "$failed"
